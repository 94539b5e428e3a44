// The state of the fleet, as this process sees it: read now, or a moment ago for pages, which must not wait for a store
// that is away.
import { withDeadline } from '../platform/deadline.ts';
import type { FleetStatus, Limits } from '../fleet/conditions.ts';
import { judgeFleet, overdueLimitSeconds } from '../fleet/conditions.ts';
import type { QueuesPort, StatsPort } from './ports.ts';
import type { Check } from './readiness.ts';
import { watchQueues } from './queue-watch.ts';

export type FleetWatch = Readonly<{
  /** The state now; at most a second old. */
  read(): Promise<FleetStatus>;
  /** The state now or, where it takes long, as it was last seen; null: not seen yet. */
  glance(): Promise<FleetStatus | null>;
  close(): void;
}>;

export type FleetWatchOptions = Limits & Readonly<{ jobStallMs?: number; sampleEveryMs?: number }>;

const ANSWER_WITHIN_MS = 4_000;
const KEEP_MS = 1_000;
const GLANCE_MS = 1_000;

/** Watches from now on: some of it shows only over time. */
export function watchFleet(ports: { stats: Pick<StatsPort, 'fleet'>; queues: Pick<QueuesPort, 'heads' | 'paused' | 'ping'> }, options: FleetWatchOptions): FleetWatch {
  const queues = watchQueues(ports.queues, options);
  let last: FleetStatus | null = null;
  let running: { reading: Promise<FleetStatus>; at: number } | null = null;

  const readNow = async (): Promise<FleetStatus> => {
    const [postgres, seen] = await Promise.all([orNull(() => ports.stats.fleet()), orNull(() => queues.observe())]);
    last = judgeFleet({ postgres, queues: seen }, options, new Date(Date.now()));
    return last;
  };
  const read = () => {
    if (running === null || performance.now() - running.at > KEEP_MS) running = { reading: readNow(), at: performance.now() };
    return running.reading;
  };
  return {
    read,
    glance: async () => withDeadline(GLANCE_MS, read(), () => new Error('late')).catch(() => last),
    close: queues.close,
  };
}

async function orNull<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await withDeadline(ANSWER_WITHIN_MS, read(), () => new Error('late'));
  } catch {
    return null;
  }
}

/** What stands in `arcadia_ready`, by the names that it has always had. */
export function checksOf({ facts }: FleetStatus, limits: Limits): readonly Pick<Check, 'name' | 'ok'>[] {
  const { postgres, queues } = facts;
  return [
    { name: 'reconciler', ok: postgres !== null && postgres.overdueSeconds <= overdueLimitSeconds(limits) },
    { name: 'jobs', ok: queues !== null && queues.stalled.length === 0 },
  ];
}
