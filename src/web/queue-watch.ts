// Watches the heads of the queues: a stuck job shows only over time.
import type { QueueFacts } from '../fleet/condition.ts';
import type { QueuesPort } from './ports.ts';

export type QueueWatch = Readonly<{ observe(): Promise<QueueFacts>; close(): void }>;

// Full workers leave a job at the head for about as long as their slowest consecutive steps take.
const JOB_STALL_MS = 60_000;
const SAMPLE_EVERY_MS = 5_000;

/** Starts watching. A job that has not moved for longer than `jobStallMs` indicates a stuck job loop. */
export function watchQueues(queues: Pick<QueuesPort, 'heads' | 'paused' | 'ping' | 'memory'>, options: { jobStallMs?: number; sampleEveryMs?: number } = {}): QueueWatch {
  const { jobStallMs = JOB_STALL_MS, sampleEveryMs = SAMPLE_EVERY_MS } = options;
  const seen = new Map<string, { mark: string; sinceMs: number }>();

  const observe = async (): Promise<QueueFacts> => {
    // A connection that only reads would stay on a server that is no longer the master.
    const [heads, paused, memory] = await Promise.all([queues.heads(), queues.paused(), queues.memory(), queues.ping()]);
    const now = performance.now();
    const present = new Set(heads.map(({ queue, state }) => `${queue} ${state}`));
    for (const key of seen.keys()) if (!present.has(key)) seen.delete(key);
    const stalled: string[] = [];
    for (const head of heads) {
      const key = `${head.queue} ${head.state}`;
      const before = seen.get(key);
      // The jobs of a paused queue stand still on purpose.
      if (before === undefined || before.mark !== head.mark || head.isPaused) seen.set(key, { mark: head.mark, sinceMs: now });
      else if (now - before.sinceMs > jobStallMs + head.delayMs) stalled.push(`${head.queue}: the first ${head.state} job has not moved for ${Math.round((now - before.sinceMs) / 1_000)} s`);
    }
    return { paused, stalled, ...memory };
  };

  const sampling = setInterval(() => void observe().catch(() => undefined), sampleEveryMs);
  sampling.unref();
  return { observe, close: () => clearInterval(sampling) };
}
