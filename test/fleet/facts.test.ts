// What Postgres knows of the fleet.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readFleetFacts } from '../../src/fleet/facts.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { createEngineDatabase } from '../support/engine.ts';
import type { TestDatabase } from '../support/services-postgres.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await createEngineDatabase();
  db = openDatabase(database.url);
});
afterAll(async () => {
  await db.close();
  await database.drop();
});

// Random ids of 20,000 sagas may begin alike, which is refused.
let made = 0;

async function sagasAt(step: string, { count = 1, minutes = 5, status = 'running' } = {}): Promise<void> {
  await db.sql`
    insert into arcadia.sagas (id, saga8, name, steps, status, input, step_started_at, wake_at)
    select id, left(id::text, 8), 'provision_droplet', array[${step}::text], ${status}, '{}', clock_timestamp() - ${minutes}::int * interval '1 minute', case when ${status}::text <> 'stuck' then clock_timestamp() + interval '1 hour' end
    from (select (lpad(to_hex(number), 8, '0') || '-0000-4000-8000-000000000000')::uuid as id from generate_series(${made + 1}::int, ${made + count}::int) as number) as numbered`;
  made += count;
}

async function workerAlive(name: string, steps: readonly string[] | null, failingForS: number | null = null): Promise<void> {
  await db.sql`
    insert into arcadia.workers (id, name, host, pid, version, node_version, concurrency, steps, reconciler_failing_since)
    values (gen_random_uuid(), ${name}, 'host', 1, '0', '0', 1, ${steps === null ? null : [...steps]}::text[], clock_timestamp() - ${failingForS}::float8 * interval '1 second')`;
}

test('counts sagas at steps that no worker knows, once they have been there for two minutes', async () => {
  await sagasAt('create_droplet');
  await sagasAt('removed', { minutes: 1 });
  await sagasAt('removed', { status: 'stuck' });
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 0, steps: [] });
  await sagasAt('removed', { count: 2 });
  await sagasAt('renamed', { status: 'compensating' });
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 3, steps: ['removed', 'renamed'] });
  // What live workers tell of themselves counts, once all of them do.
  await workerAlive('old', null);
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 3, steps: ['removed', 'renamed'] });
  await db.sql`delete from arcadia.workers`;
  await workerAlive('new', ['removed', 'renamed']);
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 1, steps: ['create_droplet'] });
  await sagasAt('create_droplet', { count: 20_000 });
  expect((await readFleetFacts(db)).unknownSteps).toBeNull();
});

test('counts sagas of SQL whose name no worker knows, once they have waited for two minutes, whatever their first step', async () => {
  const [kept] = await db.sql<{ ids: string[] }[]>`select array_agg(id) as ids from arcadia.sagas`;
  await db.sql`update arcadia.sagas set wake_at = null`;
  await db.sql`delete from arcadia.workers`;
  const unadmitted = async (name: string, step: string, minutes = 5) => {
    await sagasAt(step, { status: 'pending', minutes });
    await db.sql`update arcadia.sagas set name = ${name}, input_checked = false where saga8 = lpad(to_hex(${made}::int), 8, '0')`;
  };
  await unadmitted('gone', 'create_droplet');
  await unadmitted('gone', 'removed');
  await unadmitted('provision_droplet', 'create_droplet');
  await unadmitted('young', 'create_droplet', 1);
  expect(await readFleetFacts(db)).toMatchObject({ unknownSagas: { sagas: 2, names: ['gone'] }, unknownSteps: { sagas: 0 } });
  // One that was admitted goes on by the names of its steps.
  await db.sql`update arcadia.sagas set input_checked = true where steps = '{removed}' and wake_at is not null`;
  expect(await readFleetFacts(db)).toMatchObject({ unknownSagas: { sagas: 1 }, unknownSteps: { sagas: 1, steps: ['removed'] } });
  const alive = async (sagas: readonly string[] | null) => {
    await workerAlive('one', ['create_droplet', 'removed']);
    await db.sql`update arcadia.workers set sagas = ${sagas === null ? null : [...sagas]}::text[] where sagas is null`;
  };
  await alive(['provision_droplet']);
  expect((await readFleetFacts(db)).unknownSagas).toEqual({ sagas: 1, names: ['gone'] });
  // Of an older version, which may know all that `migrate` wrote, and no more.
  await db.sql`delete from arcadia.workers`;
  await alive(null);
  expect((await readFleetFacts(db)).unknownSagas).toEqual({ sagas: 1, names: ['gone'] });
  await db.sql`delete from arcadia.workers`;
  await alive(['gone']);
  expect((await readFleetFacts(db)).unknownSagas).toEqual({ sagas: 1, names: ['provision_droplet'] });
  await db.sql`delete from arcadia.workers`;
  await db.sql`delete from arcadia.sagas where id <> all (${kept?.ids ?? []}::uuid[])`;
  await db.sql`update arcadia.sagas set wake_at = clock_timestamp() + interval '1 hour' where status <> 'stuck'`;
});

