// Provisions by the million, as real ones leave their rows: what a database of an earlier version holds after years. Written
// in bulk, without indexes and triggers, which are made again afterwards: so ten million take minutes instead of hours.
import type { Database, ReservedSql } from '../../src/platform/db.ts';
import { reserveConnection } from '../../src/platform/db.ts';

export type ManyProvisions = Readonly<{
  /** That ended: one in a hundred was rolled back, the others completed. */
  finished: number;
  /** Of those, how many ended more than 90 days ago, which retention deletes. The others ended in the last 80 days. */
  expired: number;
  /** In the middle of the wait for their droplet, none due within an hour. */
  waiting: number;
  stuck: number;
  /** One finished saga in this many has a droplet on record, which is gone. */
  resourceEvery: number;
  /** Of finished sagas: all six events, or the first and the last. Default: all. */
  allEvents?: boolean;
}>;

const AT_ONCE = 250_000;
const tables = ['sagas', 'saga_events', 'audit', 'cloud_resources', 'cloud_provisioned'] as const;

// Numbers from 1 on, in order of creation. Ids look random; their first 8 characters are all different, as the factor is odd:
// of ten million random ones, ten thousand would collide.
const idOf = (number: string) =>
  `(lpad(to_hex((${number} * 2654435761) % 4294967296), 8, '0') || '-' || lpad(to_hex(${number} % 65536), 4, '0') || '-4000-8000-' || lpad(to_hex((${number} * 40503) % 281474976710656), 12, '0'))::uuid`;

/**
 * Fills an empty, migrated database of version 20 or later. Needs a superuser, as it turns triggers off.
 *
 * The rows of a saga are those that the sandbox's provision writes: six events, one row of audit, a context of 0.4 KiB.
 */
export async function writeProvisions(db: Database, many: ManyProvisions): Promise<void> {
  const connection = await reserveConnection(db);
  try {
    await connection`begin`;
    // Written in the transaction that emptied the tables, rows need no write-ahead log where `wal_level` is minimal.
    await connection.unsafe(`truncate ${tables.map((table) => `arcadia.${table}`).join(', ')} cascade`);
    await connection`set local session_replication_role = replica`;
    await connection`set local statement_timeout = 0`;
    await connection`set local maintenance_work_mem = '512MB'`;
    const restore = await dropIndexes(connection);
    const { finished, expired, stuck, waiting } = many;
    const parts = [
      { status: 'finished', from: 1, to: expired, oldestDays: 100, newestDays: 91 },
      { status: 'finished', from: expired + 1, to: finished, oldestDays: 80, newestDays: 1 },
      { status: 'stuck', from: finished + 1, to: finished + stuck, oldestDays: 2, newestDays: 1 },
      { status: 'waiting', from: finished + stuck + 1, to: finished + stuck + waiting, oldestDays: 0.04, newestDays: 0 },
    ];
    for (const part of parts) {
      const own = Math.min(part.to, part.from + AT_ONCE - 1);
      await writeSome(connection, { ...part, allEvents: many.allEvents ?? true, first: part.from, last: part.to, to: own });
      // To copy rows is much faster than to make their JSON.
      if (own < part.to) await keepBase(connection, part.from);
      const secondsEach = ((part.oldestDays - part.newestDays) * 86_400) / (part.to - part.from + 1);
      for (let by = AT_ONCE; part.from + by <= part.to; by += AT_ONCE) {
        await copyBase(connection, { first: part.from, count: Math.min(AT_ONCE, part.to - part.from - by + 1), by, laterS: by * secondsEach });
      }
    }
    await writeResources(connection, many.resourceEvery);
    for (const statement of restore) await connection.unsafe(statement);
    await connection`commit`;
  } catch (error) {
    await connection`rollback`.catch(() => undefined);
    throw error;
  } finally {
    connection.release();
  }
  await db.sql`vacuum (analyze, parallel 0)`;
}

