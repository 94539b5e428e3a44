// Many sagas at a glance: how many of each status a filter finds, and what happened last to each of some.
import type { Database } from '../platform/db.ts';
import type { SagaStatus } from './saga.ts';
import type { SagaFilter } from './search.ts';
import { matches, shortTextsIn } from './search.ts';
import type { StoredEvent } from './store.ts';

/** `now` is the database's clock, to tell ages by. A status that nothing is in is left out. */
export type Overview = Readonly<{ now: Date; counts: Readonly<Partial<Record<SagaStatus, number>>> }>;

/** Counts what a filter finds, by status. */
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