test('counts sagas that lack what the live version of their step needs, once they have for two minutes', async () => {
  const due = async (memo: string, minutes: number, status = 'running'): Promise<string> => {
    await sagasAt('pack', { minutes, status });
    const [saga] = await db.sql<{ id: string }[]>`
      update arcadia.sagas set memo = ${memo}::text::jsonb, wake_at = case when wake_at is not null then clock_timestamp() - interval '1 minute' end where saga8 = lpad(to_hex(${made}::int), 8, '0') returning id`;
    return saga?.id ?? '';
  };
  expect((await readFleetFacts(db)).unmetNeeds).toEqual({ sagas: 0, ids: [], steps: [] });
  const ids = [await due('{"needs_unmet": 1, "polls": 3}', 4), await due('{"needs_unmet": 1}', 3)];
  await due('{"needs_unmet": 1}', 1);
  await due('{"polls": 3}', 9);
  expect((await readFleetFacts(db)).unmetNeeds).toEqual({ sagas: 2, ids, steps: ['pack'] });
});

test('counts unfinished sagas that lack an encryption key, and names it', async () => {
  const due = async (mark: string, status: string, sooner: number): Promise<void> => {
    await sagasAt('create_droplet', { status });
    await db.sql`
      update arcadia.sagas set context = ${mark}::text::jsonb, wake_at = case when wake_at is not null then clock_timestamp() - ${sooner}::int * interval '1 second' end
      where saga8 = lpad(to_hex(${made}::int), 8, '0')`;
  };
  expect((await readFleetFacts(db)).missingKeys).toEqual({ sagas: 0, keys: [] });
  await due('{"missing_encryption_key": "0a1b2c3d"}', 'running', 5);
  await due('{"missing_encryption_key": "0a1b2c3d"}', 'compensating', 6);
  await due('{"missing_encryption_key": "ffffffff"}', 'stuck', 7);
  await due('{"missing_encryption_key": null}', 'running', 8);
  // 20,000 others are due later.
  expect((await readFleetFacts(db)).missingKeys).toEqual({ sagas: 2, keys: ['0a1b2c3d'] });
});

test('counts unfinished sagas whose requests have not been answered for ten minutes, and names the oldest', async () => {
  const due = async (memo: string, status: string, minutes: number): Promise<string> => {
    await sagasAt('create_droplet', { status });
    const [saga] = await db.sql<{ id: string }[]>`
      update arcadia.sagas set memo = ${memo}::text::jsonb, step_started_at = clock_timestamp() - ${minutes}::int * interval '1 minute', wake_at = case when wake_at is not null then clock_timestamp() - interval '1 minute' end
      where saga8 = lpad(to_hex(${made}::int), 8, '0') returning id`;
    return saga?.id ?? '';
  };
  expect((await readFleetFacts(db)).unanswered).toEqual({ sagas: 0, ids: [] });
  const ids = [await due('{"outages": 40}', 'compensating', 40), await due('{"outages": 30}', 'running', 30), await due('{"outages": 20}', 'compensating', 20), await due('{"outages": 15}', 'running', 15)];
  await due('{"outages": 3}', 'compensating', 9);
  await due('{"polls": 90}', 'running', 60);
  await due('{"outages": 90}', 'stuck', 60);
  expect((await readFleetFacts(db)).unanswered).toEqual({ sagas: 4, ids: ids.slice(0, 3) });
});

