// One droplet, with everything that the inventory has on record about it.
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Drift } from './drift-store.ts';
import { toDrift } from './drift-store.ts';
import { createdOf } from './droplet-list.ts';
import type { ListedDroplet } from './droplet-list.ts';
import type { Orphan, OrphanState } from './orphans.ts';
import { stateOfOrphan } from './orphans.ts';
import type { SyncAge } from './syncs.ts';
import { readSyncAge } from './syncs.ts';

type Judged = Pick<Orphan, 'category' | 'reason' | 'approvedAt' | 'approvedBy' | 'acknowledgedAt' | 'acknowledgedBy' | 'acknowledgedReason' | 'sweepFailingSince' | 'sweepError'>;

/** What the inventory has on record about a droplet. */
export type DropletRecord = Omit<ListedDroplet, 'drift' | 'orphan' | 'atWork'> &
  Readonly<{
    /** The database's clock. */
    now: Date;
    tags: readonly string[];
    image: Readonly<{ id: number; slug: string | null }> | null;
    memoryMb: number | null;
    vcpus: number | null;
    diskGb: number | null;
    firstSeenAt: Date;
    /** The desired state; null: none. */
    spec: JsonObject | null;
    /** When nothing was desired of it any more; null: it is managed, or never was. */
    releasedAt: Date | null;
    leaseLimit: Date | null;
    orphan: (Pick<Orphan, 'id' | 'sagaId' | 'firstSeenAt'> & Judged & Readonly<{ state: OrphanState }>) | null;
    /** Newest first, also what is resolved. */
    drift: readonly Drift[];
    sync: SyncAge;
  }>;

// Many times more than a droplet has.
const MOST_DRIFT = 100;

type Row = Omit<DropletRecord, 'orphan' | 'drift' | 'sync'> & Judged & Readonly<{ id: string; orphanId: string | null; orphanSagaId: string | null; orphanSince: Date }>;

/** Finds a droplet by DigitalOcean's id; null: the inventory has it not. */
export async function findDroplet(db: Pick<Database, 'run'>, dropletId: number): Promise<DropletRecord | null> {
  const [rows, sync] = await Promise.all([
    db.run(
      'droplets.find',
      (sql) => sql<Row[]>`
        select clock_timestamp() as now, resource.id, resource.provider_id, resource.name, resource.region, resource.size_slug, resource.status, resource.tags, resource.image,
               resource.first_seen_at, resource.last_seen_at, resource.deleted_at, resource.absences,
               resource.addresses, resource.usd_per_hour as price_usd_per_hour, ${createdOf(sql)} as created_at,
               (resource.attrs->>'memory_mb')::float8 as memory_mb, (resource.attrs->>'vcpus')::float8 as vcpus, (resource.attrs->>'disk_gb')::float8 as disk_gb,
               provisioned.id is not null and provisioned.released_at is null as is_managed, coalesce(provisioned.protected and provisioned.released_at is null, false) as is_protected,
               provisioned.spec, provisioned.released_at, provisioned.saga_id, provisioned.requested_by,
               case when provisioned.released_at is null then provisioned.lease_until end as lease_until, provisioned.lease_limit, provisioned.lease_expired_at,
               orphan.id as orphan_id, orphan.category, orphan.reason, orphan.saga_id as orphan_saga_id, orphan.first_seen_at as orphan_since, orphan.approved_at, orphan.approved_by,
               orphan.acknowledged_at, orphan.acknowledged_by, orphan.acknowledged_reason, orphan.sweep_failing_since, orphan.sweep_error
        from arcadia.cloud_resources resource
        left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
        left join arcadia.cloud_orphans orphan on orphan.resource_id = resource.id and orphan.resolved_at is null
        where resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = ${String(dropletId)}`,
    ),
    readSyncAge(db),
  ]);
  const [row] = rows;
  if (row === undefined) return null;
  const { id, orphanId, category, reason, orphanSagaId, orphanSince, approvedAt, approvedBy, acknowledgedAt, acknowledgedBy, acknowledgedReason, sweepFailingSince, sweepError, ...record } = row;
  const judged = { category, reason, approvedAt, approvedBy, acknowledgedAt, acknowledgedBy, acknowledgedReason, sweepFailingSince, sweepError };
  const orphan = orphanId === null ? null : { id: Number(orphanId), sagaId: orphanSagaId, firstSeenAt: orphanSince, ...judged, state: stateOfOrphan(judged) };
  return { ...record, orphan, drift: await listDriftOf(db, id), sync };
}

async function listDriftOf(db: Pick<Database, 'run'>, resourceId: string): Promise<Drift[]> {
  const rows = await db.run(
    'drift.of_droplet',
    (sql) => sql<Parameters<typeof toDrift>[0][]>`
      select drift.*, resource.provider_id, resource.name, provisioned.saga_id
      from arcadia.cloud_drift drift
      join arcadia.cloud_resources resource on resource.id = drift.resource_id
      left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = drift.resource_id
      where drift.resource_id = ${resourceId} order by drift.id desc limit ${MOST_DRIFT}`,
  );
  return rows.map(toDrift);
}
