// destroy_droplet: what arcadia-cloud provisioned is destroyed, and nothing else.

import { describe, expect, test } from 'vitest';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { toStepOutcome } from '../../src/steps/failures.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { destroyDropletOutputs } from '../../src/steps/outputs.ts';
import { surfaceOf } from '../../src/saga/words.ts';
import { decide } from '../../src/saga/transition.ts';
import type { Faults } from '../../src/sandbox/server.ts';
import type { BenchOptions } from './stage.ts';
import { alive, idsOf, policy, requests, stepToDeath, tagsFor, useStepStage } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;

async function provisioned(options: BenchOptions = {}) {
  const bench = await openBench(options);
  const provisioner = await bench.drive((await bench.provision()).id);
  const dropletId = Number(provisioner.context['droplet_id']);
  return { bench, provisioner, dropletId, saga: await bench.destroy(dropletId) };
}

const reads = (bench: Awaited<ReturnType<typeof provisioned>>['bench']) => requests(bench.sandbox, 'GET /v2/droplets/:id/destroy_with_associated_resources');

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
    ['GET', `/v2/droplets/${dropletId}/destroy_with_associated_resources`, 200],
    ['DELETE', `/v2/droplets/${dropletId}`, 204],
    ['GET', `/v2/droplets/${dropletId}`, 404],
  ]);
});

describe('what stays billed', () => {
  const associated = {
    volumes: [{ id: 'v-1', name: 'data', cost: '10.00' }],
    volume_snapshots: [{ id: 's-1', name: 'data-monday', cost: '0.50' }],
    reserved_ips: [{ id: '7', name: '203.0.113.7', cost: '5.00' }],
  };

  test('is in the outcome, in the timeline and in the words of the end', async () => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { associated });
    const after = await bench.drive(saga.id);
    expect(after.context['still_billed']).toEqual([
      { kind: 'volume', id: 'v-1', name: 'data', usd_per_month: 10 },
      { kind: 'volume_snapshot', id: 's-1', name: 'data-monday', usd_per_month: 0.5 },
      { kind: 'reserved_ip', id: '7', name: '203.0.113.7', usd_per_month: 5 },
    ]);
    const said = 'still billed: volume data (10.00 USD a month), snapshot of a volume data-monday (0.50 USD a month), reserved IP 203.0.113.7 (5.00 USD a month)';
    expect((await bench.events(saga.id)).at(-1)?.detail['note']).toBe(`droplet ${dropletId} destroyed; ${said}`);
    const words = surfaceOf(catalog).words(after);
    expect(words.completed(after)).toBe(`Droplet ${dropletId} is destroyed. S${said.slice(1)}.`);
    expect(words.outputs?.(after).values).toHaveLength(3);
    expect(destroyDropletOutputs.parse(after.context).still_billed).toHaveLength(3);
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('is nothing, where nothing belongs to the droplet', async () => {
    const { bench, saga, dropletId } = await provisioned();
    const after = await bench.drive(saga.id);
    expect([after.context['still_billed'], surfaceOf(catalog).words(after).completed(after)]).toEqual([[], `Droplet ${dropletId} is destroyed.`]);
  });

  test.each([{ status: 500 }, { status: 403, body: { id: 'forbidden', message: 'no' } }, { status: 404 }, { hang: true }, { status: 200, body: { volumes: 'odd' } }, { html: 502 }] as const)('that cannot be read (%j) keeps no droplet from being destroyed', async (effect) => {
    const { bench, saga, dropletId } = await provisioned({ timeoutMs: 500 });
    bench.sandbox.setFaults({ rules: [{ match: { path: `/v2/droplets/${dropletId}/destroy_with_associated_resources` }, effect }] });
    const after = await bench.drive(saga.id);
    expect([after.status, after.attempt, alive(bench.sandbox), reads(bench)]).toEqual(['completed', 0, [], 1]);
    const isSaid = surfaceOf(catalog).words(after).completed(after).includes('What stays billed could not be read');
    expect(isSaid).toBe(!('body' in effect && effect.status === 200) && !('status' in effect && effect.status === 404));
  });

  test('is read once, however long the deletion is refused or takes', async () => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { associated });
    bench.sandbox.setFaults({ goneLagMs: 200, rules: [{ match: { method: 'DELETE' }, times: 2, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet already has a pending event.' } } }] });
    const after = await bench.drive(saga.id);
    expect([after.status, reads(bench), after.context['still_billed']]).toEqual(['completed', 1, expect.objectContaining({ length: 3 })]);
  });
});

test('a droplet that is gone already counts as destroyed, and its row is marked', async () => {
  const { bench, saga, dropletId } = await provisioned();
  bench.sandbox.editDroplet(dropletId, { vanish: true });
  expect((await bench.drive(saga.id)).status).toBe('completed');
  expect(await bench.saga(saga.id)).toMatchObject({ context: { destroy_result: 'already_gone' } });
  expect(await bench.inventory()).toMatchObject([{ deletedAt: expect.any(Date) }]);
});

describe('a 404 of a droplet that was there a moment ago', () => {
  test('is no proof: the DELETE is sent all the same', async () => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, times: 1, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('nor is a DELETE that says so too: the droplet is looked for until the grace since it was last seen is over', async () => {
    const { bench, saga, dropletId } = await provisioned({ settings: { adoptionGraceMs: 20_000 } });
    bench.sandbox.setFaults({ rules: [{ match: { path: `/v2/droplets/${dropletId}` }, times: 3, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    await bench.step(saga.id);
    expect((await bench.saga(saga.id)).status).toBe('running');
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(bench.sandbox)).toEqual([]);
    // One that the stale answers refused, and one that took.
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(2);
  });

  test('is believed when the whole grace since it was last seen is over', async () => {
    const { bench, saga, dropletId } = await provisioned({ settings: { adoptionGraceMs: HOUR_MS } });
    const lastSeen = async (agoMs: number) => bench.db.sql`update arcadia.cloud_resources set last_seen_at = clock_timestamp() - ${agoMs}::double precision * interval '1 millisecond'`;
    bench.sandbox.editDroplet(dropletId, { vanish: true });
    await lastSeen(0.99 * HOUR_MS);
    for (let look = 0; look < 3; look += 1) await bench.step(saga.id);
    expect((await bench.saga(saga.id)).status).toBe('running');
    await lastSeen(1.01 * HOUR_MS);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'already_gone' } });
  });

  test('a DELETE that says 404 of a droplet that a GET shows is made again', async () => {
    const { bench, saga } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, times: 1, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } }] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });
});

