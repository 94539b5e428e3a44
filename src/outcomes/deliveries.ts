// Deliveries: outcomes that a subscription has accepted and its receiver does not have yet. Postgres counts the attempts, so
// that they survive the loss of the queue.
import { batch } from '../platform/batch.ts';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import type { OutcomeType } from '../saga/outcome-source.ts';
import type { Entry } from './log.ts';

/** A delivery, as its job reads it. */
export type Delivery = Readonly<{
  id: string;
  source: string;
  type: OutcomeType;
  /** Failed attempts, without those made while nothing at all was delivered. */
  attempts: number;
  /** Milliseconds since when nothing at all has been delivered, once that counts as an outage; null: no outage. */
  outageMs: number | null;
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

/** What the jobs of a subscription read and record. One statement each serves concurrent jobs. */
export type DeliveryStore = Readonly<{
  /** Reads a delivery for its job; null: already delivered. */
  load(id: string): Promise<Delivery | null>;
  /**
   * Records that an outcome was delivered.
   *
   * @returns ids of the deliveries that are due now: the next one of the line, and those that an outage held up
   */
  delivered(id: string): Promise<readonly string[]>;
  /**
   * Records a failed delivery, and pauses the subscription if deliveries have failed for too long.
   *
   * @returns why the subscription is now paused; null: it is not
   */
  failed(failed: FailedDelivery): Promise<string | null>;
  /** Deletes a delivery whose outcome no longer exists. */
  drop(id: string): Promise<void>;
}>;

/** A failed delivery. `pauses`: the receiver unsubscribed (410). `retryAfterMs`: the delay it asked for. */
export type FailedDelivery = Readonly<{ id: string; error: string; delayMs: number; retryAfterMs: number | null; pauses: boolean }>;

/** After how long without a delivery a subscription is paused. */
export type Patience = Readonly<{ maxAttempts: number; pauseAfterMs: number }>;

// This many consecutive failures count as an outage. What fails in it counts as no attempt. When it ends, what it held up is due at once.
const OUTAGE_AFTER = 10;

const batching = { max: 100, patienceMs: 50 };

/** Binds the deliveries of a subscription to a database. */
export function createDeliveryStore(db: Pick<Database, 'run'>, subscription: string, patience: Patience): DeliveryStore {
  return {
    load: batch((ids: readonly string[]) => loadDeliveries(db, subscription, ids), batching),
    delivered: batch((ids: readonly string[]) => markDelivered(db, subscription, ids), batching),
    failed: batch((failed: readonly FailedDelivery[]) => markFailed(db, subscription, failed, patience), batching),
    drop: async (id) => {
      await db.run('outcomes.drop', (sql) => sql`delete from arcadia.outcome_deliveries where subscription = ${subscription} and id = ${id}`);
    },
  };
}

async function loadDeliveries(db: Pick<Database, 'run'>, subscription: string, ids: readonly string[]): Promise<(Delivery | null)[]> {
  const rows = await db.run(
    'outcomes.load',
    (sql) => sql<Delivery[]>`
      select id, source, type, attempts, paused_at is not null as is_paused, ${isFirst(sql)} as is_first,
             case when failures >= ${OUTAGE_AFTER} then extract(epoch from clock_timestamp() - failing_since) * 1000 end::float8 as outage_ms,
             greatest(0, extract(epoch from greatest(due_at, not_before) - clock_timestamp()) * 1000)::float8 as due_in_ms
      from arcadia.outcome_deliveries delivery join arcadia.outcome_subscriptions on name = subscription
      where subscription = ${subscription} and id = any(${[...ids]}::text[])`,
  );
  const byId = new Map(rows.map((row) => [row.id, row]));
  return ids.map((id) => byId.get(id) ?? null);
}

function isFirst(sql: Sql): SqlFragment {
  return sql`not exists (
    select from arcadia.outcome_deliveries earlier
    where earlier.subscription = delivery.subscription and earlier.line = delivery.line and earlier.place < delivery.place
  )`;
}

// The row of the subscription is locked before any delivery, here and in a resume: in another order, two statements could wait for
// each other. A success among successes locks nothing of it.

async function markDelivered(db: Pick<Database, 'run'>, subscription: string, ids: readonly string[]): Promise<string[][]> {
  const given = [...ids];
  const rows = await db.run(
    'outcomes.delivered',
    (sql) => sql<{ after: string | null; id: string }[]>`
      with failing as materialized (select failures from arcadia.outcome_subscriptions where name = ${subscription} and failures > 0 for update),
      delivered as (
        delete from arcadia.outcome_deliveries
        where subscription = ${subscription} and id = any(${given}::text[]) and (select count(*) from failing) >= 0 returning id, line, place
      ),
      recovered as (
        -- not_before stays: the receiver that took this one asked for a pause all the same.
        update arcadia.outcome_subscriptions set failures = 0, failing_since = null, last_error = null
        where name = ${subscription} and exists (select from failing) returning 1
      ),
      held_up as (
        update arcadia.outcome_deliveries set due_at = clock_timestamp()
        where subscription = ${subscription} and id <> all(${given}::text[]) and last_error is not null and due_at > clock_timestamp()
          and (select failures from failing) >= ${OUTAGE_AFTER}
        returning id
      )
      select delivered.id as after, next.id from delivered cross join lateral (
        select id from arcadia.outcome_deliveries later
        where later.subscription = ${subscription} and later.line = delivered.line and later.place > delivered.place order by later.place limit 1
      ) as next
      union all select null, id from held_up`,
  );
  // What was held up goes to one of the callers.
  return ids.map((id, index) => rows.flatMap((row) => (row.after === id || (row.after === null && index === 0) ? [row.id] : [])));
}

async function markFailed(db: Pick<Database, 'run'>, subscription: string, failed: readonly FailedDelivery[], patience: Patience): Promise<(string | null)[]> {
  const given = jsonText(failed.map(({ id, error, delayMs, retryAfterMs, pauses }) => ({ id, error, delay_ms: delayMs, retry_after_ms: retryAfterMs, pauses })));
  const rows = await db.run(
    'outcomes.failed',
    (sql) => sql<{ id: string; pausedReason: string }[]>`
      with subscription as materialized (select failures, failing_since from arcadia.outcome_subscriptions where name = ${subscription} for update),
      given as materialized (select given.* from subscription, jsonb_to_recordset(${given}::text::jsonb) as given (id text, error text, delay_ms float8, retry_after_ms float8, pauses bool)),
      failed as (
        update arcadia.outcome_deliveries delivery
        set attempts = attempts + case when (select failures from subscription) < ${OUTAGE_AFTER} then 1 else 0 end,
            due_at = clock_timestamp() + given.delay_ms * interval '1 millisecond', last_error = given.error
        from given where delivery.subscription = ${subscription} and delivery.id = given.id
        returning delivery.id, delivery.attempts, given.error, given.retry_after_ms, given.pauses
      ),
      judged as materialized (
        select failed.id, failed.error, failed.retry_after_ms, case
          when pauses then error
          -- While no worker ran, nothing was tried: one failure before that and one after it are no day of failures.
          when subscription.failures >= ${OUTAGE_AFTER} and failing_since < clock_timestamp() - ${patience.pauseAfterMs}::float8 * interval '1 millisecond' then format('nothing was delivered since %s: %s', to_char(failing_since at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), error)
          when failed.attempts >= ${patience.maxAttempts} then format('%s failed %s times: %s', failed.id, failed.attempts, error)
        end as reason
        from failed, subscription
      ),
      told as (
        update arcadia.outcome_subscriptions
        set failures = failures + (select count(*) from judged),
            failing_since = coalesce(failing_since, clock_timestamp()),
            last_error = (select error from judged limit 1),
            not_before = greatest(not_before, clock_timestamp() + (select max(retry_after_ms) from judged) * interval '1 millisecond'),
            paused_at = coalesce(paused_at, case when exists (select from judged where reason is not null) then clock_timestamp() end),
            paused_reason = coalesce(paused_reason, (select reason from judged where reason is not null limit 1))
        where name = ${subscription} and exists (select from judged) returning paused_reason
      )
      select judged.id, told.paused_reason from judged, told where judged.reason is not null`,
  );
  const reasons = new Map(rows.map(({ id, pausedReason }) => [id, pausedReason]));
  return failed.map(({ id }) => reasons.get(id) ?? null);
}
