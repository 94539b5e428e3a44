// Deliveries: outcomes that a subscription has accepted and its receiver does not have yet. Postgres counts the attempts, so
// that they survive the loss of the queue.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import type { OutcomeType } from '../saga/outcome-source.ts';
import type { Entry } from './log.ts';

/** A delivery, as its job reads it. */
export type Delivery = Readonly<{
  source: string;
  type: OutcomeType;
  attempts: number;
  /** Milliseconds until the next attempt is due; 0: now. */
  dueInMs: number;
  isPaused: boolean;
  /** Whether no earlier outcome of the same line is waiting. */
  isFirst: boolean;
}>;

/** SQL that accepts entries, in the same statement that advances the subscription. */
export function taking(subscription: string, entries: readonly Entry[]): (sql: Sql, moved: SqlFragment) => SqlFragment {
  return (sql, moved) => sql`
    insert into arcadia.outcome_deliveries (subscription, id, source, type, line, place)
    select ${subscription}, id, source, type, line, place::bigint
    from jsonb_to_recordset(${jsonText(entries)}::text::jsonb) as entry (id text, source text, type text, line text, place text)
    where exists (${moved}) on conflict do nothing returning 1`;
}

/** Counts the deliveries of a subscription. */
export async function countDeliveries(db: Pick<Database, 'run'>, subscription: string): Promise<number> {
  const [row] = await db.run('outcomes.count', (sql) => sql<{ count: number }[]>`select count(*)::int as count from arcadia.outcome_deliveries where subscription = ${subscription}`);
  return row?.count ?? 0;
}

/** Lists deliveries that have been due for `lateMs`, longest first: their jobs may be lost. */
export async function listLate(db: Pick<Database, 'run'>, subscription: string, { lateMs, limit }: { lateMs: number; limit: number }): Promise<string[]> {
  const rows = await db.run(
    'outcomes.late',
    (sql) => sql<{ id: string }[]>`
      select id from arcadia.outcome_deliveries delivery join arcadia.outcome_subscriptions on name = subscription
      where subscription = ${subscription} and paused_at is null and due_at < clock_timestamp() - ${lateMs}::float8 * interval '1 millisecond'
        and coalesce(not_before < clock_timestamp(), true)
        and ${isFirst(sql)}
      order by due_at limit ${limit}`,
  );
  return rows.map(({ id }) => id);
}

/** Reads a delivery for its job; null: already delivered. */
export async function loadDelivery(db: Pick<Database, 'run'>, subscription: string, id: string): Promise<Delivery | null> {
  const [row] = await db.run(
    'outcomes.load',
    (sql) => sql<Delivery[]>`
      select source, type, attempts, paused_at is not null as is_paused, ${isFirst(sql)} as is_first,
             greatest(0, extract(epoch from greatest(due_at, not_before) - clock_timestamp()) * 1000)::float8 as due_in_ms
      from arcadia.outcome_deliveries delivery join arcadia.outcome_subscriptions on name = subscription
      where subscription = ${subscription} and id = ${id}`,
  );
  return row ?? null;
}

function isFirst(sql: Sql): SqlFragment {
  return sql`not exists (
    select from arcadia.outcome_deliveries earlier
    where earlier.subscription = delivery.subscription and earlier.line = delivery.line and earlier.place < delivery.place
  )`;
}

/**
 * Records that an outcome was delivered.
 *
 * @param outageAfter number of consecutive failures that count as an outage; when it ends, everything it held up is due now
 * @returns ids of the deliveries that are due now: the next one of the line, and those that the outage held up
 */
export async function markDelivered(db: Pick<Database, 'run'>, subscription: string, id: string, outageAfter: number): Promise<string[]> {
  const rows = await db.run(
    'outcomes.delivered',
    (sql) => sql<{ id: string }[]>`
      with delivered as (delete from arcadia.outcome_deliveries where subscription = ${subscription} and id = ${id} returning line, place),
      before as (select failures from arcadia.outcome_subscriptions where name = ${subscription}),
      recovered as (
        update arcadia.outcome_subscriptions set failures = 0, failing_since = null, last_error = null, not_before = null
        where name = ${subscription} and failures > 0 returning 1
      ),
      held_up as (
        update arcadia.outcome_deliveries set due_at = clock_timestamp()
        where subscription = ${subscription} and id <> ${id} and attempts > 0 and due_at > clock_timestamp() and (select failures from before) >= ${outageAfter}
        returning id
      )
      (select next.id from arcadia.outcome_deliveries next join delivered on next.line = delivered.line and next.place > delivered.place
       where next.subscription = ${subscription} order by next.place limit 1)
      union select id from held_up`,
  );
  return rows.map((row) => row.id);
}

/** A failed delivery. `pauses`: the receiver unsubscribed (410). `retryAfterMs`: the delay it asked for. */
export type FailedDelivery = Readonly<{ error: string; delayMs: number; retryAfterMs: number | null; pauses: boolean }>;

/** After how long without a delivery a subscription is paused. */
export type Patience = Readonly<{ maxAttempts: number; pauseAfterMs: number }>;

/**
 * Records a failed delivery, and pauses the subscription if deliveries have failed for too long.
 *
 * @returns why the subscription is now paused; null: it is not
 */
export async function markFailed(db: Pick<Database, 'run'>, subscription: string, id: string, failed: FailedDelivery, patience: Patience): Promise<string | null> {
  const { error, delayMs, retryAfterMs, pauses } = failed;
  const [row] = await db.run(
    'outcomes.failed',
    (sql) => sql<{ pausedReason: string }[]>`
      with failed as (
        update arcadia.outcome_deliveries
        set attempts = attempts + 1, due_at = clock_timestamp() + ${delayMs}::float8 * interval '1 millisecond', last_error = ${error}
        where subscription = ${subscription} and id = ${id} returning attempts
      ),
      judged as (
        select case
          when ${pauses} then ${error}
          when failing_since < clock_timestamp() - ${patience.pauseAfterMs}::float8 * interval '1 millisecond' then format('nothing was delivered since %s: %s', to_char(failing_since at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ${error}::text)
          when failed.attempts >= ${patience.maxAttempts} then format('%s failed %s times: %s', ${id}::text, failed.attempts, ${error}::text)
        end as reason
        from failed, arcadia.outcome_subscriptions where name = ${subscription}
      )
      update arcadia.outcome_subscriptions
      set failures = failures + 1,
          failing_since = coalesce(failing_since, clock_timestamp()),
          last_error = ${error},
          not_before = case when ${retryAfterMs}::float8 is null then not_before else greatest(not_before, clock_timestamp() + ${retryAfterMs}::float8 * interval '1 millisecond') end,
          paused_at = coalesce(paused_at, case when reason is not null then clock_timestamp() end),
          paused_reason = coalesce(paused_reason, reason)
      from judged where name = ${subscription} returning case when reason is not null then paused_reason end as paused_reason`,
  );
  return row?.pausedReason ?? null;
}

/** Deletes a delivery whose outcome no longer exists. */
export async function dropDelivery(db: Pick<Database, 'run'>, subscription: string, id: string): Promise<void> {
  await db.run('outcomes.drop', (sql) => sql`delete from arcadia.outcome_deliveries where subscription = ${subscription} and id = ${id}`);
}
