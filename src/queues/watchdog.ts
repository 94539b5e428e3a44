// Detects a stuck job loop while the store still answers. After a lost connection, a BullMQ worker may wait forever
// although `isRunning()` stays true (BullMQ issues 3088 and 3185). The watchdog judges by what a live loop cannot cause:
// a job stays ready and the worker has a free slot, but the worker is handed nothing.
//
// There is no verdict if a live loop could look the same: the queue is paused or limited externally (global concurrency
// or rate), the worker is full, or the store does not answer. A busy fleet hands this worker jobs or fills it.
import { setTimeout as delay } from 'node:timers/promises';
import type { Queue } from 'bullmq';
import type { JobLoop, QueueConnection } from './connection.ts';
import { delayedUntil } from './jobs.ts';

/** Requires this many matching checks in a row: a pause that ends right before one check proves nothing. */
const LOOKS_UNTIL_VERDICT = 3;

// The next fetch of any worker promotes a due job. BullMQ fetches at least every 10 s.
const PROMOTION_MS = 11_000;

type Suspicion = Readonly<{ jobId: string; handed: number; looks: number }>;

/**
 * Watches the workers of a connection.
 *
 * @param options.everyMs time between two checks; three of them must exceed the 10 s for which a live loop may block
 * @returns a description of the stuck loop; null if the signal was aborted first
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

/** One check: confirms the suspicion, replaces it, or clears it. */
async function observe(queue: Queue, loop: JobLoop, before: Suspicion | null): Promise<Suspicion | null> {
  if (loop.running >= loop.concurrency) return null;
  const { handed } = loop;
  const isConfirmed = before !== null && before.handed === handed && (await isReady(queue, before.jobId));
  const jobId = isConfirmed ? before.jobId : await findReady(queue);
  // Asked last: an idle queue has no ready job.
  if (jobId === null || (await isHeldBack(queue))) return null;
  return { jobId, handed, looks: isConfirmed ? before.looks + 1 : 0 };
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

/** Picks the newest waiting job, because it will wait longest; else the delayed job that was due first. */
async function findReady(queue: Queue): Promise<string | null> {
  if ((await queue.getJobCountByTypes('waiting', 'delayed')) === 0) return null;
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
  // By this machine's clock, because this worker's loop would promote the job by it too.
  return job !== undefined && delayedUntil(job) + PROMOTION_MS < Date.now();
}
