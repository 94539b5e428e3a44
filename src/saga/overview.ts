// Summaries of many sagas: the number per status that match a filter, and the last event of each of several sagas.
import type { Database } from '../platform/db.ts';
import type { FailureCause } from './failure-causes.ts';
import { recentFailures } from './failure-causes.ts';
import type { SagaStatus } from './saga.ts';
import type { SagaFilter } from './search.ts';
import { matches, shortTextsIn } from './search.ts';
import type { StoredEvent } from './events.ts';

/** `now` is the database's clock, for computing ages. Statuses without sagas are omitted. */
export type Overview = Readonly<{ now: Date; counts: Readonly<Partial<Record<SagaStatus, number>>> }>;

/** Counts the sagas that match a filter, by status. */
export async function readOverview(db: Pick<Database, 'run'>, filter: SagaFilter): Promise<Overview> {
  const rows = await db.run(
    'overview.counts',
    (sql) => sql<{ status: SagaStatus | null; count: number; now: Date }[]>`
      select status, count, clock_timestamp() as now
      from (select 1) as always left join (
        select status, count(*)::int as count from arcadia.sagas where ${matches(sql, filter)} group by status
      ) as counted on true`,
  );
  const counts = Object.fromEntries(rows.flatMap(({ status, count }) => (status === null ? [] : [[status, count] as const])));
  return { now: rows[0]?.now ?? new Date(), counts };
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