async function dropIndexes(connection: ReservedSql): Promise<string[]> {
  const constraints = await connection<{ table: string; name: string; definition: string }[]>`
    select conrelid::regclass::text as table, conname as name, pg_get_constraintdef(oid) as definition from pg_constraint
    where contype in ('p', 'u', 'f') and connamespace = 'arcadia'::regnamespace and conrelid::regclass::text = any(${tables.map((table) => `arcadia.${table}`)}::text[])
    order by contype = 'f', contype desc`;
  // A key that is referred to is dropped after what refers to it.
  for (const { table, name } of constraints.toReversed()) await connection.unsafe(`alter table ${table} drop constraint "${name}" cascade`);
  const indexes = await connection<{ name: string; definition: string }[]>`
    select indexname as name, indexdef as definition from pg_indexes where schemaname = 'arcadia' and tablename = any(${[...tables]}::text[])`;
  for (const { name } of indexes) await connection.unsafe(`drop index arcadia."${name}"`);
  return [...constraints.map(({ table, name, definition }) => `alter table ${table} add constraint "${name}" ${definition}`), ...indexes.map(({ definition }) => definition)];
}

type Part = Readonly<{ status: string; allEvents: boolean; first: number; last: number; from: number; to: number; oldestDays: number; newestDays: number }>;

async function writeSome(connection: ReservedSql, { status, allEvents, first, last, from, to, oldestDays, newestDays }: Part): Promise<void> {
  const secondsEach = ((oldestDays - newestDays) * 86_400) / Math.max(1, last - first + 1);
  await connection.unsafe(`
    with made as materialized (
      select ${idOf('number')} as id, number,
             clock_timestamp() - interval '${oldestDays} days' + (number - ${first}) * ${secondsEach}::float8 * interval '1 second' as began_at,
             case when '${status}' <> 'finished' then '${status}' when number % 100 = 7 then 'compensated' else 'completed' end as became
      from generate_series(${from}::bigint, ${to}::bigint) as number
    ),
    inserted_sagas as (
      insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, context, error, requested_by, started_by, resource,
        step_started_at, wake_at, created_at, updated_at, finished_at)
      select id, left(id::text, 8), 'provision_droplet',
             case became when 'waiting' then 'running' else became end,
             '{create_droplet,wait_droplet_active,register_droplet}',
             case became when 'completed' then 2 when 'waiting' then 1 when 'stuck' then 1 else 0 end,
             case became when 'waiting' then 3 else 5 end,
             jsonb_build_object('name', 'web-' || number, 'region', 'fra1', 'size', 's-1vcpu-1gb', 'image', 'debian-12-x64', 'tags', jsonb_build_array('team-' || number % 50)),
             jsonb_build_object('droplet_id', 500000000 + number, 'droplet_wave', 'arcadia-wave-77', 'create_intents', 1, 'droplet_origin', 'created',
               'create_action_id', 2600000000 + number, 'create_intent_at', '2026-01-01T00:00:00.000Z')
               || case when became = 'waiting' then '{}' else jsonb_build_object('public_ipv4', '198.18.0.3', 'public_ipv6', null, 'private_ipv4', '10.100.0.3', 'cloud_resource_id', id) end,
             case when became in ('compensated', 'stuck') then '{"code": "droplet_not_active", "message": "droplet was still new after 96 polls", "step": "wait_droplet_active", "retryable": false}'::jsonb end,
             'user-' || number % 200, 'token:backend',
             case when became = 'completed' then 'droplet:' || 500000000 + number end,
             began_at, case when became = 'waiting' then clock_timestamp() + interval '1 hour' end, began_at, began_at + interval '1 minute',
             case when became in ('completed', 'compensated') then began_at + interval '1 minute' end
      from made
    ),
    inserted_audit as (
      insert into arcadia.audit (at, actor, action, saga_id, detail)
      select began_at, 'user-' || number % 200, 'saga_created', id, '{"name": "provision_droplet", "startedBy": "token:backend"}' from made
    )
    insert into arcadia.saga_events (saga_id, seq, at, kind, step, attempt, detail, worker)
    select id, seq, began_at + seq * interval '1 second', kind, step, case when seq > 0 then 1 end,
           case when seq = 3 then jsonb_build_object('note', 'created droplet ' || 500000000 + number, 'status', 'running', 'droplet_id', 500000000 + number, 'droplet_wave', 'arcadia-wave-77', 'droplet_origin', 'created', 'create_action_id', 2600000000 + number)
                when seq = 5 then jsonb_build_object('status', became, 'cloud_resource_id', id) else detail end,
           case when seq > 0 then 'worker-1:4711' end
    from made cross join (values
      (0, 'saga_created', null, '{"status": "pending", "startedBy": "token:backend", "requestedBy": "user-1"}'::jsonb),
      (1, 'saga_started', 'create_droplet', '{"status": "running"}'),
      (2, 'step_recorded', 'create_droplet', '{"note": "announced a create", "status": "running", "create_intents": 1}'),
      (3, 'step_completed', 'create_droplet', null),
      (4, 'step_completed', 'wait_droplet_active', '{"note": "droplet is active after 2 polls", "status": "running", "public_ipv4": "198.18.0.3", "public_ipv6": null, "private_ipv4": "10.100.0.3"}'),
      (5, 'step_completed', 'register_droplet', null)
    ) as event (seq, kind, step, detail)
    where case when became = 'waiting' then seq <= 3 else ${allEvents} or seq in (0, 5) end`);
}

