// Rows of the inventory for tests of its pages: droplets with and without a provision, drift and orphans.
import { randomUUID } from 'node:crypto';
import type { Database } from '../../src/platform/db.ts';

export type GivenDroplet = {
  readonly name?: string;
  readonly region?: string;
  readonly size?: string;
  /** Null: not known. */
  readonly usdPerHour?: number | null;
  readonly tags?: readonly string[];
  readonly address?: string;
  readonly ageS?: number;
  readonly seenAgoS?: number;
  readonly absences?: number;
  readonly goneAgoS?: number | null;
  /** Who asked for it; null: nobody here did. */
  readonly requestedBy?: string | null;
  readonly isProtected?: boolean;
  /** Null: no lease. */
  readonly leaseInS?: number | null;
  readonly drift?: Readonly<{ field: string; desired: string; actual: string }>;
  readonly orphan?: 'surplus' | 'unknown';
  readonly orphanReason?: string;
};

export type PlacedDroplet = Readonly<{ dropletId: number; sagaId: string; driftId: number; orphanId: number }>;

let next = 5_000;

/** Puts a droplet on record, and its completed provision if somebody asked for it. */
export async function placeDroplet(db: Database, given: GivenDroplet = {}): Promise<PlacedDroplet> {
  const { name = 'web-1', region = 'fra1', size = 's-1vcpu-1gb', usdPerHour = 0.00893, tags = [], address = '192.0.2.1', ageS = 3_600, seenAgoS = 10, absences = 0, goneAgoS = null, requestedBy = 'http:ada', isProtected = false, leaseInS = null, drift, orphan, orphanReason = 'its saga was rolled back' } = given;
  next += 1;
  const dropletId = next;
  const sagaId = randomUUID();
  const attrs = {
    networks: { v4: [{ ip_address: '10.0.0.1', type: 'private' }, { ip_address: address, type: 'public' }], v6: [] },
    do_created_at: new Date(Date.now() - ageS * 1_000).toISOString(),
    vcpus: 1, memory_mb: 1_024, disk_gb: 25,
    ...(usdPerHour === null ? {} : { price: { size, usd_per_hour: usdPerHour } }),
  };
  const [resource] = await db.sql<{ id: string }[]>`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs, last_seen_at, absences, deleted_at)
    values ('digitalocean', ${String(dropletId)}, 'droplet', ${name}, ${region}, 'active', ${size}, ${[...tags]}::text[], ${JSON.stringify(attrs)}::text::jsonb,
            clock_timestamp() - ${seenAgoS}::float8 * interval '1 second', ${absences}, clock_timestamp() - ${goneAgoS}::float8 * interval '1 second')
    returning id`;
  const resourceId = resource?.id ?? '';
  if (requestedBy !== null) {
    await db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, cursor, input, context, requested_by, wake_at, finished_at)
      values (${sagaId}, ${sagaId.slice(0, 8)}, 'provision_droplet', 'completed', '{create_droplet,wait_droplet_active,register_droplet}', 2,
              ${JSON.stringify({ name, region, size })}::text::jsonb, ${JSON.stringify({ droplet_id: dropletId })}::text::jsonb, ${requestedBy}, null, now())`;
    await db.sql`
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected, lease_generation, lease_until)
      values (${resourceId}, ${JSON.stringify({ size_slug: size, region, image: 'debian-12-x64' })}::text::jsonb, ${`saga:${sagaId}`}, ${sagaId}, ${isProtected}, 1, clock_timestamp() + ${leaseInS}::float8 * interval '1 second')`;
  }
  const [finding] = drift === undefined ? [] : await db.sql<{ id: string }[]>`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${resourceId}, ${drift.field}, ${drift.desired}, ${drift.actual}) returning id`;
  const [sighting] = orphan === undefined ? [] : await db.sql<{ id: string }[]>`
    insert into arcadia.cloud_orphans (resource_id, category, reason, saga_id, price_usd_per_hour, created_at, ended_at, first_sync, last_sync)
    values (${resourceId}, ${orphan}, ${orphanReason}, ${sagaId}, ${usdPerHour}, now() - interval '1 day', now() - interval '1 hour', 1, 2) returning id`;
  return { dropletId, sagaId, driftId: Number(finding?.id ?? 0), orphanId: Number(sighting?.id ?? 0) };
}

/** Puts a sync on record. */
export async function placeSync(db: Database, { agoS, outcome = 'complete', error = null }: { agoS: number; outcome?: 'complete' | 'failed'; error?: string | null }): Promise<void> {
  await db.sql`
    insert into arcadia.inventory_syncs (number, started_at, finished_at, outcome, lease_until, worker, error)
    select coalesce(max(number), 0) + 1, clock_timestamp() - ${agoS}::float8 * interval '1 second', clock_timestamp() - ${agoS}::float8 * interval '1 second', ${outcome}, now(), 'test:1', ${error} from arcadia.inventory_syncs`;
}
