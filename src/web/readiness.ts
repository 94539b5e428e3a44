// Whether the whole works: Postgres and the queues answer, the reconciler takes what is overdue, and jobs move.
import type { QueuesPort, StatsPort } from './ports.ts';

export type Check = Readonly<{ name: string; ok: boolean; detail: string }>;

export type Readiness = Readonly<{
  check(): Promise<readonly Check[]>;
  close(): void;
}>;

export type ReadinessOptions = Readonly<{
  /** A saga that is overdue for longer than this tells of a reconciler that stands still. */
  reconcileIntervalMs: number;
  /** A job that did not move for longer than this tells of a job loop that stands still. */
  jobStallMs?: number;
  sampleEveryMs?: number;
}>;

// Full workers leave a job at the head for about as long as the slowest steps that follow one another at once take.
const JOB_STALL_MS = 60_000;
const SAMPLE_EVERY_MS = 5_000;
const ANSWER_WITHIN_MS = 4_000;

/** Watches the queues from now on: that a job stands still shows only over time. */
export function watchReadiness(ports: { stats: Pick<StatsPort, 'ping' | 'backlog'>; queues: Pick<QueuesPort, 'heads'> }, options: ReadinessOptions): Readiness {
  const { jobStallMs = JOB_STALL_MS, sampleEveryMs = SAMPLE_EVERY_MS, reconcileIntervalMs } = options;
  const seen = new Map<string, { mark: string; sinceMs: number }>();
  // A pass, its jitter, and one that failed.
  const overdueLimitSeconds = Math.max(30, (3 * reconcileIntervalMs) / 1_000);

  const checkQueues = async (): Promise<Check[]> => {
    const heads = await ports.queues.heads();
    const now = performance.now();
    const present = new Set(heads.map(({ queue, state }) => `${queue} ${state}`));
    for (const key of seen.keys()) if (!present.has(key)) seen.delete(key);
    const stalled: string[] = [];
    const paused = new Set<string>();
    for (const head of heads) {
      const key = `${head.queue} ${head.state}`;
      const before = seen.get(key);
      // While a queue is paused, its jobs stand still because somebody wants them to.
      if (before === undefined || before.mark !== head.mark || head.isPaused) seen.set(key, { mark: head.mark, sinceMs: now });
      else if (now - before.sinceMs > jobStallMs + head.delayMs) stalled.push(`${head.queue}: the first ${head.state} job has not moved for ${Math.round((now - before.sinceMs) / 1_000)} s`);
      if (head.isPaused) paused.add(head.queue);
    }
    const note = paused.size === 0 ? '' : `; paused: ${[...paused].join(', ')}`;
    return [{ name: 'jobs', ok: stalled.length === 0, detail: (stalled.join('; ') || 'jobs move') + note }];
  };

  const checkReconciler = async (): Promise<Check[]> => {
    const { overdueSeconds, unfinished } = await ports.stats.backlog();
    const ok = overdueSeconds <= overdueLimitSeconds;
    const detail = ok ? `${unfinished} sagas under way, none left alone` : `a saga is overdue by ${Math.round(overdueSeconds)} s: no worker's reconciler takes it`;
    return [{ name: 'reconciler', ok, detail }];
  };

  const sampling = setInterval(() => void checkQueues().catch(() => undefined), sampleEveryMs);
  sampling.unref();
  return {
    check: async () => {
      const checks = await Promise.all([
        settle('postgres', async () => {
          await ports.stats.ping();
          return [{ name: 'postgres', ok: true, detail: 'answers' }];
        }),
        settle('reconciler', checkReconciler),
        settle('jobs', checkQueues),
      ]);
      return checks.flat();
    },
    close: () => clearInterval(sampling),
  };
}

/** A check that fails, or does not come back, is red; why stands in the log of whoever could not be reached, not here. */
async function settle(name: string, check: () => Promise<readonly Check[]>): Promise<readonly Check[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly Check[]>((resolve) => {
    timer = setTimeout(() => resolve([{ name, ok: false, detail: `no answer within ${ANSWER_WITHIN_MS} ms` }]), ANSWER_WITHIN_MS);
  });
  try {
    return await Promise.race([check(), late]);
  } catch {
    return [{ name, ok: false, detail: 'could not be read' }];
  } finally {
    clearTimeout(timer);
  }
}
