// destroy_droplet: what arcadia-cloud provisioned is destroyed, and nothing else.

import { describe, expect, test } from 'vitest';
import type { Faults } from '../../src/do/sandbox/server.ts';
import type { BenchOptions } from './bench.ts';
import { alive, idsOf, policy, requests, stepToDeath, useBench } from './bench.ts';

const openBench = useBench();

async function provisioned(options: BenchOptions = {}) {
  const bench = await openBench(options);
  const provisioner = await bench.drive((await bench.provision()).id);
  const dropletId = Number(provisioner.context['droplet_id']);
  return { bench, provisioner, dropletId, saga: await bench.destroy(dropletId) };
}

test('destroys the droplet and marks its row deleted', async () => {
  const { bench, saga, dropletId } = await provisioned();
  const after = await bench.drive(saga.id);
  expect(after).toMatchObject({ status: 'completed', context: { droplet_id: dropletId } });
  expect(alive(bench.sandbox)).toEqual([]);
  expect(await bench.inventory()).toMatchObject([{ providerId: String(dropletId), deletedAt: expect.any(Date) }]);
  const [desired] = await bench.db.sql<{ releasedAt: Date | null }[]>`select released_at from arcadia.cloud_provisioned`;
  expect(desired?.releasedAt).toBeInstanceOf(Date);
});

test('makes sure that the droplet is gone before it says so', async () => {
  const { bench, saga, dropletId } = await provisioned();
  bench.sandbox.clearLedger();
  await bench.drive(saga.id);
  expect(bench.sandbox.ledger().map((entry) => [entry.method, entry.path, entry.status])).toEqual([
    ['GET', `/v2/droplets/${dropletId}`, 200],
    ['DELETE', `/v2/droplets/${dropletId}`, 204],
    ['GET', `/v2/droplets/${dropletId}`, 404],
  ]);
});

test('a droplet that is gone already counts as destroyed, and its row is marked', async () => {
  const { bench, saga, dropletId } = await provisioned();
  bench.sandbox.editDroplet(dropletId, { vanish: true });
  expect((await bench.drive(saga.id)).status).toBe('completed');
  expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
  expect(await bench.inventory()).toMatchObject([{ deletedAt: expect.any(Date) }]);
});

describe('what is not ours', () => {
  test('a droplet that nobody provisioned here is left alone, and the error says why', async () => {
    const bench = await openBench();
    const { id } = bench.sandbox.addForeignDroplet({ name: 'theirs', tags: ['managed-by-arcadia-cloud'] });
    const after = await bench.drive((await bench.destroy(id)).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours', retryable: false } });
    expect(after.error?.message).toContain(`droplet ${id}`);
    expect(after.error?.message).toContain('left alone');
    expect(idsOf(alive(bench.sandbox))).toEqual([id]);
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
  });

  test('a droplet whose id is on record but whose tag names another saga is left alone', async () => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
    expect(await bench.inventory()).toMatchObject([{ deletedAt: null }]);
  });

  test('a droplet that was there and is in no inventory, and is gone, ends the saga well', async () => {
    const bench = await openBench();
    expect((await bench.drive((await bench.destroy(987_654_321)).id)).status).toBe('completed');
    expect(await bench.inventory()).toEqual([]);
  });
});

describe('a DELETE that does not take', () => {
  const early: [string, Partial<Faults>][] = [
    ['422 "pending event"', { earlyDelete: '422' }],
    ['204, and the droplet lives on', { earlyDelete: 'ignored' }],
  ];
  test.each(early)('%s: it is made again until a GET says 404', async (_title, faults) => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { status: 'new' });
    bench.sandbox.setFaults(faults);
    await bench.step(saga.id);
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 2 });
    expect([idsOf(alive(bench.sandbox)), (await bench.inventory())[0]?.deletedAt]).toEqual([[dropletId], null]);
    bench.sandbox.editDroplet(dropletId, { status: 'active' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('and never does: the saga ends with the reason, and the row stays as it is', async () => {
    const { bench, saga } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked.' } } }] });
    const after = await bench.drive(saga.id);
    expect(after.status).toBe('compensated');
    expect(after.error?.message).toContain('Droplet is locked.');
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(policy.stepAttempts);
    expect(await bench.inventory()).toMatchObject([{ deletedAt: null }]);
  });

  test('an answer that was lost: it is made again', async () => {
    const { bench, saga } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, times: 1, effect: { lostAnswer: true } }] });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });
});

describe('run again and undone', () => {
  test('two workers at once destroy it once, and both come to the same result', async () => {
    const { bench, saga } = await provisioned();
    await Promise.all([bench.step(saga.id, { name: 'a' }), bench.step(saga.id, { name: 'b' })]);
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test.each(['sql inventory.mark_destroyed', 'sql store.commit'])('a worker that died before its "%s" is followed by one that finishes', async (fatal) => {
    const { bench, saga } = await provisioned();
    await bench.ask(saga.id, { kind: 'started' });
    await stepToDeath(bench, saga.id, fatal, 'before');
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(await bench.inventory()).toMatchObject([{ deletedAt: expect.any(Date) }]);
  });

  test('a second saga for the same droplet finds it done', async () => {
    const { bench, saga, dropletId } = await provisioned();
    await bench.drive(saga.id);
    expect((await bench.drive((await bench.destroy(dropletId)).id)).status).toBe('completed');
  });

  test('cancelled before it ran: the droplet lives', async () => {
    const { bench, saga, dropletId } = await provisioned();
    await bench.ask(saga.id, { kind: 'started' });
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
  });

  test('cancelled after the DELETE: it is not undone, twice over, and the timeline says so', async () => {
    const { bench, saga } = await provisioned();
    await bench.ask(saga.id, { kind: 'started' });
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    await bench.cancel(saga.id);
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.events(saga.id)).at(-1)?.detail['note']).toContain('irreversible');
  });

  test('a worker that was left behind marks nothing', async () => {
    const { bench, saga, dropletId } = await provisioned();
    await bench.ask(saga.id, { kind: 'started' });
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, times: 1, effect: { delayMs: 400, status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    const slow = bench.step(saga.id);
    await bench.cancel(saga.id);
    await slow;
    expect(await bench.inventory()).toMatchObject([{ deletedAt: null }]);
  });
});
