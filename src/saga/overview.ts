// Summaries of many sagas: the number per status that match a filter, and the last event of each of several sagas.
import type { Database, SqlFragment } from '../platform/db.ts';
import type { FailureCause } from './failure-causes.ts';
import { recentFailures } from './failure-causes.ts';
import type { SagaStatus } from './saga.ts';
import type { SagaFilter } from './filter.ts';
import { matches, needsWalk } from './filter.ts';
import { shortTextsIn } from './search.ts';
import { countByStatus } from './stats.ts';
import type { StoredEvent } from './events.ts';

/**
 * `now` is the database's clock, for computing ages. Statuses without sagas are omitted. `inexact`: counts that are
 * estimates, or that stopped at a limit.
 */
export type Overview = Readonly<{ now: Date; counts: Readonly<Partial<Record<SagaStatus, number>>>; inexact?: Readonly<Partial<Record<SagaStatus, Inexact>>> }>;

type Inexact = 'about' | 'at least';
type Counted = Readonly<{ rows: readonly Readonly<{ status: SagaStatus; count: number; isExact: true | Inexact }>[]; now: Date }>;

// So many sagas of each kind are looked at to count those of a filter that no index covers: the page must not take longer
// the more sagas there are.
const LOOKED_AT = 10_000;

/**
 * Counts the sagas that match a filter, by status. Counts are exact if an index finds the sagas of the filter, or if no
 * more than 10,000 sagas are unfinished, stuck, rolled back or completed.
 *
 * @param lookedAt sagas of each kind that are looked at, for a filter that no index covers
 */
export async function readOverview(db: Pick<Database, 'run'>, filter: SagaFilter, lookedAt = LOOKED_AT): Promise<Overview> {
  const { subjectFields: _, ...conditions } = filter;
  const isAll = Object.values(conditions).every((condition) => condition === undefined);
  const { rows, now } = isAll ? await countAll(db) : isWide(filter) ? await countNearest(db, filter, lookedAt) : await countEach(db, filter);
  const counts: Partial<Record<SagaStatus, number>> = {};
  const inexact: Partial<Record<SagaStatus, Inexact>> = {};
  for (const { status, count, isExact } of rows) {
    counts[status] = (counts[status] ?? 0) + count;
    if (isExact !== true) inexact[status] = isExact;
  }
  return { now, counts, inexact };
}

/** A filter that may find most of the sagas, or has to look at them. */
function isWide(filter: SagaFilter): boolean {
  const { ids, idPrefix, field, tag, cause, query } = filter;
  return needsWalk(filter) || [ids, idPrefix, field, tag, cause, query].every((condition) => condition === undefined);
}

async function countAll(db: Pick<Database, 'run'>): Promise<Counted> {
  const [rows, [clock]] = await Promise.all([countByStatus(db, { limit: LOOKED_AT }), db.run('overview.now', (sql) => sql<{ now: Date }[]>`select clock_timestamp() as now`)]);
  return { rows, now: clock?.now ?? new Date() };
}

async function countEach(db: Pick<Database, 'run'>, filter: SagaFilter): Promise<Counted> {
  const rows = await db.run(
    'overview.counts',
    (sql) => sql<{ status: SagaStatus | null; count: number; now: Date }[]>`
      select status, count, clock_timestamp() as now
      from (select 1) as always left join (
        select status, count(*)::int as count from arcadia.sagas where ${matches(sql, filter)} group by status
      ) as counted on true`,
  );
  return { rows: rows.flatMap(({ status, count }) => (status === null ? [] : [{ status, count, isExact: true as const }])), now: rows[0]?.now ?? new Date() };
}

/**
 * Looks at the unfinished, the stuck, the rolled-back and the youngest sagas: each by the index that holds them. Completed
 * ones are counted among the youngest.
 */
async function countNearest(db: Pick<Database, 'run'>, { createdFrom, createdBefore, ...filter }: SagaFilter, most: number): Promise<Counted> {
  type Kind = 'unfinished' | 'stuck' | 'compensated' | 'completed';
  const rows = await db.run('overview.nearest', (sql) => {
    const looked = (kind: Kind, of: SqlFragment, order = sql`order by created_at desc, id`) => sql`
      select ${kind}::text as kind, status, count(*)::int as looked_at, (count(*) filter (where ${matches(sql, filter)}))::int as count, clock_timestamp() as now
      from (select * from arcadia.sagas where ${of} and ${matches(sql, { createdFrom, createdBefore })} ${order} limit ${most}) as sagas
      -- A row for each kind, also where there are none.
      group by grouping sets ((status), ())`;
    return sql<{ kind: Kind; status: SagaStatus | null; lookedAt: number; count: number; now: Date }[]>`
      ${looked('unfinished', sql`wake_at is not null`, sql`order by wake_at`)}
      union all ${looked('stuck', sql`wake_at is null and finished_at is null`)}
      union all ${looked('compensated', sql`finished_at is not null and error is not null`)}
      union all ${looked('completed', sql`true`)}`;
  });
  const hasMore = new Set(rows.flatMap(({ kind, status, lookedAt }) => (status === null && lookedAt >= most ? [kind] : [])));
  const counted = rows.flatMap(({ kind, status, count }) => {
    if (status === null) return kind === 'unfinished' ? [] : [{ status: kind, count: 0, isExact: hasMore.has(kind) ? ('at least' as const) : (true as const) }];
    return kind === 'unfinished' || kind === status ? [{ status, count, isExact: hasMore.has(kind) ? ('at least' as const) : (true as const) }] : [];
  });
  return { rows: counted.filter(({ count, isExact }) => count > 0 || isExact !== true), now: rows[0]?.now ?? new Date() };
}

/** Groups failures that a filter finds by their cause, the largest first: {@link recentFailures} says which failures count. */
export async function listFailureCauses(db: Pick<Database, 'run'>, filter: SagaFilter, limit: number): Promise<readonly FailureCause[]> {
  return db.run(
    'overview.causes',
    (sql) => sql<FailureCause[]>`
      select failure.cause, failure.status, failure.said as text, count(*)::int as count
      from (${recentFailures(sql)}) as failure
      where failure.id in (select id from arcadia.sagas where ${matches(sql, filter)})
      group by failure.cause, failure.status, failure.said
      order by failure.status = 'stuck' desc, count(*) desc, failure.cause limit ${limit}`,
  );
}

/** Reads the last event of each of these sagas, by the saga's id. */
export async function readLastEvents(db: Pick<Database, 'run'>, sagaIds: readonly string[]): Promise<ReadonlyMap<string, StoredEvent>> {
  if (sagaIds.length === 0) return new Map();
  const rows = await db.run(
    'overview.last_events',
    (sql) => sql<(StoredEvent & { sagaId: string })[]>`
      select event.saga_id, event.seq, event.at, event.kind, event.step, event.attempt, ${shortTextsIn(sql, sql`event.detail`)} as detail, event.worker
      from arcadia.sagas join arcadia.saga_events event on event.saga_id = sagas.id and event.seq = sagas.revision
      where sagas.id in ${sql([...sagaIds])}`,
  );
  return new Map(rows.map(({ sagaId, ...event }) => [sagaId, event]));
}
