// Subscriptions: who receives outcomes, how far each has come, and whether it is paused.
import type { Database } from '../platform/db.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';
import { isAhead } from './lease.ts';
import { unreadBy } from './log.ts';

/** A subscription, as people see it. */
export type Subscription = Readonly<{
  name: string;
  /** Where its outcomes go. */
  target: string;
  /** Number of outcomes that are not delivered yet: those that it has accepted, and those that it has not read yet. */
  waiting: number;
  /** False: at least that many. */
  waitingIsExact: boolean;
  failingSince: Date | null;
  lastError: string | null;
  pausedAt: Date | null;
  pausedReason: string | null;
}>;

/** Creates a subscription unless it exists. A new one receives what ends from now on. */
export async function ensureSubscription(db: Pick<Database, 'run'>, { name, target }: Pick<Subscription, 'name' | 'target'>): Promise<void> {
  await db.run(
    'outcomes.ensure',
    (sql) => sql`
      insert into arcadia.outcome_subscriptions (name, target) values (${name}, ${target})
      on conflict (name) do update set target = excluded.target, configured_at = clock_timestamp()`,
  );
}

// While a receiver is away, everything that ends waits unread. More would take long to count, and says no more.
const MOST_UNREAD = 1_000;

/**
 * Lists the subscriptions.
 *
 * @param sources where unread outcomes are counted; none: only accepted ones count as waiting
 */
export async function listSubscriptions(db: Pick<Database, 'run'>, sources: readonly OutcomeSource[] = []): Promise<Subscription[]> {
  const rows = await db.run(
    'outcomes.list',
    (sql) => sql<(Omit<Subscription, 'waiting' | 'waitingIsExact'> & { accepted: number; unread: number })[]>`
      select name, target, failing_since, last_error, paused_at, paused_reason,
             (select count(*)::int from arcadia.outcome_deliveries delivery where delivery.subscription = name) as accepted,
             ${unreadBy(sql, sources, MOST_UNREAD)} as unread
      from arcadia.outcome_subscriptions listed order by name`,
  );
  return rows.map(({ accepted, unread, ...row }) => ({ ...row, waiting: accepted + unread, waitingIsExact: unread < MOST_UNREAD }));
}

/**
 * Records that a subscription accepts nothing, and why, or (null) that it does again. For targets without deliveries, whose
 * failures would record it.
 */
export async function recordTrouble(db: Pick<Database, 'run'>, name: string, why: string | null): Promise<void> {
  await db.run(
    'outcomes.trouble',
    (sql) => sql`
      update arcadia.outcome_subscriptions
      set failing_since = case when ${why}::text is not null then coalesce(failing_since, clock_timestamp()) end, last_error = ${why}::text
      where name = ${name} and last_error is distinct from ${why}::text`,
  );
}

/**
 * Resumes a paused subscription: everything that waits is due now, with its full number of attempts. Audited. One that
 * is not paused still fails until a delivery succeeds: only the wait for its next try ends.
 *
 * @param skip id of an outcome to drop
 * @returns null if no subscription has this name; else whether it was paused, and whether an outcome was dropped
 */
export async function resumeSubscription(db: Pick<Database, 'run'>, name: string, by: string, skip: string | null = null): Promise<{ wasPaused: boolean; skipped: boolean } | null> {
  const [row] = await db.run(
    'outcomes.resume',
    (sql) => sql<{ wasPaused: boolean; skipped: boolean }[]>`
      with before as (select paused_at from arcadia.outcome_subscriptions where name = ${name} for update),
      resumed as (
        update arcadia.outcome_subscriptions
        set seen = case when ${isAhead(sql)} then pg_current_snapshot() else seen end,
            reading = case when not ${isAhead(sql)} then reading end,
            read_xid = case when not ${isAhead(sql)} then read_xid end,
            failures = case when paused_at is null then failures else 0 end,
            failing_since = case when paused_at is null then failing_since end,
            last_error = case when paused_at is null then last_error end,
            paused_at = null, paused_reason = null, not_before = null
        where name = ${name} returning name
      ),
      skipped as (delete from arcadia.outcome_deliveries where subscription in (select name from resumed) and id = ${skip}::text returning id),
      due as (
        update arcadia.outcome_deliveries set attempts = 0, due_at = clock_timestamp()
        where subscription in (select name from resumed) and id is distinct from ${skip}::text returning 1
      ),
      audited as (
        insert into arcadia.audit (actor, action, detail)
        select ${by}, 'outcomes_resumed', jsonb_build_object('subscription', name) || case when ${skip}::text is null then '{}' else jsonb_build_object('skipped', ${skip}::text) end from resumed
      )
      select paused_at is not null as was_paused, exists (select from skipped) as skipped from before`,
  );
  return row ?? null;
}
