// A worker may die at every I/O there is, before it or after it. Whoever comes next brings the saga to its end: with the
// one droplet that it registered, or with none.

import { describe, expect, test } from 'vitest';
import type { Bench } from './bench.ts';
import { alive, at, idsOf, mortal, posts, stepToDeath, useBench } from './bench.ts';

const openBench = useBench();
const settings = { adoptionGraceMs: 150 };
const moments = ['before', 'after'] as const;

/** Runs jobs with one worker until it dies, or the saga is at rest; says whether it died. */
async function runMortal(bench: Bench, sagaId: string, worker: ReturnType<typeof mortal>): Promise<boolean> {
  for (;;) {
    const { status } = await bench.saga(sagaId);
    if (status === 'completed' || status === 'compensated') return false;
    try {
      await bench.step(sagaId, { io: worker.io });
    } catch {
      return true;
    }
  }
}

/** The saga's events are numbered without a gap, up to its revision. */
async function expectGapless(bench: Bench, sagaId: string): Promise<void> {
  const { revision } = await bench.saga(sagaId);
  expect((await bench.events(sagaId)).map((event) => event.seq)).toEqual(Array.from({ length: revision + 1 }, (_, seq) => seq));
}

describe('provision_droplet', () => {
  test('a death at any I/O: one POST, one droplet, one row', async () => {
    const bench = await openBench({ settings });
    const whole = mortal();
    await runMortal(bench, (await bench.provision({ name: 'whole' })).id, whole);
    expect(whole.count()).toBeGreaterThan(10);
    let deaths = 1;
    for (let number = 1; number <= whole.count(); number += 1) {
      for (const when of moments) {
        const saga = await bench.provision({ name: `web-${number}-${when}` });
        expect(await runMortal(bench, saga.id, mortal(number, when))).toBe(true);
        deaths += 1;
        const after = await bench.drive(saga.id);
        const place = `${when} I/O ${number}, ${whole.names[number - 1]}`;
        const made = idsOf(bench.sandbox.state({ name: `web-${number}-${when}` }));
        expect({ place, status: after.status, made }).toEqual({ place, status: 'completed', made: [after.context['droplet_id']] });
        await expectGapless(bench, saga.id);
      }
    }
    expect(posts(bench.sandbox)).toBe(deaths);
    const rows = await bench.inventory();
    expect(rows.filter((row) => row.status === 'active' && row.provisionedBy !== null)).toHaveLength(deaths);
  });

  test('a death at any I/O of a rollback: no droplet, nothing registered', async () => {
    const bench = await openBench({ settings });
    const cancelled = async (name: string) => {
      const saga = await bench.provision({ name });
      await bench.drive(saga.id, at('register_droplet'));
      // The rows of the last step are written, and its end is not.
      await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
      return bench.cancel(saga.id);
    };
    const whole = mortal();
    await runMortal(bench, (await cancelled('whole')).id, whole);
    expect(whole.names).toContain('sql inventory.unregister');
    expect(whole.names).toContain('http DELETE /v2/droplets/{id}');
    for (let number = 1; number <= whole.count(); number += 1) {
      for (const when of moments) {
        const saga = await cancelled(`web-${number}-${when}`);
        expect(await runMortal(bench, saga.id, mortal(number, when))).toBe(true);
        expect((await bench.drive(saga.id)).status).toBe('compensated');
        await expectGapless(bench, saga.id);
      }
    }
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.inventory()).filter((row) => row.deletedAt === null || row.provisionedBy !== null)).toEqual([]);
  });
});

describe('destroy_droplet', () => {
  test('a death at any I/O: the droplet is gone and its row says so', async () => {
    const bench = await openBench({ settings });
    const destroying = async (name: string) => {
      const { context } = await bench.drive((await bench.provision({ name })).id);
      return bench.destroy(Number(context['droplet_id']));
    };
    const whole = mortal();
    await runMortal(bench, (await destroying('whole')).id, whole);
    for (let number = 1; number <= whole.count(); number += 1) {
      for (const when of moments) {
        const saga = await destroying(`web-${number}-${when}`);
        expect(await runMortal(bench, saga.id, mortal(number, when))).toBe(true);
        expect((await bench.drive(saga.id)).status).toBe('completed');
        await expectGapless(bench, saga.id);
      }
    }
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.inventory()).filter((row) => row.deletedAt === null)).toEqual([]);
  });
});
