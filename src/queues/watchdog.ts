// Notices a job loop that stands still although its store answers: after a lost connection a BullMQ worker may wait for
// ever, `isRunning()` all the while (its issues 3088 and 3185). It is judged from outside, by what a live loop cannot
// leave undone: a job that is ready all the time, while the worker has a free slot all the time and is handed nothing.
//
// No verdict, because a live loop may do the same: the queue is paused, or limited from outside (global concurrency or
// rate), the worker is full, the store does not answer. A fleet that is merely busy hands this worker jobs, or fills it.
import { setTimeout as delay } from 'node:timers/promises';
import type { Queue } from 'bullmq';
import type { JobLoop, QueueConnection } from './connection.ts';
import { dueAtOf } from './jobs.ts';

/** So many looks in a row must find the same: a pause that ends right before one look proves nothing. */
const LOOKS_UNTIL_VERDICT = 3;

// A due job is promoted by the next fetch of any worker; BullMQ lets at most 10 s pass between two of them.
const PROMOTION_MS = 11_000;

type Suspicion = Readonly<{ jobId: string; handed: number; looks: number }>;

/**
 * Watches the workers of a connection.
 *
 * @param options.everyMs between two looks; three of them must be longer than the 10 s for which a live loop may block
 * @returns what stands still, and by which sign; null when the signal was aborted first
 */
export async function watchJobLoops(connection: QueueConnection, options: { everyMs: number; signal: AbortSignal }): Promise<string | null> {
  const watched = connection.loops().map((loop) => ({ loop, queue: connection.queue(loop.queueName), suspicion: null as Suspicion | null }));
  try {
    while (!options.signal.aborted) {
      await delay(options.everyMs, undefined, { signal: options.signal }).catch(() => undefined);
      for (const one of watched) {
        one.suspicion = await observe(one.queue, one.loop, one.suspicion).catch(() => null);
        if (one.suspicion === null || one.suspicion.looks < LOOKS_UNTIL_VERDICT) continue;
        return `the worker of ${one.loop.queueName} takes no jobs: job ${one.suspicion.jobId} stayed ready for ${LOOKS_UNTIL_VERDICT} looks, ${options.everyMs} ms apart`;
      }
    }
    return null;
  } finally {
    await Promise.allSettled(watched.map(({ queue }) => queue.close()));
  }
}

/** One look: confirms the suspicion, or finds another, or none. */
async function observe(queue: Queue, loop: JobLoop, before: Suspicion | null): Promise<Suspicion | null> {
  if (loop.running >= loop.concurrency || (await isHeldBack(queue))) return null;
  const { handed } = loop;
  if (before !== null && before.handed === handed && (await isReady(queue, before.jobId))) return { ...before, looks: before.looks + 1 };
  const jobId = await findReady(queue);
  return jobId === null ? null : { jobId, handed, looks: 0 };
}

async function isHeldBack(queue: Queue): Promise<boolean> {
  const [paused, concurrency, rate, throttledMs] = await Promise.all([
    queue.isPaused(),
    queue.getGlobalConcurrency(),
    queue.getGlobalRateLimit(),
    queue.getRateLimitTtl(),
  ]);
  return paused || concurrency !== null || rate !== null || throttledMs > 0;
}

/** The newest of the waiting jobs, as it waits longest yet; else the delayed one that was due first. */
async function findReady(queue: Queue): Promise<string | null> {
  const [waiting] = await queue.getRanges(['waiting'], 0, 0, false);
  if (waiting !== undefined) return waiting;
  const [delayed] = await queue.getRanges(['delayed'], 0, 0, true);
  return delayed !== undefined && (await isReady(queue, delayed)) ? delayed : null;
}

async function isReady(queue: Queue, jobId: string): Promise<boolean> {
  const state = await queue.getJobState(jobId);
  if (state === 'waiting') return true;
  if (state !== 'delayed') return false;
  const job = await queue.getJob(jobId);
  // By this machine's clock, which is also the one by which this worker's loop would promote it.
  return job !== undefined && dueAtOf(job) + PROMOTION_MS < Date.now();
}
