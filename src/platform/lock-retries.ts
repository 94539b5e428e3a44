// Repeats a transaction of `migrate` that other sessions keep from its locks. While a migration waits for the lock of a table,
// every statement of the fleet on that table waits behind it. So it waits for a moment only, and lets the fleet go on before it
// tries again: a backup may take hours.
import { setTimeout as delay } from 'node:timers/promises';
import { errorCodeOf } from './error-code.ts';

/** A session that holds locks on our tables. */
export type Blocker = Readonly<{
  /** Null: a prepared transaction, which has no process. */
  pid: number | null;
  /** Its application_name, else the kind of process; empty: unknown. */
  name: string;
  /** When its transaction began; null: unknown, because this role may not see it. */
  since: Date | null;
}>;

/** How to wait for locks. `onBlocked` is called at once, and then every `tellEveryMs`. */
export type LockPatience = Readonly<{ lockWaitMs: number; pauseMs: number; tellEveryMs: number; onBlocked: (blockers: readonly Blocker[]) => void }>;

export const lockPatience: LockPatience = {
  // The fleet stands still for as long, at each lock. Autovacuum gives way after deadlock_timeout, which is 1 s.
  lockWaitMs: 2_000,
  pauseMs: 3_000,
  tellEveryMs: 30_000,
  onBlocked: () => undefined,
};

// lock_not_available, deadlock_detected.
const heldByOthers: ReadonlySet<string | null> = new Set(['55P03', '40P01']);

/**
 * Runs a transaction until it gets its locks, however long that takes. Between two tries, nothing is held.
 *
 * @param on.schema the schema of the tables
 * @param on.query runs SQL without parameters
 * @param attempt begins and commits the transaction, with a `lock_timeout` of `lockWaitMs`, and rolls it back if it fails
 */
export async function untilUnlocked<T>(
  { lockWaitMs, pauseMs, tellEveryMs, onBlocked }: LockPatience,
  on: Readonly<{ schema: string; query: (sql: string) => PromiseLike<readonly Blocker[]> }>,
  attempt: () => Promise<T>,
): Promise<T> {
  let toldAt: number | null = null;
  for (;;) {
    const startedAt = performance.now();
    try {
      return await attempt();
    } catch (error) {
      if (!heldByOthers.has(errorCodeOf(error))) throw error;
    }
    const tookMs = performance.now() - startedAt;
    if (toldAt === null || performance.now() - toldAt >= tellEveryMs) {
      onBlocked(await on.query(blockersSql(on.schema, lockWaitMs)));
      toldAt = performance.now();
    }
    // A large migration may hold locks for long before it comes to the one that it does not get.
    await delay(Math.max(pauseMs, tookMs));
  }
}

/** Describes them, for people. */
export function describeBlockers(blockers: readonly Blocker[]): string {
  if (blockers.length === 0) return 'others hold locks on its tables';
  return blockers
    .map(({ pid, name, since }) => `${pid === null ? 'a prepared transaction (see pg_prepared_xacts)' : `process ${pid}`}${name === '' ? '' : ` (${name})`}${since === null ? '' : `, in a transaction since ${since.toISOString()}`}`)
    .join('; ');
}

/** Reads the sessions that have held a lock on a table of the schema for at least as long as the migration waited. */
function blockersSql(schema: string, lockWaitMs: number): string {
  return `
    select locks.pid, coalesce(nullif(sessions.application_name, ''), sessions.backend_type, '') as name, sessions.xact_start as since
    from (
      select distinct pid from pg_catalog.pg_locks
      where granted and locktype = 'relation' and pid is distinct from pg_catalog.pg_backend_pid()
        and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        and relation in (select oid from pg_catalog.pg_class where relnamespace = '${schema}'::regnamespace)
    ) as locks
    left join pg_catalog.pg_stat_activity as sessions on sessions.pid = locks.pid
    where sessions.xact_start is null or sessions.xact_start < pg_catalog.clock_timestamp() - interval '${lockWaitMs} milliseconds'
    order by sessions.xact_start nulls last
    limit 5`;
}
