// Statistics of the fleet from Postgres, for metrics and for checking that a reconciler still runs.
import type { Database } from '../platform/db.ts';
import type { SagaStatus } from './saga.ts';

/** How often steps recently had an outcome, and how long they took: quantiles by rank, in seconds. */
export type StepStats = Readonly<{
  step: string;
  outcome: 'completed' | 'retried' | 'failed' | 'compensated' | 'compensation_retried' | 'stuck';
  count: number;
  p50Seconds: number;
  p90Seconds: number;
  p99Seconds: number;
}>;

/** How many seconds {@link readStepStats} covers. */
export const STEP_WINDOW_SECONDS = 900;

/**
 * A number of sagas. `about`: estimated from Postgres's statistics. `at least`: there were more than were counted.
 */
export type SagaCount = Readonly<{ name: string; status: SagaStatus; count: number; isExact: true | 'about' | 'at least' }>;

// Counting this many takes a few hundredths of a second. A table with more sagas is not counted as a whole.
const COUNTED = 100_000;

// What a saga takes at the least on disk, in bytes: to tell a large table that Postgres has never analyzed.
const SAGA_BYTES = 500;

/**
 * Counts sagas by name and status. Among more than 100,000, those that are finished are estimated from the statistics that
 * autovacuum keeps, because counting them would read the whole table. Finished ones are missing while there are none.
 *
 * @param options.limit maximum number of unfinished sagas, and of stuck ones, that are counted among so many; default: all
 * @param options.counted number of sagas up to which all are counted
 */
export async function countByStatus(db: Pick<Database, 'run'>, { limit = null, counted = COUNTED }: { limit?: number | null; counted?: number } = {}): Promise<readonly SagaCount[]> {
  const [table] = await db.run(
    'stats.table',
    (sql) => sql<{ sagas: number }[]>`
      select case when reltuples < 0 or relpages = 0 then pg_relation_size(oid) / ${SAGA_BYTES}::float8
                  else reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::int) end as sagas
      from pg_class where oid = 'arcadia.sagas'::regclass`,
  );
  const sagas = table?.sagas ?? 0;
  if (sagas <= counted) {
    return db.run(
      'stats.sagas',
      (sql) => sql<SagaCount[]>`
        select name, status, count(*)::int as count, true as is_exact from arcadia.sagas group by name, status order by name, status`,
    );
  }
  return db.run(
    'stats.many_sagas',
    (sql) => sql<SagaCount[]>`
      with open as (
        (select name, status, count(*)::int as count from (select name, status from arcadia.sagas where wake_at is not null limit ${limit}::bigint) as unfinished group by name, status)
        union all
        (select name, status, count(*)::int from (select name, status from arcadia.sagas where wake_at is null and finished_at is null limit ${limit}::bigint) as stuck group by name, status)
      )
      select name, status, count, case when sum(count) over (partition by status = 'stuck') >= ${limit}::bigint then to_jsonb('at least'::text) else 'true' end as is_exact from open
      union all
      select most_common_vals[place][1], most_common_vals[place][2], (most_common_freqs[place] * ${sagas}::float8)::int, to_jsonb('about'::text)
      from pg_stats_ext, generate_subscripts(most_common_freqs, 1) as place
      where statistics_schemaname = 'arcadia' and statistics_name = 'sagas_by_name_and_status' and most_common_vals[place][2] in ('completed', 'compensated')
      order by name, status`,
  );
}

/** Unfinished sagas: their number, the age of the oldest and the delay of the most overdue. Seconds; 0 if there are none. */
export type Backlog = Readonly<{ unfinished: number; oldestAgeSeconds: number; overdueSeconds: number }>;

/**
 * Reads the backlog. A running reconciler takes every overdue saga soon and postpones its next check. If a saga stays
 * overdue, no reconciler is running.
 */
export async function readBacklog(db: Pick<Database, 'run'>): Promise<Backlog> {
  const [row] = await db.run(
    'stats.backlog',
    (sql) => sql<Backlog[]>`
      select count(*)::int as unfinished,
             greatest(0, coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0))::float8 as oldest_age_seconds,
             greatest(0, coalesce(extract(epoch from clock_timestamp() - min(wake_at)), 0))::float8 as overdue_seconds
      from arcadia.sagas where wake_at is not null`,
  );
  return row ?? { unfinished: 0, oldestAgeSeconds: 0, overdueSeconds: 0 };
}

/** Reads the recent outcomes of steps. An attempt starts when the one before it ended, so it includes waits. */
export async function readStepStats(db: Pick<Database, 'run'>): Promise<readonly StepStats[]> {
  return db.run(
    'stats.steps',
    (sql) => sql<StepStats[]>`
      with ended as (
        select ending.step,
               case ending.kind
                 when 'step_completed' then 'completed' when 'step_retried' then 'retried' when 'step_failed' then 'failed'
                 when 'compensation_completed' then 'compensated' when 'compensation_retried' then 'compensation_retried' else 'stuck'
               end as outcome,
               extract(epoch from ending.at - (
                 select max(before.at) from arcadia.saga_events before
                 where before.saga_id = ending.saga_id and before.seq < ending.seq
                   and before.kind not in ('step_recorded', 'step_postponed', 'compensation_recorded', 'compensation_postponed', 'saga_started')
               ))::float8 as seconds
        from arcadia.saga_events ending
        where ending.at > clock_timestamp() - ${STEP_WINDOW_SECONDS}::int * interval '1 second' and ending.step is not null
          and ending.kind in ('step_completed', 'step_retried', 'step_failed', 'compensation_completed', 'compensation_retried', 'compensation_stuck', 'step_stuck')
      )
      select step, outcome, count(*)::int as count,
             coalesce(percentile_cont(0.5) within group (order by seconds), 0) as p50_seconds,
             coalesce(percentile_cont(0.9) within group (order by seconds), 0) as p90_seconds,
             coalesce(percentile_cont(0.99) within group (order by seconds), 0) as p99_seconds
      from ended group by step, outcome order by step, outcome`,
  );
}
