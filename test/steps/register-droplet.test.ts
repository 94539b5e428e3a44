// register_droplet: the inventory is right the moment the saga completes, and is taken back with it.

import { describe, expect, test } from 'vitest';
import { alive, at, stepToDeath, tagsFor, useStepStage } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;

async function registering() {
  const bench = await openBench();
  const saga = await bench.provision({ tags: ['web'] });
  const before = await bench.drive(saga.id, at('register_droplet'));
  return { bench, saga: before, dropletId: Number(before.context['droplet_id']) };
}

test('writes what there is and what was asked for', async () => {
  const { bench, saga, dropletId } = await registering();
  const after = await bench.drive(saga.id);
  expect(after.status).toBe('completed');
  const [row, ...others] = await bench.inventory();
  expect(others).toEqual([]);
  expect(row).toMatchObject({
    id: after.context['cloud_resource_id'],
    provider: 'digitalocean',
    kind: 'droplet',
    providerId: String(dropletId),
    name: 'web-1',
    region: 'fra1',
    status: 'active',
    sizeSlug: 's-1vcpu-1gb',
    tags: [...tagsFor(saga), 'web', after.context['droplet_wave']],
    deletedAt: null,
    provisionedBy: `saga:${saga.id}`,
    spec: { size_slug: 's-1vcpu-1gb', region: 'fra1', image: 'debian-12-x64' },
  });
  expect(Object.keys(row?.attrs ?? {}).toSorted()).toEqual(['disk_gb', 'do_created_at', 'memory_mb', 'networks', 'vcpus']);
  expect(row?.attrs).toMatchObject({ memory_mb: 1_024, vcpus: 1, disk_gb: 25 });
  expect(after.context['public_ipv4']).toMatch(/^198\.18\./);
  expect(JSON.stringify(row?.attrs['networks'])).toContain(JSON.stringify(after.context['public_ipv4']));
  const [provisioned] = await bench.db.sql<{ sagaId: string; resourceId: string }[]>`select saga_id, resource_id from arcadia.cloud_provisioned`;
  expect(provisioned).toEqual({ sagaId: saga.id, resourceId: row?.id });
});

test('an image given by its number stays a number in what was asked for', async () => {
  const bench = await openBench();
  await bench.drive((await bench.provision({ image: 139_080_871 })).id);
  expect((await bench.inventory())[0]?.spec).toMatchObject({ image: 139_080_871 });
});

test('region, size and tags in capitals are taken: there is what DigitalOcean calls it, asked for is what was asked for', async () => {
  const bench = await openBench();
  bench.sandbox.addForeignDroplet({ name: 'first', tags: ['MY-TAG'] });
  const input = { region: 'SYD1', size: 'S-1VCPU-1GB', tags: ['my-tag'] };
  expect((await bench.drive((await bench.provision(input)).id)).status).toBe('completed');
  const [row] = await bench.inventory();
  expect(row).toMatchObject({ region: 'syd1', sizeSlug: 's-1vcpu-1gb', tags: expect.arrayContaining(['MY-TAG']), spec: { region: 'SYD1', size_slug: 'S-1VCPU-1GB' } });
});

test('refuses a droplet that somebody put on record and that is older than the saga', async () => {
  const { bench, saga } = await registering();
  const foreign = bench.sandbox.addForeignDroplet({ name: 'foreign', created_at: new Date(Date.now() - 2 * HOUR_MS).toISOString() }).id;
  await bench.db.sql`update arcadia.sagas set context = context || jsonb_build_object('droplet_id', ${foreign}::bigint, 'create_intent_at', '2020-01-01T00:00:00.000Z') where id = ${saga.id}`;
  expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours' }, context: { unproven_droplets: [foreign] } });
  expect([await bench.inventory(), alive(bench.sandbox).map(({ id }) => id)]).toEqual([[], [foreign]]);
});

test('brings every column up to date of a row that a sync made before', async () => {
  const { bench, saga, dropletId } = await registering();
  await bench.db.sql`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs, first_seen_at, last_seen_at, deleted_at)
    values ('digitalocean', ${String(dropletId)}, 'droplet', 'old', 'nyc3', 'provisioning', 's-2vcpu-4gb', '{old}', '{"vcpus": 2, "from_sync": true}',
            now() - interval '1 hour', now() - interval '1 hour', now())`;
  await bench.drive(saga.id);
  const [row, ...others] = await bench.inventory();
  expect(others).toEqual([]);
  expect(row).toMatchObject({
    name: 'web-1',
    region: 'fra1',
    status: 'active',
    sizeSlug: 's-1vcpu-1gb',
    tags: expect.arrayContaining([...tagsFor(saga), 'web']),
    attrs: { vcpus: 1, memory_mb: 1_024, from_sync: true },
    deletedAt: null,
    provisionedBy: `saga:${saga.id}`,
  });
  const seen = await bench.db.sql`select 1 from arcadia.cloud_resources where last_seen_at > now() - interval '1 minute' and first_seen_at < now() - interval '1 minute'`;
  expect(seen).toHaveLength(1);
});

