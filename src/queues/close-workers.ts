// Closes workers within a deadline.
import type { Worker } from 'bullmq';
import { endsWithin } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';

/**
 * Stops taking jobs and lets running jobs finish. BullMQ's own close waits for them without a limit, and so does a forced
 * close after it. Jobs still running at the deadline are abandoned; another worker takes them over.
 */
export async function closeWorkers(workers: readonly Worker[], deadlineMs: number, log: Log): Promise<void> {
  const closed = await endsWithin(deadlineMs, Promise.all(workers.map((worker) => worker.close())));
  if (!closed) log.warn({ deadlineMs }, 'steps were still running at the deadline: left to other workers');
}