test('says where live workers have their queues, each place once; older versions do not tell', async () => {
  await db.sql`delete from arcadia.workers`;
  expect((await readFleetFacts(db)).queuePlaces).toEqual([]);
  for (const name of ['old', 'one', 'two', 'three', 'dead']) await workerAlive(name, []);
  await db.sql`update arcadia.workers set queue_store = 'redis', queue_prefix = '{one}' where name in ('one', 'two')`;
  await db.sql`update arcadia.workers set queue_store = 'postgres' where name = 'three'`;
  await db.sql`update arcadia.workers set queue_store = 'redis', queue_prefix = '{dead}', last_seen_at = clock_timestamp() - interval '1 minute' where name = 'dead'`;
  const { queuePlaces } = await readFleetFacts(db);
  expect(queuePlaces.toSorted((one, other) => one.kind.localeCompare(other.kind))).toEqual([{ kind: 'postgres', prefix: null }, { kind: 'redis', prefix: '{one}' }]);
});

test('says since when the reconcilers of all live workers fail, and DigitalOcean, how many surplus droplets are held, and whether writes are refused', async () => {
  await db.sql`delete from arcadia.workers`;
  expect(await readFleetFacts(db)).toMatchObject({ reconcilerFailingSince: null, orphansHeld: 0, isReadOnly: false });
  await workerAlive('one', [], 300);
  await workerAlive('two', [], 100);
  const { now, reconcilerFailingSince } = await readFleetFacts(db);
  expect(Math.round((now.getTime() - (reconcilerFailingSince?.getTime() ?? 0)) / 1_000)).toBe(100);
  await workerAlive('three', []);
  expect((await readFleetFacts(db)).reconcilerFailingSince).toBeNull();

  const providerFailingForS = async (...workers: readonly (readonly [failing: number | null, answered: number | null])[]): Promise<number | null> => {
    await db.sql`delete from arcadia.workers`;
    for (const [failing, answered] of workers) {
      await workerAlive('one', []);
      await db.sql`
        update arcadia.workers set provider_failing_since = clock_timestamp() - ${failing}::float8 * interval '1 second', provider_answered_at = clock_timestamp() - ${answered}::float8 * interval '1 second'
        where provider_failing_since is null and provider_answered_at is null`;
    }
    const { now: at, providerFailingSince } = await readFleetFacts(db);
    return providerFailingSince === null ? null : Math.round((at.getTime() - providerFailingSince.getTime()) / 1_000);
  };
  expect(await providerFailingForS([null, 5])).toBeNull();
  expect(await providerFailingForS([90, 100], [70, null], [null, 120])).toBe(90);
  // Another was answered since; the first asks no more.
  expect(await providerFailingForS([90, 100], [null, 5])).toBeNull();
  expect(await providerFailingForS([300, 400], [60, 70])).toBe(60);

  await db.sql`
    with resource as (insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', '1', 'droplet', 'surplus', 'active') returning id)
    insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync) select id, 'surplus', 'too many', now(), 1, 1 from resource`;
  expect((await readFleetFacts(db)).orphansHeld).toBe(0);
  await db.sql`insert into arcadia.inventory_syncs (number, lease_until, worker, finished_at, outcome, summary) values (1, now(), 'w', now(), 'complete', '{"held": 1}')`;
  expect((await readFleetFacts(db)).orphansHeld).toBe(1);
  expect((await readFleetFacts(db)).orphansUnknown).toBe(0);
  await db.sql`update arcadia.cloud_orphans set category = 'unknown'`;
  expect(await readFleetFacts(db)).toMatchObject({ orphansHeld: 0, orphansUnknown: 1 });
  await db.sql`update arcadia.cloud_orphans set acknowledged_at = now(), acknowledged_by = 'ann'`;
  expect((await readFleetFacts(db)).orphansUnknown).toBe(0);
  await db.sql`update arcadia.cloud_orphans set category = 'surplus'`;
  await db.sql`update arcadia.cloud_orphans set approved_at = now(), approved_by = 'ann'`;
  expect((await readFleetFacts(db)).orphansHeld).toBe(0);

  await db.sql.unsafe(`alter database ${database.name} set default_transaction_read_only = on`);
  const other = openDatabase(database.url);
  expect((await readFleetFacts(other)).isReadOnly).toBe(true);
  await other.close();
});
