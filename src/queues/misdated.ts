// Delayed jobs whose time cannot be right: put off by a process whose clock was ahead, they would stand still for as long
// as it was; taken by processes whose clocks are behind, nobody would find them due.
import { setTimeout as delay } from 'node:timers/promises';
import type { Job, Queue } from 'bullmq';
import type { Log } from '../platform/log.ts';
import { dueAtOf } from './jobs.ts';

// Of two clocks that are right, and what it takes to write down a delay.
const TOLERANCE_MS = 2_000;

// A due job is promoted by the next fetch of any worker; BullMQ lets at most 10 s pass between two of them.
const PROMOTION_MS = 15_000;

/**
 * Whether a delayed job is due at another time than it says: due for long, or due later than its whole delay from now.
 *
 * @param nowMs the database's time, in Unix milliseconds
 */
export function isMisdated(job: Pick<Job, 'data' | 'timestamp' | 'delay'>, nowMs: number): boolean {
  const dueInMs = dueAtOf(job) - nowMs;
  return dueInMs > job.delay + TOLERANCE_MS || dueInMs < -PROMOTION_MS;
}

/** Makes a delayed job due now. Does nothing where somebody else has moved it on. */
export async function promote(job: Job): Promise<void> {
  try {
    await job.promote();
  } catch (error) {
    if ((await job.getState()) === 'delayed') throw error;
  }
}

// Of the jobs that are due last, so many are looked at.
const LAST = 100;

/**
 * Makes misdated jobs of a queue due in time, until the signal is aborted: one that is due later than its whole delay is
 * due that delay after it was first seen. For queues of which no saga knows the jobs.
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
    if (performance.now() - since < job.delay && dueAtOf(job) > Date.now()) continue;
    await promote(job);
    log.warn({ queue: queue.name, jobId: job.id }, 'a delayed job was due at a time that a wrong clock had set: it is due now');
  }
  return seen;
}
