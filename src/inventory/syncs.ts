// The syncs themselves: when one is due, who runs it, what came of it. There is one at a time in the whole fleet, by a
// row that only one can insert; whoever runs it holds it by a lease, and every write of its checks that it still does.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';

/** On this channel of Postgres stands what syncs find: `{"kind": "drift_found", …}`. */
export const INVENTORY_CHANNEL = 'arcadia_inventory';

/** One sync under way. */
export type SyncRun = Readonly<{ number: number; /** By the database's clock. */ startedAt: Date }>;

export type SyncOutcome = 'complete' | 'failed' | 'interrupted';

/** One sync as it stands on record. */
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

/** Somebody else runs the sync now, or it was told to stop: nothing more may be written for it. */
export class SyncLostError extends Error {
  override readonly name = 'SyncLostError';
  readonly code = 'sync_lost';
}

/** A sync that shows no sign of life for so long is abandoned: longer than any request or statement of its may take. */
const LEASE_MS = 60_000;

// A sync that failed is tried again this soon, or after the interval, where that is shorter.
const RETRY_MS = 60_000;

const KEPT_SYNCS = 1_000;

/** What must be written for the sync selects from this: one row as long as it is still ours, and its lease is renewed. */
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
 * Starts a sync, in the place of an abandoned one.
 *
 * @param how.intervalMs only when one is due; null: now, because somebody asks for it
 * @returns null when none is due, or somebody else is at it
 */
export async function startSync(
  db: Pick<Database, 'run'>,
  how: { worker: string; intervalMs: number | null; requestedBy: string | null },
): Promise<SyncRun | null> {
  const [row] = await db.run(
    'syncs.start',
    // The insert waits for the update: Postgres runs parts of a statement that know nothing of each other in any order.
    (sql) => sql<SyncRun[]>`
      with abandoned as (
        update arcadia.inventory_syncs set finished_at = clock_timestamp(), outcome = 'abandoned'
        where finished_at is null and lease_until < clock_timestamp() returning number
      ),
      pruned as (
        delete from arcadia.inventory_syncs where number <= (select max(number) from arcadia.inventory_syncs) - ${KEPT_SYNCS}::int
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
 * Shows that the sync is alive.
 *
 * @returns the database's clock, in milliseconds: what is asked of the API from now on is newer
 * @throws {SyncLostError} when it is somebody else's
 */
export async function renewSync(db: Pick<Database, 'run'>, number: number): Promise<Date> {
  const [row] = await db.run(
    'syncs.renew',
    (sql) => sql<{ now: Date }[]>`with held as (${heldSync(sql, number)}) select date_trunc('milliseconds', clock_timestamp()) as now from held`,
  );
  if (row === undefined) throw lostSync(number);
  return row.now;
}

/** Writes down what came of a sync; does nothing for one that is somebody else's by now. */
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

/** The last syncs, newest first. */
export async function listSyncs(db: Pick<Database, 'run'>, limit: number): Promise<StoredSync[]> {
  return db.run(
    'syncs.list',
    (sql) => sql<StoredSync[]>`
      select number, started_at, finished_at, outcome, worker, requested_by, summary, error
      from arcadia.inventory_syncs order by number desc limit ${limit}`,
  );
}

export function lostSync(number: number): SyncLostError {
  return new SyncLostError(`sync ${number} showed no sign of life for too long: it was given up, and somebody else may be at it`);
}

function nobodyAtIt(sql: Sql): SqlFragment {
  return sql`not exists (select from arcadia.inventory_syncs where finished_at is null and lease_until >= clock_timestamp())`;
}

/** Of the last sync: nobody finished it, or it did not fail a moment ago, or it was complete an interval ago. */
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
