// The fleet's state as this process sees it: read now, or cached for pages, which must not wait for an unreachable store.
import { isNotMigrated } from '../platform/db.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Limits, QueueFacts } from '../fleet/condition.ts';
import type { FleetStatus, UsersFileFact } from '../fleet/conditions.ts';
import { judgeFleet } from '../fleet/conditions.ts';
import { overdueLimitSeconds } from '../fleet/postgres-conditions.ts';
import type { PostgresFacts } from '../fleet/facts.ts';
import type { QueuesPort, StatsPort } from './ports.ts';
import type { Check } from './readiness.ts';
import { watchQueues } from './queue-watch.ts';

export type FleetWatch = Readonly<{
  /**
   * Reads the state; at most a second old.
   *
   * @param withinMs the deadline of each store, in milliseconds; default 4,000
   */
  read(withinMs?: number): Promise<FleetStatus>;
  /** Reads the state, or returns the last known one if that takes long; null: none yet. */
  glance(): Promise<FleetStatus | null>;
  close(): void;
}>;

export type FleetWatchOptions = Limits & Readonly<{ jobStallMs?: number; sampleEveryMs?: number; usersFile: () => UsersFileFact | null }>;

const ANSWER_WITHIN_MS = 4_000;
const KEEP_MS = 1_000;
const GLANCE_MS = 1_000;

/** Starts watching. Some conditions show only over time. */
export function watchFleet(ports: { stats: Pick<StatsPort, 'fleet'>; queues: Pick<QueuesPort, 'heads' | 'paused' | 'ping' | 'memory'> }, options: FleetWatchOptions): FleetWatch {
  const queues = watchQueues(ports.queues, options);
  let last: FleetStatus | null = null;
  let running: { postgres: Promise<PostgresFacts>; queues: Promise<QueueFacts>; at: number } | null = null;

  const read = async (withinMs = ANSWER_WITHIN_MS): Promise<FleetStatus> => {
    // Concurrent callers share one read, each with its own deadline.
    if (running === null || performance.now() - running.at > KEEP_MS) running = { postgres: ports.stats.fleet(), queues: queues.observe(), at: performance.now() };
    const lacks = running.postgres.then(() => false, isNotMigrated);
    const [postgres, seen, isDue] = await Promise.all([orNull(withinMs, running.postgres), orNull(withinMs, running.queues), orNull(withinMs, lacks)]);
    last = judgeFleet({ postgres, queues: seen, usersFile: options.usersFile(), isNotMigrated: isDue === true }, options, new Date(Date.now()));
    return last;
  };
  return {
    read,
    glance: async () => withDeadline(GLANCE_MS, read(), () => new Error('late')).catch(() => last),
    close: queues.close,
  };
}

async function orNull<T>(withinMs: number, reading: Promise<T>): Promise<T | null> {
  try {
    return await withDeadline(withinMs, reading, () => new Error('late'));
  } catch {
    return null;
  }
}

/** The checks of the metric `arcadia_ready`, by their established names. */
export function checksOf({ facts }: FleetStatus, limits: Limits): readonly Pick<Check, 'name' | 'ok'>[] {
  const { postgres, queues } = facts;
  return [
    { name: 'reconciler', ok: postgres !== null && postgres.overdueSeconds <= overdueLimitSeconds(limits) },
    { name: 'jobs', ok: queues !== null && queues.stalled.length === 0 },
  ];
}
