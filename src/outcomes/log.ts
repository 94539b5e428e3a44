// Reads outcomes as a log without gaps. Concurrent transactions commit in any order, so no number in their rows says what is
// new. Each subscription therefore stores a Postgres snapshot: rows that a later snapshot sees and the stored one did not are
// new. A transaction that stays open for hours delays only its own rows.
//
// Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { OutcomeSource, OutcomeType } from '../saga/outcome-source.ts';
import type { Reader } from './lease.ts';
import { leasing } from './lease.ts';

/** One outcome, identified by its row. */
export type Entry = Readonly<{ source: string; id: string; type: OutcomeType; line: string; place: string }>;

/** The position of a subscription, as its row has it. */
type Place = Readonly<{ seen: string; reading: string | null; readXid: string | null; readLine: string | null; readPlace: string | null }>;

/** New outcomes for a subscription, and its position before and after them. */
export type Batch = Readonly<{ entries: readonly Entry[]; from: Place; to: Place }>;

type Renewal = Readonly<{ leaseMs: number; onLost: () => void }>;

/**
 * Reads new outcomes, at most `limit`.
 *
 * @param renewal renews the lease in the same statement, for so many milliseconds; `onLost` is called if another worker holds it
 * @returns null if there are none, another worker holds the lease, or the subscription is paused
 */
export async function readBatch(db: Pick<Database, 'run'>, reader: Reader, sources: readonly OutcomeSource[], limit: number, renewal: Renewal | null = null): Promise<Batch | null> {
  const rows = await db.run(
    'outcomes.look',
    (sql) => sql<(Place & { isPaused: boolean; target: string; source: string | null; id: string; type: OutcomeType; xid: string; line: string; place: string })[]>`
      with subscription as (${renewal === null ? held(sql, reader) : sql`${leasing(sql, reader, renewal.leaseMs)} returning *`})
      select paused_at is not null as is_paused, seen::text, reading::text, read_xid::text, read_line, read_place, coalesce(reading, pg_current_snapshot())::text as target,
             news.source, news.id, news.type, news.xid::text, news.line, news.place
      from subscription
      left join lateral (
        select * from (${newRows(sql, sources, limit)}) as log
        order by log.xid, log.line, log.place limit ${limit}
      ) as news on paused_at is null
      order by news.xid, news.line, news.place`,
  );
  const [first] = rows;
  if (first === undefined) renewal?.onLost();
  if (first === undefined || first.isPaused) return null;
  const { seen, reading, readXid, readLine, readPlace, target } = first;
  const from: Place = { seen, reading, readXid, readLine, readPlace };
  const entries = rows.flatMap(({ source, id, type, line, place }) => (source === null ? [] : [{ source, id, type, line, place }]));
  if (entries.length === 0 && reading === null) return null;
  const last = rows.at(-1);
  const to: Place =
    entries.length < limit || last === undefined
      ? { seen: target, reading: null, readXid: null, readLine: null, readPlace: null }
      : { seen, reading: target, readXid: last.xid, readLine: last.line, readPlace: last.place };
  return { entries, from, to };
}

const held = (sql: Sql, { subscription, holder }: Reader) => sql`select * from arcadia.outcome_subscriptions where name = ${subscription} and leased_by = ${holder} and lease_until > clock_timestamp()`;

/**
 * SQL for the rows that are new to the subscription. Each part reads an index from where the subscription is, in order and
 * no further than the limit, so that a pass costs the same whatever waits behind it.
 */
function newRows(sql: Sql, sources: readonly OutcomeSource[], limit: number): SqlFragment {
  const ranges = [
    // Began after the stored snapshot.
    sql`row.xid >= greatest(pg_snapshot_xmax(subscription.seen), subscription.read_xid)`,
    // Were running then.
    sql`row.xid = any(array(select pg_snapshot_xip(subscription.seen))) and row.xid >= coalesce(subscription.read_xid, pg_snapshot_xmin(subscription.seen))`,
  ];
  const parts = sources.flatMap((source) => ranges.map((range) => sql`
    (select ${source.name}::text as source, row.* from (${source.rows(sql)}) as row
     where ${range} and pg_visible_in_snapshot(row.xid, coalesce(subscription.reading, pg_current_snapshot()))
       and (subscription.read_xid is null or (row.xid, row.line, row.place) > (subscription.read_xid, subscription.read_line, subscription.read_place))
     order by row.xid, row.line, row.place limit ${limit})`));
  return parts.reduce((all, part) => sql`${all} union all ${part}`);
}

/**
 * Advances a subscription, if its position is still the one at which the batch was read.
 *
 * @param taking SQL that accepts the batch in the same statement; it receives SQL that yields one row if the subscription advances
 * @returns false if it does not advance, because another worker now reads for it
 */
export async function advance(
  db: Pick<Database, 'run'>,
  { subscription, holder }: Reader,
  { from, to }: Batch,
  taking: (sql: Sql, moved: SqlFragment) => SqlFragment = (sql, moved) => moved,
): Promise<boolean> {
  const rows = await db.run(
    'outcomes.advance',
    (sql) => sql<{ moved: number }[]>`
      with moved as (
        update arcadia.outcome_subscriptions
        set seen = ${to.seen}::text::pg_snapshot, reading = ${to.reading}::text::pg_snapshot,
            read_xid = ${to.readXid}::text::xid8, read_line = ${to.readLine}::text, read_place = ${to.readPlace}::text::bigint
        where name = ${subscription} and leased_by = ${holder} and lease_until > clock_timestamp()
          and seen::text = ${from.seen} and (reading::text, read_xid::text, read_line, read_place::text) is not distinct from (${from.reading}::text, ${from.readXid}::text, ${from.readLine}::text, ${from.readPlace}::text)
        returning name
      ),
      taken as (${taking(sql, sql`select from moved`)})
      select (select count(*)::int from moved) as moved, (select count(*)::int from taken) as taken`,
  );
  return rows[0]?.moved === 1;
}
