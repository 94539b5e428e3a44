// Retention: deletes what ended long ago, in small batches with pauses. Like the reconciler, it is a timer in each
// worker. A lease in Postgres lets one worker of the fleet run it at a time. (A pooler that lends connections per
// transaction would lose a session lock or never release it.)
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';

/** The result of a batch. `next`: where the next batch starts; null after the last. */
export type ExpiredBatch = Readonly<{ deleted: number; next: string | null }>;

/**
 * Deletes one batch of expired rows. Deletes nothing if the lease is lost.
 *
 * @param lease SQL that yields one row while the lease holds
 * @param after `next` of the previous batch; null for the first
 */
export type Expiry = Readonly<{ of: string; deleteBatch(lease: (sql: Sql) => SqlFragment, after: string | null): Promise<ExpiredBatch> }>;

export type RetentionOptions = Readonly<{
  db: Pick<Database, 'run'>;
  expiries: readonly Expiry[];
  log: Log;
  signal: AbortSignal;
  /** Milliseconds between two batches, in which the database serves others. */
  pauseMs?: number;
  /** Milliseconds from the end of a pass, by any worker, to the next. */
  everyMs?: number;
}>;

// Longer than a statement plus a pause.
const LEASE_MS = 60_000;
const PAUSE_MS = 200;
const EVERY_MS = 3_600_000;
const LOOK_EVERY_MS = 600_000;

/**
 * Runs one pass if it is due and no other worker is running one.
 *
 * @returns the number of deleted rows of each kind; null: not this worker's turn
 */
export async function retain(options: RetentionOptions): Promise<Readonly<Record<string, number>> | null> {
  const { db, expiries, log, signal, pauseMs = PAUSE_MS } = options;
  const holder = randomUUID();
  if (!(await takeLease(db, holder, options.everyMs ?? EVERY_MS))) return null;
  const deleted: Record<string, number> = {};
  let isWhole = true;
  for (const expiry of expiries) {
    deleted[expiry.of] = 0;
    try {
      let after: string | null = null;
      do {
        const batch = await expiry.deleteBatch((sql) => renewedLease(sql, holder), after);
        deleted[expiry.of] = (deleted[expiry.of] ?? 0) + batch.deleted;
        after = batch.next;
        if (after !== null) await delay(pauseMs, undefined, { signal }).catch(() => undefined);
      } while (after !== null && !signal.aborted);
    } catch (error) {
      isWhole = false;
      log.warn({ err: error, of: expiry.of }, 'retention failed: trying again later');
    }
    if (signal.aborted) break;
  }
  await giveBackLease(db, holder, isWhole && !signal.aborted);
  if (Object.values(deleted).some((count) => count > 0)) log.info({ deleted }, 'retention deleted expired rows');
  return deleted;
}

/** When retention last completed a pass, and whether one is running. `lastAt` null: none has completed. */
export async function readRetention(db: Pick<Database, 'run'>): Promise<Readonly<{ lastAt: Date | null; isRunning: boolean }>> {
  const [row] = await db.run(
    'retention.read',
    (sql) => sql<{ lastAt: Date | null; isRunning: boolean }[]>`
      select case when finished_at > '-infinity' then finished_at end as last_at, lease_until > clock_timestamp() as is_running from arcadia.retention`,
  );
  return row ?? { lastAt: null, isRunning: false };
}

/** Checks every few minutes whether a pass is due, until the signal is aborted. */
export async function runRetention(options: RetentionOptions & { lookEveryMs?: number }): Promise<void> {
  const { lookEveryMs = LOOK_EVERY_MS, signal, log } = options;
  for (;;) {
    // Waits before the first check too, so that a deploy's workers neither check all at once nor while they are busy
    // starting.
    await delay(lookEveryMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      await retain(options);
    } catch (error) {
      log.warn({ err: error }, 'retention failed: trying again later');
    }
  }
}

async function takeLease(db: Pick<Database, 'run'>, holder: string, everyMs: number): Promise<boolean> {
  const rows = await db.run(
    'retention.lease',
    (sql) => sql`
      insert into arcadia.retention (leased_by, lease_until) values (${holder}, clock_timestamp() + ${milliseconds(sql, LEASE_MS)})
      on conflict (is_only) do update set leased_by = excluded.leased_by, lease_until = excluded.lease_until
      where retention.lease_until < clock_timestamp() and retention.finished_at <= clock_timestamp() - ${milliseconds(sql, everyMs)}
      returning 1`,
  );
  return rows.length === 1;
}

/** Part of every batch: a worker that lost its lease deletes nothing in parallel with the next one. */
function renewedLease(sql: Sql, holder: string): SqlFragment {
  return sql`
    update arcadia.retention set lease_until = clock_timestamp() + ${milliseconds(sql, LEASE_MS)}
    where leased_by = ${holder} and lease_until > clock_timestamp() returning 1`;
}

async function giveBackLease(db: Pick<Database, 'run'>, holder: string, isWhole: boolean): Promise<void> {
  await db.run(
    'retention.give_back',
    (sql) => sql`
      update arcadia.retention
      set lease_until = '-infinity', finished_at = case when ${isWhole} then clock_timestamp() else finished_at end
      where leased_by = ${holder}`,
  );
}

function milliseconds(sql: Sql, ms: number): SqlFragment {
  return sql`${ms}::double precision * interval '1 millisecond'`;
}
