// The queue of inventory syncs. Like a step's job, a job here only says "look whether a sync is due": when one is, and
// who runs it, is in Postgres. So the queue can be paused, watched and emptied, and no schedule is lost with it.
import type { Worker } from 'bullmq';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import type { QueueConnection } from './connection.ts';
import { QueueStoreError } from './connection.ts';
import { queueNames } from './jobs.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';

export type InventoryQueue = Readonly<{
  /** Makes sure that there is a job for the sync of this number; puts a new one in the place of one that is finished. */
  ensure(syncNumber: number): Promise<void>;
  /** Whether people have paused the queue: then nothing surplus is destroyed either, whoever syncs. */
  isPaused(): Promise<boolean>;
  close(): Promise<void>;
}>;

const TIME_LIMIT_MS = 5_000;

const kept = { age: 14 * 24 * 3_600, count: 500 };

/** Opens the queue for adding. */
export function openInventoryQueue(connection: QueueConnection, io: Io): InventoryQueue {
  const queue = connection.queue(queueNames.inventory);
  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> =>
    io('queue', name, () =>
      withDeadline(TIME_LIMIT_MS, operation(), () => new QueueStoreError(`${name}: the queue store did not answer within ${TIME_LIMIT_MS} ms`)),
    );
  return {
    ensure: async (syncNumber) => {
      const jobId = `sync_${syncNumber}`;
      const state = await ask('state in inventory', () => queue.getJobState(jobId));
      if (state === 'completed' || state === 'failed') await ask('remove from inventory', () => queue.remove(jobId));
      await ask('add inventory', () => queue.add('sync', { sync: syncNumber }, { jobId, attempts: 1, removeOnComplete: kept, removeOnFail: kept }));
    },
    isPaused: () => ask('is inventory paused', () => queue.isPaused()),
    close: () => queue.close(),
  };
}

/**
 * Starts the worker of the queue, for one sync at a time.
 *
 * @param options.run syncs if one is due; resolves with what came of it, for people to read
 */
export function startInventoryWorker(connection: QueueConnection, options: { settings: WorkerSettings; run: () => Promise<string>; log: Log }): Worker {
  const worker = connection.worker(queueNames.inventory, () => options.run(), { ...workerOptions(options.settings), concurrency: 1 });
  worker.on('failed', (job, error) => options.log.warn({ queue: queueNames.inventory, jobId: job?.id, reason: error.message }, 'inventory sync failed'));
  return worker;
}
