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

/** Counts sagas by name and status. */
export async function countByStatus(db: Pick<Database, 'run'>): Promise<readonly { name: string; status: SagaStatus; count: number }[]> {
  return db.run(
    'stats.sagas',
    (sql) => sql<{ name: string; status: SagaStatus; count: number }[]>`
      select name, status, count(*)::int as count from arcadia.sagas group by name, status order by name, status`,
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