describe('what is not ours', () => {
  test('a droplet that nobody provisioned here is left alone, and the error says why', async () => {
    const bench = await openBench();
    const { id } = bench.sandbox.addForeignDroplet({ name: 'theirs', tags: ['managed-by-arcadia-cloud'] });
    const after = await bench.drive((await bench.destroy(id)).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours', retryable: false } });
    expect(after.error?.message).toMatch(new RegExp(`^droplet ${id} was neither provisioned nor adopted by this arcadia-cloud .*left alone$`));
    expect(idsOf(alive(bench.sandbox))).toEqual([id]);
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
  });

  const otherTag = 'arcadia-saga-id-0000000a-0000-4000-8000-000000000000';
  test.each([otherTag, otherTag.toUpperCase()])('a droplet whose id is on record but that carries the tag %s of another saga is left alone', async (tag) => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { tags: [tag] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
    expect(await bench.inventory()).toMatchObject([{ deletedAt: null }]);
  });

  test('a droplet whose own tags are in capitals is destroyed', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    // The spelling of a tag's first use stays.
    const capitals = tagsFor(saga).map((tag) => tag.toUpperCase());
    const first = bench.sandbox.addForeignDroplet({ name: 'first', tags: capitals }).id;
    bench.sandbox.editDroplet(first, { vanish: true });
    const provisioner = await bench.drive(saga.id);
    expect(alive(bench.sandbox)[0]?.tags).toEqual(expect.arrayContaining(capitals));
    const destroying = await bench.destroy(Number(provisioner.context['droplet_id']));
    expect((await bench.drive(destroying.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('an id that never was is refused, and nothing says that it was destroyed', async () => {
    const bench = await openBench();
    const after = await bench.drive((await bench.destroy(987_654_321)).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_unknown' }, context: { destroy_result: 'not_destroyed' } });
    expect(after.error?.message).toContain('no droplet 987654321');
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
    expect(await bench.inventory()).toEqual([]);
  });
});

describe('a DELETE that does not take', () => {
  const early: [string, Partial<Faults>, object][] = [
    ['422 "pending event"', { earlyDelete: '422' }, { status: 'running', attempt: 2 }],
    ['204, and the droplet lives on', { earlyDelete: 'ignored' }, { status: 'running', attempt: 0 }],
  ];
  test.each(early)('%s: it is made again until a GET says 404', async (_title, faults, meanwhile) => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.editDroplet(dropletId, { status: 'new' });
    bench.sandbox.setFaults(faults);
    await bench.step(saga.id);
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject(meanwhile);
    expect([idsOf(alive(bench.sandbox)), (await bench.inventory())[0]?.deletedAt]).toEqual([[dropletId], null]);
    bench.sandbox.editDroplet(dropletId, { status: 'active' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('204, and the droplet takes its time: one DELETE, then looks, and no attempt is used', async () => {
    const { bench, saga, dropletId } = await provisioned({ settings: { deleteAgainAfterMs: 20_000 } });
    bench.sandbox.editDroplet(dropletId, { status: 'new' });
    bench.sandbox.setFaults({ earlyDelete: 'ignored' });
    bench.sandbox.clearLedger();
    for (let look = 0; look < 6; look += 1) await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0 });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(1);
    expect(await bench.history(saga.id)).toEqual(['saga_created', 'saga_started', 'step_recorded']);
    bench.sandbox.editDroplet(dropletId, { vanish: true });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(1);
    expect(await bench.inventory()).toMatchObject([{ deletedAt: expect.any(Date) }]);
  });

  test('204, and the droplet never goes: after many deletions, further and further apart, a person is asked for', async () => {
    const { bench, saga, dropletId } = await provisioned({ settings: { deleteAgainAfterMs: 30, maxDeletes: 3 } });
    bench.sandbox.editDroplet(dropletId, { status: 'new' });
    bench.sandbox.setFaults({ earlyDelete: 'ignored' });
    bench.sandbox.clearLedger();
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'stuck', error: { code: 'droplet_still_there', direction: 'forward' } });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(3);
    bench.sandbox.resetFaults();
    await bench.ask(saga.id, { kind: 'retry_requested', by: 'test' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('and never does: the saga is stuck with the reason after as many attempts as a compensation has, and a retry resumes it', async () => {
    const { bench, saga } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked.' } } }] });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'stuck', attempt: policy.compensationAttempts, error: { direction: 'forward', message: expect.stringContaining('Droplet is locked.') } });
    expect((await bench.events(saga.id)).at(-1)).toMatchObject({ kind: 'step_stuck', detail: { message: expect.stringContaining('Droplet is locked.') } });
    expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(policy.compensationAttempts);
    expect(await bench.inventory()).toMatchObject([{ deletedAt: null }]);
    bench.sandbox.resetFaults();
    expect(await bench.ask(saga.id, { kind: 'retry_requested', by: 'test' })).toMatchObject({ status: 'running', attempt: 0, error: null });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('and is given up by a person: the saga says that the droplet is still there', async () => {
    const { bench, saga, dropletId } = await provisioned();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked.' } } }] });
    await bench.drive(saga.id);
    await bench.cancel(saga.id);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'cancelled' }, context: { destroy_result: 'not_destroyed' } });
    expect(idsOf(alive(bench.sandbox))).toEqual([dropletId]);
  });

  test('is tried again after more and more time: for hours before a person is asked for', async () => {
    const { bench, saga } = await provisioned();
    const locked = new DigitalOceanError('Droplet is locked.', { kind: 'later', code: 'unprocessable_entity', status: 422, requestId: null, retryAfterMs: null, method: 'DELETE', path: '/v2/droplets/1' });
    const failure = toStepOutcome(locked, 'backward', {});
    if (failure?.kind !== 'failed') throw new Error('expected a failure');
    await bench.ask(saga.id, { kind: 'started' });
    const production = { stepAttempts: 5, stepBackoffMs: 1_000, compensationAttempts: 20 };
    let at = await bench.saga(saga.id);
    let totalMs = 0;
    while (at.status === 'running') {
      const decision = decide(at, { ...failure, forwardOnly: true }, production, 0.5);
      if ('refused' in decision) throw new Error(decision.refused);
      totalMs += decision.next?.delayMs ?? 0;
      at = decision.saga;
    }
    expect(at).toMatchObject({ status: 'stuck', attempt: 20 });
    expect(totalMs).toBeGreaterThan(2 * 3_600_000);
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
    expect((await bench.events(saga.id)).at(-1)?.detail['note']).toContain('the cancel came too late');
    expect(await bench.inventory()).toMatchObject([{ deletedAt: expect.any(Date) }]);
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
