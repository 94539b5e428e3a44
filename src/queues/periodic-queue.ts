// The queue of periodic work, such as the inventory syncs. Like a step's job, a job here only means "check whether the
// work is due". Postgres decides when it is due and which worker does it. So the queue can be paused, inspected and
// emptied without losing a schedule.
import type { Worker } from 'bullmq';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import type { PeriodicWork } from '../saga/extension.ts';
import type { QueueConnection } from './connection.ts';
import { QueueStoreError } from './connection.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';

export type PeriodicQueue = Readonly<{
  /** Makes sure that a job with this number exists. Replaces a finished one. */
  ensure(number: number): Promise<void>;
  /** Whether a person paused the queue. */
  isPaused(): Promise<boolean>;
  close(): Promise<void>;
}>;

const TIME_LIMIT_MS = 5_000;

const kept = { age: 14 * 24 * 3_600, count: 500 };

/**
 * Opens a queue for adding jobs.
 *
 * @param work.job name of its jobs, such as `sync`; a job id is this name and a number
 */
export function openPeriodicQueue(connection: QueueConnection, { queue: name, job }: Pick<PeriodicWork, 'queue' | 'job'>, io: Io): PeriodicQueue {
  const queue = connection.queue(name);
  const ask = <T>(what: string, operation: () => Promise<T>): Promise<T> =>
    io('queue', what, () =>
      withDeadline(TIME_LIMIT_MS, operation(), () => new QueueStoreError(`${what}: the queue store did not answer within ${TIME_LIMIT_MS} ms`)),
    );
  return {
    ensure: async (number) => {
      const jobId = `${job}_${number}`;
      const state = await ask(`state in ${name}`, () => queue.getJobState(jobId));
      if (state === 'completed' || state === 'failed') await ask(`remove from ${name}`, () => queue.remove(jobId));
      await ask(`add ${name}`, () => queue.add(job, { [job]: number }, { jobId, attempts: 1, removeOnComplete: kept, removeOnFail: kept }));
    },
    isPaused: () => ask(`is ${name} paused`, () => queue.isPaused()),
    close: () => queue.close(),
  };
}

/**
 * Starts the worker of a queue. It runs one job at a time.
 *
 * @param options.run does the work if it is due; resolves with a result for people to read
 */
export function startPeriodicWorker(connection: QueueConnection, name: string, options: { settings: WorkerSettings; run: () => Promise<string>; log: Log }): Worker {
  const worker = connection.worker(name, () => options.run(), { ...workerOptions(options.settings), concurrency: 1 });
  worker.on('failed', (job, error) => options.log.warn({ queue: name, jobId: job?.id, reason: error.message }, `${job?.name ?? 'a job'} failed`));
  return worker;
}
