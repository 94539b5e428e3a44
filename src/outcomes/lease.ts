// The lease of a subscription: one worker of the fleet reads the log for it.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';

/** The reader: a subscription, and the holder of its lease. */
export type Reader = Readonly<{ subscription: string; holder: string }>;

// A database restored from a dump holds transaction numbers of another cluster.
const RESTORED = 'this database was restored into another cluster, so nobody can tell which outcomes were delivered: after a resume, those of sagas that end from then on are';

/** SQL: whether a subscription's position names transactions that this cluster has not started yet. */
export const isAhead = (sql: Sql) => sql`pg_snapshot_xmax(seen) > pg_snapshot_xmax(pg_current_snapshot())`;

/** SQL that takes or renews the lease of a subscription, without its `returning`. */
export function leasing(sql: Sql, { subscription, holder }: Reader, leaseMs: number): SqlFragment {
  return sql`
    update arcadia.outcome_subscriptions
    set leased_by = ${holder}, lease_until = clock_timestamp() + ${leaseMs}::float8 * interval '1 millisecond', configured_at = clock_timestamp(),
        paused_at = coalesce(paused_at, case when ${isAhead(sql)} then clock_timestamp() end),
        paused_reason = coalesce(paused_reason, case when ${isAhead(sql)} then ${RESTORED} end)
    where name = ${subscription} and (leased_by = ${holder} or lease_until < clock_timestamp())`;
}

/** Takes or renews the lease of a subscription. @returns whether the caller holds it now */
export async function takeLease(db: Pick<Database, 'run'>, reader: Reader, leaseMs: number): Promise<boolean> {
  const rows = await db.run('outcomes.lease', (sql) => sql`${leasing(sql, reader, leaseMs)} returning 1`);
  return rows.length === 1;
}

/** Makes sure that rows which were restored from another cluster are never told. Cheap if there are none. */
export async function forgetRestored(db: Pick<Database, 'run'>, sources: readonly OutcomeSource[]): Promise<void> {
  for (const source of sources) await db.run('outcomes.forget', (sql) => source.forget(sql));
}

/** Returns the lease, so that another worker need not wait for it to expire. */
export async function giveBackLease(db: Pick<Database, 'run'>, { subscription, holder }: Reader): Promise<void> {
  await db.run('outcomes.give_back', (sql) => sql`update arcadia.outcome_subscriptions set lease_until = '-infinity' where name = ${subscription} and leased_by = ${holder}`);
}
