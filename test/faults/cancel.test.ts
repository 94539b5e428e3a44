// Cancelling at any moment: the answer says what will come of the saga, and that is what comes of it.

import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { isAtRest } from '../../src/saga/saga.ts';
import type { ActionResult } from '../../src/saga/cancel-and-retry.ts';
import { openFaultStage } from '../support/fault-stage.ts';

const CANCELS = 200;

/** A small generator with a seed, so that a failure can be had again (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

describe.concurrent('cancel', () => {
  test(`of ${CANCELS} sagas, each at another moment: one outcome each, as answered, and no droplet left`, async () => {
    const seed = Number(process.env['FAULTS_SEED'] ?? 20_260_801);
    const random = seeded(seed);
    await using stage = await openFaultStage({
      // Within it, a create arrives: on a busy machine, the sandbox in this process may read one seconds after it was sent.
      settings: { ADOPTION_GRACE_MS: '6000' },
      sandbox: {
        activateAfterMs: { minMs: 50, maxMs: 600 },
        faults: { latencyMs: { minMs: 0, maxMs: 60 }, tagIndexLagMs: 200, errorRate: 0.03, errorKinds: ['503', 'lost', 'reset', 'truncated'], seed },
      },
    });
    await Promise.all([stage.work(), stage.work()]);
    const answers = new Map<string, ActionResult['kind']>();
    const seconds: [first: ActionResult['kind'], second: ActionResult['kind']][] = [];
    const lives = Array.from({ length: CANCELS }, async (_, at) => {
      await new Promise((resolve) => setTimeout(resolve, at * 15));
      const sagaId = await stage.provision(`web-${at}`);
      await new Promise((resolve) => setTimeout(resolve, random() ** 2 * 4_000));
      // However slow the machine is, some are cancelled when they have ended.
      if (at % 20 === 0) await stage.until(sagaId, 'at its end', ({ status }) => isAtRest(status));
      const first = await stage.client.cancel(sagaId, 'test', `moment ${at}`);
      answers.set(sagaId, first.kind);
      if (random() < 0.3) seconds.push([first.kind, (await stage.client.cancel(sagaId, 'test')).kind]);
    });
    await Promise.all(lives);
    // 200 sagas beside three other files on two cores.
    const sagas = await stage.atRest(90_000);
    const contradictions = sagas.filter(({ id, status, error }) => {
      if (status === 'completed') return answers.get(id) !== 'refused';
      // One that failed by itself before it was cancelled was being rolled back already.
      return status !== 'compensated' || answers.get(id) !== (error?.code === 'cancelled' ? 'accepted' : 'already');
    });
    expect(contradictions.map(({ id, status, error }) => ({ id, status, error, answer: answers.get(id) })), `seed ${seed}`).toEqual([]);
    await stage.expectLawful();
    const completed = sagas.filter(({ status }) => status === 'completed').length;
    expect(stage.sandbox.state({ alive: true })).toHaveLength(completed);
    // Both ends of the race were seen, and the second cancel too.
    expect(completed).toBeGreaterThan(5);
    expect(CANCELS - completed).toBeGreaterThan(50);
    expect(seconds.length).toBeGreaterThan(30);
    expect(seconds.filter(([first, second]) => second !== (first === 'accepted' ? 'already' : first))).toEqual([]);
  });

  test('asked twice, and during the rollback: it is under way already', async () => {
    await using stage = await openFaultStage({ sandbox: { faults: { neverActive: true } } });
    await stage.work();
    const sagaId = await stage.provision('web-1');
    await stage.until(sagaId, 'waiting', ({ cursor }) => cursor === 1);
    stage.sandbox.setFaults({ down: true });
    expect((await stage.client.cancel(sagaId, 'test')).kind).toBe('accepted');
    expect((await stage.client.cancel(sagaId, 'test')).kind).toBe('already');
    await stage.until(sagaId, 'at the create', ({ status, cursor }) => status === 'compensating' && cursor === 0);
    expect((await stage.client.cancel(sagaId, 'test')).kind).toBe('already');
    stage.sandbox.setFaults({ down: false });
    await stage.atRest();
    expect((await stage.client.cancel(sagaId, 'test')).kind).toBe('already');
    const events = await stage.client.events(sagaId);
    expect(events.filter(({ kind }) => kind === 'cancel_requested')).toHaveLength(1);
    await stage.expectLawful();
  });

  test('of a saga that is completed is refused, of one that no worker has seen it ends it at once, of an unknown one there is nothing', async () => {
    await using stage = await openFaultStage();
    const pending = await stage.provision('web-0');
    expect(await stage.client.cancel(pending, 'test')).toMatchObject({ kind: 'accepted', saga: { status: 'compensated' }, next: null });
    await stage.work();
    const sagaId = await stage.provision('web-1');
    await stage.until(sagaId, 'completed', ({ status }) => status === 'completed');
    expect(await stage.client.cancel(sagaId, 'test')).toMatchObject({ kind: 'refused', why: 'the saga is already completed' });
    expect(await stage.client.cancel(randomUUID(), 'test')).toEqual({ kind: 'not_found' });
    await stage.atRest();
    expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(1);
    await stage.expectLawful();
  });
});
