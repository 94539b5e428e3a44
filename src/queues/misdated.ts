// Fixes delayed jobs with an impossible due time. A process whose clock was ahead would delay its jobs by the difference.
// Processes whose clocks are behind would not find a job due.
import { setTimeout as delay } from 'node:timers/promises';
import type { Job, Queue } from 'bullmq';
import type { Log } from '../platform/log.ts';
import { delayedUntil } from './jobs.ts';

// Allowed difference between two correct clocks, plus the time it takes to write a delay.
const TOLERANCE_MS = 2_000;

// The next fetch of any worker promotes a due job. BullMQ fetches at least every 10 s.
const PROMOTION_MS = 15_000;

/**
 * Whether a delayed job has an impossible due time: overdue for long, or further ahead than its whole delay.
 *
 * @param nowMs the database's time, in Unix milliseconds
 */
export function isMisdated(job: Parameters<typeof delayedUntil>[0], nowMs: number): boolean {
  const dueInMs = delayedUntil(job) - nowMs;
  return dueInMs > job.delay + TOLERANCE_MS || dueInMs < -PROMOTION_MS;
}

/** Makes a delayed job due now. Does nothing if the job has left the delayed state. */
export async function promote(job: Job): Promise<void> {
  try {
    await job.promote();
  } catch (error) {
    if ((await job.getState()) === 'delayed') throw error;
  }
}

// How many of the jobs with the latest due times are checked.
const LAST = 100;

/**
 * Corrects misdated jobs of a queue until the signal is aborted. A job that is due later than its whole delay becomes due
 * that delay after it was first seen. For queues whose jobs belong to no saga.
 */
export async function hastenMisdated(queue: Queue, { everyMs, signal, log }: { everyMs: number; signal: AbortSignal; log: Log }): Promise<void> {
  let seen = new Map<string, number>();
  while (!signal.aborted) {
    try {
      seen = await hasten(queue, seen, log);
    } catch (error) {
      log.debug({ err: error }, 'could not look for jobs that are due at a wrong time');
    }
    await delay(everyMs, undefined, { signal }).catch(() => undefined);
  }
  await queue.close();
}

async function hasten(queue: Queue, before: ReadonlyMap<string, number>, log: Log): Promise<Map<string, number>> {
  const seen = new Map<string, number>();
  const jobs = (await queue.getJobs(['delayed'], 0, LAST - 1, false)) as (Job | undefined)[];
  for (const job of jobs) {
    if (job?.id === undefined || !isMisdated(job, Date.now())) continue;
    const since = before.get(job.id) ?? performance.now();
    seen.set(job.id, since);
    const isAhead = delayedUntil(job) > Date.now();
    if (isAhead && performance.now() - since < job.delay) continue;
    await promote(job);
    // An overdue job may only have waited for a worker.
    if (isAhead) log.warn({ queue: queue.name, jobId: job.id }, 'a delayed job was due at a time that a wrong clock had set: it is due now');
  }
  return seen;
}
