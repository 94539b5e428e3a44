// Destroy protection: a protected droplet is not destroyed, whoever asks and however, until somebody lifts that.

import { describe, expect, test } from 'vitest';
import { setProtection } from '../../src/inventory/protection.ts';
import { startSaga } from '../../src/saga/start.ts';
import { catalog } from '../../src/steps/catalog.ts';
import type { BenchOptions } from './stage.ts';
import { alive, at, idsOf, mortalAt, requests, useStepStage } from './stage.ts';

const openBench = useStepStage();

async function provisioned(options: BenchOptions = {}, input = { protected: true }) {
  const bench = await openBench(options);
  const provisioner = await bench.drive((await bench.provision(input)).id);
  const dropletId = Number(provisioner.context['droplet_id']);
  const protect = (isProtected: boolean, by: string | null = 'cli:ada') => setProtection(bench.db, dropletId, { protected: isProtected, by });
  return { bench, provisioner, dropletId, protect };
}

const lift = async (id: number, bench: Awaited<ReturnType<typeof openBench>>) => bench.db.sql`update arcadia.cloud_provisioned set protected = false where resource_id = (select id from arcadia.cloud_resources where provider_id = ${String(id)})`;

describe('a protected droplet', () => {
  test('is not destroyed on request: the start is refused, and says how to lift the protection', async () => {
    const { bench, dropletId } = await provisioned();
    await expect(bench.destroy(dropletId)).rejects.toMatchObject({ name: 'StartRefusedError', code: 'droplet_protected', message: expect.stringContaining(`arcadia unprotect ${dropletId}`) });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
    expect(await bench.inventory()).toMatchObject([{ providerId: String(dropletId), protected: true }]);
  });

  test('is asked for without the field, which is ours', async () => {
    const { bench, dropletId } = await provisioned({ faults: { rules: [{ match: { method: 'POST', field: 'protected' }, effect: { status: 422 } }] } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
  });

  test('is not destroyed by a saga that was started before it was protected: that saga is stuck, and says why; a retry after the lift goes on', async () => {
    const { bench, dropletId, protect } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    // As a call whose transaction was committed after the check of the start.
    await bench.db.sql`update arcadia.cloud_provisioned set protected = true`;
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'stuck', attempt: 1, error: { code: 'droplet_protected', direction: 'forward', message: expect.stringContaining(`arcadia unprotect ${dropletId}`) } });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
    expect(await protect(false)).toEqual({ dropletId, protected: false, changed: true });
    await bench.ask(saga.id, { kind: 'retry_requested', by: 'test' });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('survives the cancel of the saga that was refused', async () => {
    const { bench, dropletId } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    await bench.db.sql`update arcadia.cloud_provisioned set protected = true`;
    await bench.drive(saga.id);
    await bench.cancel(saga.id);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', context: { destroy_result: 'not_destroyed' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
  });

  test('is looked up right before the DELETE, after all else', async () => {
    const { bench, dropletId } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    const names: string[] = [];
    await bench.step(saga.id, { io: async (kind, name, operation) => (names.push(`${kind} ${name}`), operation()) });
    expect(names[names.indexOf('http DELETE /v2/droplets/{id}') - 1]).toBe('sql inventory.protection');
  });

  test('that DigitalOcean says 404 of gets no DELETE either', async () => {
    const { bench, dropletId } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    await bench.db.sql`update arcadia.cloud_provisioned set protected = true`;
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'stuck', error: { code: 'droplet_protected' } });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
  });

  test('is destroyed by the rollback of a provision that never completed: protection begins with the registration', async () => {
    const bench = await openBench({ faults: { neverActive: true } });
    const after = await bench.drive((await bench.provision({ protected: true })).id);
    expect(after.status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('stays as people have set it when its registration is written twice', async () => {
    const bench = await openBench();
    const saga = await bench.provision({ protected: true });
    await bench.drive(saga.id, at('register_droplet'));
    await bench.step(saga.id, { io: mortalAt('sql inventory.register', 'after') }).catch(() => undefined);
    const [row] = await bench.inventory();
    await lift(Number(row?.providerId), bench);
    await bench.drive(saga.id);
    expect(await bench.inventory()).toMatchObject([{ protected: false }]);
  });
});

describe('setting protection', () => {
  test('is audited with who did it, once for each change', async () => {
    const { bench, provisioner, dropletId, protect } = await provisioned();
    await bench.db.sql`truncate arcadia.audit`;
    expect(await protect(true)).toEqual({ dropletId, protected: true, changed: false });
    expect(await protect(false)).toEqual({ dropletId, protected: false, changed: true });
    expect(await protect(true, null)).toEqual({ dropletId, protected: true, changed: true });
    const rows = await bench.db.sql`select actor, action, saga_id, detail from arcadia.audit order by id`;
    expect(rows).toMatchObject([
      { actor: 'cli:ada', action: 'droplet_unprotected', sagaId: provisioner.id, detail: { droplet_id: dropletId } },
      { actor: expect.stringMatching(/^sql:/), action: 'droplet_protected' },
    ]);
  });

  test('fails for a droplet that is not on record, and for one that is destroyed', async () => {
    const { bench, dropletId, protect } = await provisioned({}, { protected: false });
    await expect(setProtection(bench.db, 4_711, { protected: true, by: null })).rejects.toMatchObject({ code: 'droplet_unknown' });
    await bench.drive((await bench.destroy(dropletId)).id);
    await expect(protect(true)).rejects.toMatchObject({ code: 'droplet_unknown' });
  });

  test('comes too late while a saga destroys the droplet, and names the saga; lifting is never too late', async () => {
    const { bench, dropletId, protect } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    await expect(protect(true)).rejects.toMatchObject({ code: 'droplet_being_destroyed', message: expect.stringContaining(saga.id) });
    expect(await protect(false)).toMatchObject({ changed: false });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed' });
  });

  test('comes too late once DigitalOcean has accepted the deletion, though the saga was cancelled and the droplet is still there', async () => {
    const { bench, dropletId, protect } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 204 } }] });
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', context: { destroy_result: 'not_destroyed' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
    await expect(protect(true)).rejects.toMatchObject({ code: 'droplet_being_destroyed', message: expect.stringContaining(saga.id) });
    expect(await protect(false)).toMatchObject({ changed: false });
  });

  test('and destroying race: a call that is not committed yet is waited for, and wins', async () => {
    const { bench, dropletId } = await provisioned({}, { protected: false });
    const saga = await bench.destroy(dropletId);
    const connection = await bench.db.sql.reserve();
    await connection`begin`;
    await connection`update arcadia.cloud_provisioned set protected = true`;
    const stepped = bench.step(saga.id);
    await expect.poll(async () => (await bench.db.sql`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`).length).toBeGreaterThan(0);
    await connection`commit`;
    connection.release();
    await stepped;
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'stuck', error: { code: 'droplet_protected' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
  });
});

