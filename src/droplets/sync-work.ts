// Where the inventory syncs run as jobs. People pause the queue to keep any surplus droplet from being destroyed, whoever syncs.
import { queueNames } from '../queues/jobs.ts';

/** The queue, and the name of its jobs. */
export const syncWork = { queue: queueNames.inventory, job: 'sync' } as const;