describe('run again', () => {
  test('two workers at once write one row each', async () => {
    const { bench, saga } = await registering();
    await Promise.all([bench.step(saga.id, { name: 'a' }), bench.step(saga.id, { name: 'b' })]);
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(await bench.inventory()).toHaveLength(1);
  });

  test('a worker that died between the rows and the save is followed by one that finds them', async () => {
    const { bench, saga } = await registering();
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    const [before] = await bench.inventory();
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { cloud_resource_id: before?.id } });
    expect(await bench.inventory()).toHaveLength(1);
  });
});

test('a surplus droplet whose DELETE is answered 404 while the list shows it keeps the saga from completing', async () => {
  const bench = await openBench({ settings: { adoptionGraceMs: 20_000 } });
  const gone = { status: 404, body: { id: 'not_found', message: 'The resource you were accessing could not be found.' } };
  bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { reset: true } }, { match: { method: 'DELETE' }, effect: gone }] });
  const saga = await bench.provision();
  for (let made = 0; made < 3; made += 1) bench.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsFor(saga) });
  await bench.drive(saga.id, at('register_droplet'));
  for (let look = 0; look < 3; look += 1) await bench.step(saga.id);
  expect([(await bench.saga(saga.id)).status, alive(bench.sandbox).length]).toEqual(['running', 3]);
  bench.sandbox.resetFaults();
  expect((await bench.drive(saga.id)).status).toBe('completed');
  expect(alive(bench.sandbox)).toHaveLength(1);
});

test('where more than one create was sent, surplus droplets are looked for until the whole grace since the last is over', async () => {
  const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
  bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { reset: true } }] });
  const saga = await bench.provision();
  await bench.step(saga.id);
  await bench.ageCreate(saga.id, 1.01 * HOUR_MS);
  await bench.drive(saga.id, at('register_droplet'));
  await bench.ageCreate(saga.id, 0.99 * HOUR_MS);
  await bench.step(saga.id);
  expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', context: { create_intents: 2 } });
  await bench.ageCreate(saga.id, 1.01 * HOUR_MS);
  expect((await bench.drive(saga.id)).status).toBe('completed');
});

describe('what it refuses', () => {
  test('a droplet that is gone by now ends the saga rolled back', async () => {
    const { bench, saga, dropletId } = await registering();
    bench.sandbox.editDroplet(dropletId, { vanish: true });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_gone', step: 'register_droplet' } });
    expect(await bench.inventory()).toEqual([]);
  });

  test('a 404 for a moment is no reason to roll back', async () => {
    const { bench, saga } = await registering();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET' }, times: 1, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test("a droplet with another saga's id on it is not registered", async () => {
    const { bench, saga, dropletId } = await registering();
    bench.sandbox.editDroplet(dropletId, { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] });
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'compensating', error: { code: 'droplet_not_ours' } });
    expect(await bench.inventory()).toEqual([]);
  });

  test("a droplet that another saga registered is not registered again: it stays the other's", async () => {
    const { bench, saga, dropletId } = await registering();
    const other = '00000000-0000-4000-8000-000000000000';
    await bench.db.sql`
      with resource as (
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, status)
        values ('digitalocean', ${String(dropletId)}, 'droplet', 'web-1', 'active') returning id
      )
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id) select id, '{}', ${`saga:${other}`}, ${other} from resource`;
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'compensating', error: { code: 'droplet_not_ours' } });
    expect((await bench.inventory()).map((row) => [row.provisionedBy, row.spec])).toEqual([[`saga:${other}`, {}]]);
  });
});

describe('a worker that was left behind', () => {
  test('writes nothing: neither a row of the inventory nor what was asked for', async () => {
    const { bench, saga, dropletId } = await registering();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, times: 1, effect: { holdAnswerMs: 400 } }] });
    const slow = bench.redeliver(saga.id, saga.revision);
    await bench.cancel(saga.id);
    expect(await slow).toMatchObject({ kind: 'next', job: { direction: 'backward', step: 'register_droplet' } });
    expect(await bench.inventory()).toEqual([]);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(await bench.inventory()).toEqual([]);
  });
});

describe('undone', () => {
  test('when it had written its rows: what was asked for is gone, and the resource counts as deleted', async () => {
    const { bench, saga, dropletId } = await registering();
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    expect(await bench.inventory()).toHaveLength(1);
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    const [row] = await bench.inventory();
    expect(row).toMatchObject({ providerId: String(dropletId), provisionedBy: null, deletedAt: expect.any(Date) });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('when it never ran: there is nothing to take back', async () => {
    const { bench, saga } = await registering();
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect([await bench.inventory(), alive(bench.sandbox)]).toEqual([[], []]);
  });

  test('twice: a worker that died after it took the rows back is followed by one that finds nothing', async () => {
    const { bench, saga } = await registering();
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    await bench.cancel(saga.id);
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    const [before] = await bench.inventory();
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    const [after] = await bench.inventory();
    expect(after).toMatchObject({ provisionedBy: null, deletedAt: before?.deletedAt });
  });

  test("leaves the rows of other sagas alone", async () => {
    const bench = await openBench();
    const kept = await bench.drive((await bench.provision({ name: 'kept' })).id);
    const saga = await bench.provision();
    await bench.drive(saga.id, at('register_droplet'));
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    await bench.cancel(saga.id);
    await bench.drive(saga.id);
    const rows = (await bench.inventory()).filter((row) => row.deletedAt === null);
    expect(rows.map((row) => [row.name, row.provisionedBy])).toEqual([['kept', `saga:${kept.id}`]]);
  });
});
