// The schedule and results of syncs. Only one runs at a time in the whole fleet: only one worker can insert its row. That
// worker holds a lease, and each of its writes checks the lease.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';

/** The Postgres channel for the findings of syncs: `{"kind": "drift_found", …}`. */
export const INVENTORY_CHANNEL = 'arcadia_inventory';

/** A sync in progress. */
export type SyncRun = Readonly<{ number: number; /** By the database's clock. */ startedAt: Date }>;

export type SyncOutcome = 'complete' | 'failed' | 'interrupted';

/** A sync as stored. */
export type StoredSync = Readonly<{
  number: number;
  startedAt: Date;
  finishedAt: Date | null;
  outcome: SyncOutcome | 'abandoned' | null;
  worker: string;
  /** Null: it was due. */
  requestedBy: string | null;
  summary: JsonObject;
  error: string | null;
}>;

/** Thrown if another worker has taken over the sync, or it was stopped: nothing more may be written for it. */
export class SyncLostError extends Error {
  override readonly name = 'SyncLostError';
  readonly code = 'sync_lost';
}

/** A sync that has not renewed its lease for this long is abandoned. Longer than any of its requests or statements may take. */
const LEASE_MS = 60_000;

// A failed sync is retried after this time, or after the interval if that is shorter.
const RETRY_MS = 60_000;

const KEPT_SYNCS = 1_000;

/** Writes of a sync select from this: one row while the lease holds. It also renews the lease. */
export function heldSync(sql: Sql, number: number): SqlFragment {
  return sql`
    update arcadia.inventory_syncs set lease_until = clock_timestamp() + ${LEASE_MS}::int * interval '1 millisecond'
    where number = ${number} and finished_at is null returning number`;
}

/** Whether a sync is due; `next` is the number that it would have. */
export async function lookWhetherDue(db: Pick<Database, 'run'>, intervalMs: number): Promise<{ isDue: boolean; next: number }> {
  const [row] = await db.run(
    'syncs.due',
    (sql) => sql<{ isDue: boolean; next: number }[]>`
      select ${due(sql, intervalMs)} and ${nobodyAtIt(sql)} as is_due,
             coalesce((select max(number) from arcadia.inventory_syncs), 0) + 1 as next`,
  );
  return row ?? { isDue: false, next: 1 };
}

/**
 * Starts a sync, replacing an abandoned one.
 *
 * @param how.intervalMs only if one is due; null: now, because it was requested
 * @returns null if none is due, or another worker is running one
 */
export async function startSync(
  db: Pick<Database, 'run'>,
  how: { worker: string; intervalMs: number | null; requestedBy: string | null },
): Promise<SyncRun | null> {
  const [row] = await db.run(
    'syncs.start',
    // The insert must wait for the update: Postgres runs independent parts of a statement in any order.
    (sql) => sql<SyncRun[]>`
      with abandoned as (
        update arcadia.inventory_syncs set finished_at = clock_timestamp(), outcome = 'abandoned'
        where finished_at is null and lease_until < clock_timestamp() returning number
      ),
      pruned as (
        -- The last complete one says how old the inventory is.
        delete from arcadia.inventory_syncs where number <= (select max(number) from arcadia.inventory_syncs) - ${KEPT_SYNCS}::int
          and number is distinct from (select max(number) from arcadia.inventory_syncs where outcome = 'complete')
      )
      insert into arcadia.inventory_syncs (number, lease_until, worker, requested_by)
      select coalesce((select max(number) from arcadia.inventory_syncs), 0) + 1,
             clock_timestamp() + ${LEASE_MS}::int * interval '1 millisecond', ${how.worker}, ${how.requestedBy}
      from (select count(*) from abandoned) as closed
      where ${nobodyAtIt(sql)} and ${how.intervalMs === null ? sql`true` : due(sql, how.intervalMs)}
      on conflict do nothing
      returning number, started_at`,
  );
  return row ?? null;
}

/**
 * Renews the sync's lease.
 *
 * @returns the database's clock, in milliseconds; everything requested from the API from now on is newer
 * @throws {SyncLostError} if another worker has taken over the sync
 */
export async function renewSync(db: Pick<Database, 'run'>, number: number): Promise<Date> {
  const [row] = await db.run(
    'syncs.renew',
    (sql) => sql<{ now: Date }[]>`with held as (${heldSync(sql, number)}) select date_trunc('milliseconds', clock_timestamp()) as now from held`,
  );
  if (row === undefined) throw lostSync(number);
  return row.now;
}

/** Records the result of a sync. Does nothing if another worker has taken it over. */
export async function finishSync(
  db: Pick<Database, 'run'>,
  number: number,
  result: { outcome: SyncOutcome; summary: JsonObject; error: string | null },
): Promise<void> {
  await db.run(
    'syncs.finish',
    (sql) => sql`
      update arcadia.inventory_syncs
      set finished_at = clock_timestamp(), outcome = ${result.outcome}, summary = ${jsonText(result.summary)}::text::jsonb, error = ${result.error}
      where number = ${number} and finished_at is null`,
  );
}

/** Lists the last syncs, newest first. */
export async function listSyncs(db: Pick<Database, 'run'>, limit: number): Promise<StoredSync[]> {
  return db.run(
    'syncs.list',
    (sql) => sql<StoredSync[]>`
      select number, started_at, finished_at, outcome, worker, requested_by, summary, error
      from arcadia.inventory_syncs order by number desc limit ${limit}`,
  );
}

/** How old what the inventory says is. `readAt`: when the last complete sync began to read the account; null: there was none yet. */
export type SyncAge = Readonly<{
  readAt: Date | null;
  /** The last sync that ended, if it was not complete. */
  failed: Readonly<{ at: Date; error: string | null }> | null;
}>;

/** Reads how old the inventory is. */
export async function readSyncAge(db: Pick<Database, 'run'>): Promise<SyncAge> {
  const [row] = await db.run(
    'syncs.age',
    (sql) => sql<{ readAt: Date | null; failedAt: Date | null; error: string | null }[]>`
      with ended as (select finished_at, outcome, error from arcadia.inventory_syncs where finished_at is not null order by number desc limit 1)
      select (select max(started_at) from arcadia.inventory_syncs where outcome = 'complete') as read_at,
             (select finished_at from ended where outcome <> 'complete') as failed_at, (select error from ended where outcome <> 'complete') as error`,
  );
  const { readAt = null, failedAt = null, error = null } = row ?? {};
  return { readAt, failed: failedAt === null ? null : { at: failedAt, error } };
}

export function lostSync(number: number): SyncLostError {
  return new SyncLostError(`sync ${number} timed out, and another process may have taken it over`);
}

function nobodyAtIt(sql: Sql): SqlFragment {
  return sql`not exists (select from arcadia.inventory_syncs where finished_at is null and lease_until >= clock_timestamp())`;
}

/** A sync is due unless the last one failed a moment ago or completed within the interval. An unfinished one does not count. */
function due(sql: Sql, intervalMs: number): SqlFragment {
  return sql`not exists (
    select from arcadia.inventory_syncs
    where number = (select max(number) from arcadia.inventory_syncs)
      and (
        (outcome = 'complete' and started_at > clock_timestamp() - ${intervalMs}::int * interval '1 millisecond')
        or (outcome = 'failed' and finished_at > clock_timestamp() - ${Math.min(intervalMs, RETRY_MS)}::int * interval '1 millisecond')
      )
  )`;
}
