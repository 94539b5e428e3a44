// The queue of inventory syncs. Pausing it also keeps surplus droplets from being destroyed, whatever starts the sync.
import { queueNames } from '../queues/jobs.ts';

/** The queue's name and the name of its jobs. */
export const syncWork = { queue: queueNames.inventory, job: 'sync' } as const;
