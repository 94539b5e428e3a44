// Counts the inventory, for metrics.
import type { Database } from '../platform/db.ts';
import type { DriftField } from './drift.ts';
import { driftFields } from './drift.ts';
import type { OrphanState } from './orphans.ts';

export type InventoryStats = Readonly<{
  /** Existing droplets of the whole account, ours or not. */
  present: number;
  /** Open drift by field; every field is present. */
  drift: readonly Readonly<{ field: DriftField; count: number }>[];
  orphans: readonly Readonly<{ category: OrphanState; count: number; usdPerHour: number }>[];
  /** Surplus droplets that the last sync held back because there were too many at once. */
  held: number;
  /** Droplets whose lease has not expired; and droplets whose ended lease the brake against mass expiry holds. */
  leased: number;
  leasesHeld: number;
  /** Sagas whose tags are still in the account, to be deleted; counted up to {@link MOST_COUNTED}. */
  spentTags: number;
  /** Since the end of the last complete sync, or else since the first attempt; 0 before that. */
  syncAgeSeconds: number;
  /** Of the last complete sync; 0: none yet. */
  syncDurationSeconds: number;
  /** Failed syncs since the last complete one. */
  failedSyncs: number;
}>;

// More would take long to count, and says no more.
const MOST_COUNTED = 100_000;

/** Reads them in one statement. */
export async function readInventoryStats(db: Pick<Database, 'run'>): Promise<InventoryStats> {
  const [row] = await db.run(
    'stats.inventory',
    (sql) => sql<InventoryStats[]>`
      with complete as (
        select number, finished_at, extract(epoch from finished_at - started_at)::float8 as seconds, (summary->>'held')::int as held
        from arcadia.inventory_syncs where outcome = 'complete' order by number desc limit 1
      )
      select
        (select count(*)::int from arcadia.cloud_resources where deleted_at is null) as present,
        (select coalesce(jsonb_agg(jsonb_build_object('field', field, 'count', number)), '[]')
         from (select field, count(*) as number from arcadia.cloud_drift where resolved_at is null group by field) as drift) as drift,
        (select coalesce(jsonb_agg(jsonb_build_object('category', category, 'count', number, 'usdPerHour', price)), '[]')
         from (select case when acknowledged_at is null then category else 'acknowledged' end as category, count(*) as number, coalesce(sum(price_usd_per_hour), 0) as price
               from arcadia.cloud_orphans where resolved_at is null group by 1) as orphans) as orphans,
        coalesce((select held from complete), 0) as held,
        (select leased from arcadia.lease_brake()) as leased,
        (select case when is_held then ended else 0 end from arcadia.lease_brake()) as leases_held,
        (select count(*)::int from (select from arcadia.spent_tags limit ${MOST_COUNTED}) as spent) as spent_tags,
        coalesce(extract(epoch from clock_timestamp() - coalesce(
          (select finished_at from complete), (select min(started_at) from arcadia.inventory_syncs))), 0)::float8 as sync_age_seconds,
        coalesce((select seconds from complete), 0) as sync_duration_seconds,
        (select count(*)::int from arcadia.inventory_syncs
         where outcome = 'failed' and number > coalesce((select number from complete), 0)) as failed_syncs`,
  );
  if (row === undefined) throw new Error('stats.inventory: no answer');
  return { ...row, drift: driftFields.map((field) => row.drift.find((one) => one.field === field) ?? { field, count: 0 }) };
}
