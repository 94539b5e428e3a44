// Reads outcomes as a log without gaps. Concurrent transactions commit in any order, so no number in their rows says what is
// new. Each subscription therefore stores a Postgres snapshot: rows that a later snapshot sees and the stored one did not are
// new. A transaction that stays open for hours delays only its own rows.
//
// Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { OutcomeRow, OutcomeSource } from '../saga/outcome-source.ts';
import type { Reader } from './lease.ts';
import { leasing } from './lease.ts';

/** One outcome, identified by its row. `facts`: what its body is made of, if that was read along; null: it is gone. */
export type Entry = OutcomeRow & Readonly<{ source: string; id: string; facts?: unknown }>;

/** The position of a subscription, as its row has it. */
type Place = Readonly<{ seen: string; reading: string | null; readXid: string | null; readLine: string | null; readPlace: string | null }>;

/** New outcomes for a subscription, and its position before and after them. */
export type Batch = Readonly<{ entries: readonly Entry[]; from: Place; to: Place }>;

type ReadOptions = Readonly<{
  /** Renews the lease in the same statement, for so many milliseconds. `onLost` is called if another worker holds it. */
  renewal?: Readonly<{ leaseMs: number; onLost: () => void }> | null;
  /** Reads along what bodies are made of, from the sources that can. */
  withFacts?: boolean;
}>;

/**
 * Reads new outcomes, at most `limit`.
 *
 * @returns null if there are none, another worker holds the lease, or the subscription is paused
 */
export async function readBatch(db: Pick<Database, 'run'>, reader: Reader, sources: readonly OutcomeSource[], limit: number, { renewal = null, withFacts = false }: ReadOptions = {}): Promise<Batch | null> {
  const [first, ...news] = await db.run(
    'outcomes.look',
    // The first row is the subscription's. Its snapshots stand there once, and not in each row.
    (sql) => sql<(OutcomeRow & { subscription: (Place & { isPaused: boolean; target: string }) | null; source: string; xid: string; facts: unknown })[]>`
      with held as (${renewal === null ? held(sql, reader) : sql`${leasing(sql, reader, renewal.leaseMs)} returning *`}),
      subscription as materialized (select *, coalesce(reading, pg_current_snapshot()) as ahead from held)
      select * from (
        select json_build_object(
                 'isPaused', paused_at is not null, 'seen', seen::text, 'reading', reading::text, 'readXid', read_xid::text,
                 'readLine', read_line, 'readPlace', read_place::text, 'target', ahead::text
               ) as subscription, null::text as source, null::xid8 as xid, null::text as type, null::timestamptz as at, null collate "C" as line, null::bigint as place, null::json as facts
        from subscription
        union all
        select null, told.source, told.xid, told.type, told.at, told.line, told.place, ${withFacts ? factsOf(sql, sources) : sql`null::json`}
        from subscription
        cross join lateral (
          select * from (${newRows(sql, sources, limit)}) as log
          order by log.xid, log.line, log.place limit ${limit}
        ) as told
        where paused_at is null
      ) as found
      order by xid nulls first, line, place`,
  );
  if (first === undefined) renewal?.onLost();
  if (first === undefined || first.subscription === null || first.subscription.isPaused) return null;
  const { seen, reading, readXid, readLine, readPlace, target } = first.subscription;
  const from: Place = { seen, reading, readXid, readLine, readPlace };
  const byName = new Map(sources.map((source) => [source.name, source]));
  const entries = news.map(({ source: name, type, at, line, place, facts }): Entry => {
    const source = byName.get(name);
    return { source: name, id: source?.idOf({ line, place }) ?? '', type, at, line, place, facts: withFacts && source?.facts !== undefined ? facts : undefined };
  });
  if (entries.length === 0 && reading === null) return null;
  const last = news.at(-1);
  const to: Place =
    news.length < limit || last === undefined
      ? { seen: target, reading: null, readXid: null, readLine: null, readPlace: null }
      : { seen, reading: target, readXid: last.xid, readLine: last.line, readPlace: last.place };
  return { entries, from, to };
}

const held = (sql: Sql, { subscription, holder }: Reader) => sql`select * from arcadia.outcome_subscriptions where name = ${subscription} and leased_by = ${holder} and lease_until > clock_timestamp()`;

/** SQL for the number of outcomes that the subscription `listed` has not read yet, at most `limit`. */
export function unreadBy(sql: Sql, sources: readonly OutcomeSource[], limit: number): SqlFragment {
  if (sources.length === 0) return sql`0`;
  return sql`(
    select count(*)::int from (select listed.*, pg_current_snapshot() as ahead) as subscription
    cross join lateral (select from (${newRows(sql, sources, limit)}) as log limit ${limit}) as unread
  )`;
}

/** SQL for what the body of the row `told` is made of. */
function factsOf(sql: Sql, sources: readonly OutcomeSource[]): SqlFragment {
  const cases = sources.flatMap(({ name, facts }) => (facts === undefined ? [] : [sql`when ${name} then ${facts.sql(sql)}`]));
  return cases.length === 0 ? sql`null::json` : sql`case told.source ${cases.reduce((all, one) => sql`${all} ${one}`)} end`;
}

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
  // Compared byte by byte, which is quicker than by a language's rules. The order of lines is the same: ids are of one shape.
  const parts = sources.flatMap((source) => ranges.map((range) => sql`
    (select ${source.name}::text as source, row.xid, row.type, row.at, row.line collate "C" as line, row.place from (${source.rows(sql)}) as row
     where ${range} and pg_visible_in_snapshot(row.xid, subscription.ahead)
       and (subscription.read_xid is null or (row.xid, row.line collate "C", row.place) > (subscription.read_xid, subscription.read_line, subscription.read_place))
     order by row.xid, row.line collate "C", row.place limit ${limit})`));
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
