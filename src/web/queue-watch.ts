// Watches the heads of the queues: that a job stands still shows only over time.
import type { QueueFacts } from '../fleet/conditions.ts';
import type { QueuesPort } from './ports.ts';

export type QueueWatch = Readonly<{ observe(): Promise<QueueFacts>; close(): void }>;

// Full workers leave a job at the head for about as long as the slowest steps that follow one another at once take.
const JOB_STALL_MS = 60_000;
const SAMPLE_EVERY_MS = 5_000;

/** Watches from now on. A job that did not move for longer than `jobStallMs` tells of a job loop that stands still. */
export function watchQueues(queues: Pick<QueuesPort, 'heads' | 'paused' | 'ping'>, options: { jobStallMs?: number; sampleEveryMs?: number } = {}): QueueWatch {
  const { jobStallMs = JOB_STALL_MS, sampleEveryMs = SAMPLE_EVERY_MS } = options;
  const seen = new Map<string, { mark: string; sinceMs: number }>();

  const observe = async (): Promise<QueueFacts> => {
    // A connection that only reads would stay on a server that is not the master any more.
    const [heads, paused] = await Promise.all([queues.heads(), queues.paused(), queues.ping()]);
    const now = performance.now();
    const present = new Set(heads.map(({ queue, state }) => `${queue} ${state}`));
    for (const key of seen.keys()) if (!present.has(key)) seen.delete(key);
    const stalled: string[] = [];
    for (const head of heads) {
      const key = `${head.queue} ${head.state}`;
      const before = seen.get(key);
      // While a queue is paused, its jobs stand still because somebody wants them to.
      if (before === undefined || before.mark !== head.mark || head.isPaused) seen.set(key, { mark: head.mark, sinceMs: now });
      else if (now - before.sinceMs > jobStallMs + head.delayMs) stalled.push(`${head.queue}: the first ${head.state} job has not moved for ${Math.round((now - before.sinceMs) / 1_000)} s`);
    }
    return { paused, stalled };
  };

  const sampling = setInterval(() => void observe().catch(() => undefined), sampleEveryMs);
  sampling.unref();
  return { observe, close: () => clearInterval(sampling) };
}