describe('a start by SQL', () => {
  test('is refused with SG423, but for a repeated one, which finds its saga', async () => {
    const { bench, dropletId } = await provisioned({}, { protected: false });
    const start = async () => (await bench.db.sql<{ id: string }[]>`select arcadia.start_saga('destroy_droplet', jsonb_build_object('droplet_id', ${String(dropletId)}::text::bigint), 'key-1') as id`)[0]?.id;
    const sagaId = await start();
    await bench.db.sql`update arcadia.cloud_provisioned set protected = true`;
    expect(await start()).toBe(sagaId);
    await bench.db.sql`delete from arcadia.sagas where id = ${String(sagaId)}`;
    await expect(start()).rejects.toMatchObject({ code: 'SG423', message: expect.stringContaining('is protected') });
  });
});

test('a start that is repeated with its idempotency key finds its saga, protected or not', async () => {
  const { bench, dropletId } = await provisioned({}, { protected: false });
  const start = () => startSaga(bench.db, catalog, { name: 'destroy_droplet', input: { droplet_id: dropletId }, idempotencyKey: 'key-1' }, 60_000);
  const { sagaId } = await start();
  await bench.db.sql`update arcadia.cloud_provisioned set protected = true`;
  expect(await start()).toEqual({ sagaId, firstJob: null });
});
