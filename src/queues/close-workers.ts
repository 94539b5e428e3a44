// Closing workers within a time limit.
import type { Worker } from 'bullmq';
import { endsWithin } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';

/**
 * Stops taking jobs and lets the running ones finish. BullMQ's own close waits for them without a limit, a forced one
 * after it too; what is not done by the deadline is left to itself, and taken up by another worker.
 */
export async function closeWorkers(workers: readonly Worker[], deadlineMs: number, log: Log): Promise<void> {
  const closed = await endsWithin(deadlineMs, Promise.all(workers.map((worker) => worker.close())));
  if (!closed) log.warn({ deadlineMs }, 'steps still running at the deadline: left to other workers');
}
