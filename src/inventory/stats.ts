// The inventory in numbers: for metrics.
import type { Database } from '../db.ts';
import type { DriftField } from './drift.ts';
import type { OrphanCategory } from './orphans.ts';

export type InventoryStats = Readonly<{
  /** Droplets that are there, of everybody in the account. */
  present: number;
  drift: readonly Readonly<{ field: DriftField; count: number }>[];
  orphans: readonly Readonly<{ category: OrphanCategory; count: number; usdPerHour: number }>[];
  /** Surplus droplets that the last sync did not destroy because they were too many at once. */
  held: number;
  /** Of the last complete sync; null: there was none yet. */
  lastSync: Readonly<{ ageSeconds: number; durationSeconds: number }> | null;
  /** Syncs since then that failed. */
  failedSyncs: number;
}>;

type Row = Omit<InventoryStats, 'lastSync'> & { ageSeconds: number | null; durationSeconds: number | null };

/** Reads them in one statement. */
export async function readInventoryStats(db: Pick<Database, 'run'>): Promise<InventoryStats> {
  const [row] = await db.run(
    'stats.inventory',
    (sql) => sql<Row[]>`
      with complete as (
        select number, finished_at, extract(epoch from finished_at - started_at)::float8 as seconds, (summary->>'held')::int as held
        from arcadia.inventory_syncs where outcome = 'complete' order by number desc limit 1
      )
      select
        (select count(*)::int from arcadia.cloud_resources where deleted_at is null) as present,
        (select coalesce(jsonb_agg(jsonb_build_object('field', field, 'count', number)), '[]')
         from (select field, count(*) as number from arcadia.cloud_drift where resolved_at is null group by field) as drift) as drift,
        (select coalesce(jsonb_agg(jsonb_build_object('category', category, 'count', number, 'usdPerHour', price)), '[]')
         from (select category, count(*) as number, coalesce(sum(price_usd_per_hour), 0) as price
               from arcadia.cloud_orphans where resolved_at is null group by category) as orphans) as orphans,
        coalesce((select held from complete), 0) as held,
        (select extract(epoch from clock_timestamp() - finished_at)::float8 from complete) as age_seconds,
        (select seconds from complete) as duration_seconds,
        (select count(*)::int from arcadia.inventory_syncs
         where outcome = 'failed' and number > coalesce((select number from complete), 0)) as failed_syncs`,
  );
  if (row === undefined) throw new Error('stats.inventory: no answer');
  const { ageSeconds, durationSeconds, ...stats } = row;
  return { ...stats, lastSync: ageSeconds === null || durationSeconds === null ? null : { ageSeconds, durationSeconds } };
}