/** Keeps the rows of the sagas from a number on in temporary tables, with their numbers. */
async function keepBase(connection: ReservedSql, first: number): Promise<void> {
  await connection.unsafe(`drop table if exists base_sagas, base_events, base_audit`);
  await connection.unsafe(`create temp table base_sagas on commit drop as select substr(input->>'name', 5)::bigint as number, * from arcadia.sagas where substr(input->>'name', 5)::bigint >= ${first}`);
  await connection.unsafe(`create temp table base_events on commit drop as select number, event.* from arcadia.saga_events as event join base_sagas on base_sagas.id = saga_id`);
  await connection.unsafe(`create temp table base_audit on commit drop as select number, audit.* from arcadia.audit join base_sagas on base_sagas.id = saga_id`);
}

/** Writes some of those sagas once more, under numbers that are higher by so many, at later times. */
async function copyBase(connection: ReservedSql, { first, count, by, laterS }: { first: number; count: number; by: number; laterS: number }): Promise<void> {
  const later = `${laterS}::float8 * interval '1 second'`;
  const number = `(number + ${by})`;
  const some = `where number < ${first + count}`;
  await connection.unsafe(`
    insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, context, error, requested_by, started_by, resource, step_started_at, wake_at, created_at, updated_at, finished_at)
    select ${idOf(number)}, left(${idOf(number)}::text, 8), name, status, steps, cursor, revision, input || jsonb_build_object('name', 'web-' || ${number}), context || jsonb_build_object('droplet_id', 500000000 + ${number}), error,
           requested_by, started_by, case when resource is not null then 'droplet:' || 500000000 + ${number} end, step_started_at + ${later}, wake_at, created_at + ${later}, updated_at + ${later}, finished_at + ${later}
    from base_sagas ${some}`);
  await connection.unsafe(`insert into arcadia.saga_events (saga_id, seq, at, kind, step, attempt, detail, worker) select ${idOf(number)}, seq, at + ${later}, kind, step, attempt, detail, worker from base_events ${some}`);
  await connection.unsafe(`insert into arcadia.audit (at, actor, action, saga_id, detail) select at + ${later}, actor, action, ${idOf(number)}, detail from base_audit ${some}`);
}

/** Droplets that are gone, and the record of who made them. */
async function writeResources(connection: ReservedSql, every: number): Promise<void> {
  await connection.unsafe(`
    with made as materialized (
      select gen_random_uuid() as resource_id, id, input->>'name' as name, context->>'droplet_id' as droplet_id, created_at, finished_at from arcadia.sagas
      where status = 'completed' and (context->>'droplet_id')::bigint % ${every} = 0
    ),
    inserted as (
      insert into arcadia.cloud_resources (id, provider, provider_id, kind, name, region, status, size_slug, tags, attrs, first_seen_at, last_seen_at, deleted_at)
      select resource_id, 'digitalocean', droplet_id, 'droplet', name, 'fra1', 'active', 's-1vcpu-1gb',
             array['arcadia-saga-' || left(id::text, 8), 'managed-by-arcadia-cloud', 'arcadia-saga-id-' || id, 'team-1', 'arcadia-wave-77'],
             '{"vcpus": 1, "disk_gb": 25, "networks": {"v4": [{"type": "private", "ip_address": "10.100.0.3"}, {"type": "public", "ip_address": "198.18.0.3"}], "v6": []}, "memory_mb": 1024, "do_created_at": "2026-01-01T00:00:00Z"}',
             finished_at, finished_at, finished_at from made
    )
    insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, created_at, released_at)
    select resource_id, '{"image": "debian-12-x64", "region": "fra1", "size_slug": "s-1vcpu-1gb"}', 'saga:' || id, id, created_at, finished_at from made`);
}
