// Writes tens of thousands of droplets with a few statements, as the inventory of a large account has them. Write their sagas
// first: see many-sagas.ts.
import type { Database } from '../../src/platform/db.ts';

/** Writes droplets: nine of ten managed, some drifted, some orphans, all priced; and droplets that are gone. */
export async function writeDroplets(db: Database, { present, gone }: { readonly present: number; readonly gone: number }): Promise<void> {
  await db.sql`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs, image, last_seen_at, deleted_at)
    select 'digitalocean', 1000000 + n, 'droplet', 'droplet-' || n, (array['fra1', 'nyc3', 'ams3', 'sgp1', 'lon1'])[1 + n % 5], 'active', (array['s-1vcpu-1gb', 's-2vcpu-2gb', 's-4vcpu-8gb'])[1 + n % 3],
           array['managed-by-arcadia-cloud', 'arcadia-saga-' || left(md5(n::text), 8), 'arcadia-saga-id-' || md5(n::text)::uuid, 'arcadia-wave-' || n % 50, 'team-' || n % 12, 'shop'],
           jsonb_build_object('memory_mb', 1024, 'vcpus', 1, 'disk_gb', 25, 'do_created_at', to_char(now() - n * interval '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
             'networks', jsonb_build_object('v4', jsonb_build_array(
               jsonb_build_object('ip_address', format('10.0.%s.%s', n / 250 % 250, n % 250), 'type', 'private'), jsonb_build_object('ip_address', format('198.18.%s.%s', n / 250 % 250, n % 250), 'type', 'public')), 'v6', '[]'::jsonb),
             'price', jsonb_build_object('size', (array['s-1vcpu-1gb', 's-2vcpu-2gb', 's-4vcpu-8gb'])[1 + n % 3], 'usd_per_hour', (array[0.00893, 0.02679, 0.07143])[1 + n % 3])),
           '{"id": 7, "slug": "debian-12-x64"}', clock_timestamp(), case when n > ${present}::int then clock_timestamp() - n * interval '1 second' end
    from generate_series(1, ${present + gone}::int) as n`;
  await db.sql`
    insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected, lease_until)
    select distinct on (resource.id) resource.id, jsonb_build_object('size_slug', size_slug, 'region', region, 'image', 'debian-12-x64'), 'saga:' || saga.id, saga.id, n % 20 = 0, case when n % 2 = 0 then now() + n * interval '1 minute' end
    from (select id, provider_id, provider_id::int - 1000000 as n, size_slug, region from arcadia.cloud_resources where deleted_at is null) as resource
    join arcadia.sagas saga on coalesce(saga.context->>'droplet_id', saga.input->>'droplet_id') = resource.provider_id
    where n % 10 <> 0`;
  await db.sql`update arcadia.cloud_provisioned set requested_by = 'user-' || abs(hashtext(id::text)) % 40`;
  await db.sql`
    insert into arcadia.cloud_drift (resource_id, field, desired, actual)
    select resource_id, 'size_slug', 's-1vcpu-1gb', 's-2vcpu-2gb' from arcadia.cloud_provisioned order by resource_id limit ${Math.ceil(present / 50)}`;
  await db.sql`
    insert into arcadia.cloud_orphans (resource_id, category, reason, price_usd_per_hour, created_at, first_sync, last_sync)
    select id, 'surplus', 'its saga was rolled back', 0.00893, now(), 1, 2 from arcadia.cloud_resources r
    where deleted_at is null and not exists (select from arcadia.cloud_provisioned p where p.resource_id = r.id) order by id limit ${Math.ceil(present / 100)}`;
  await db.sql`insert into arcadia.inventory_syncs (number, started_at, finished_at, outcome, lease_until, worker) values (1, clock_timestamp(), clock_timestamp(), 'complete', now(), 'test:1')`;
}
