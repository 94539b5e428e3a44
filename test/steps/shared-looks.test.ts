// What the steps conclude from what somebody else saw of their droplet, and what they do when there is no budget.

import { describe, expect, test } from 'vitest';
import type { Priority, RequestBudget } from '../../src/do/budget.ts';
import { uncounted } from '../../src/do/budget.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { Observation } from '../../src/do/observation-store.ts';
import type { DropletObserver } from '../../src/do/observer.ts';
import { observeSingly } from '../../src/do/observer.ts';
import type { Droplet } from '../../src/do/schemas.ts';
import { alive, at, posts, requests, useStepStage } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;
const GET_DROPLET = 'GET /v2/droplets/:id';
const settings = { pollIntervalMs: 20_000, maxPolls: 2, adoptionGraceMs: HOUR_MS };

/** A bench whose steps are shown, where they take what is not new, what a test says somebody saw. */
async function sharing(activateAfterMs: number) {
  const shown: { change: Partial<Droplet> | null; ageMs: number } = { change: null, ageMs: 3_000 };
  const bench = await openBench({
    activateAfterMs,
    settings,
    observer: (client): DropletObserver => ({
      observe: async (id, how): Promise<Observation> => {
        const look = await observeSingly(client).observe(id, how);
        if (how.maxAgeMs < shown.ageMs || shown.change === null || look.droplet === null) return look;
        return { droplet: { ...look.droplet, ...shown.change }, ageMs: shown.ageMs };
      },
      recall: () => Promise.resolve(null),
    }),
  });
  const saga = await bench.provision();
  await bench.drive(saga.id, at('wait_droplet_active'));
  return { bench, saga, shown };
}

describe('a shared look', () => {
  test('that is too early to tell makes the next one due an interval after it, not after now', async () => {
    const { bench, saga, shown } = await sharing(HOUR_MS);
    shown.change = {};
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 17_000, memo: { polls: 1 } });
    shown.change = null;
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 20_000, memo: { polls: 2 } });
  });

  test.each<[string, Partial<Droplet>]>([
    ['an archived droplet', { status: 'archive' }],
    ["another saga's droplet", { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] }],
  ])('at %s is not believed: the droplet is read again, by itself', async (_what, change) => {
    const { bench, saga, shown } = await sharing(HOUR_MS);
    shown.change = change;
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone' });
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0 });
  });

  test('does not end the wait for good: the last look is one of its own', async () => {
    const { bench, saga, shown } = await sharing(0);
    shown.change = { status: 'new' };
    await bench.step(saga.id);
    await bench.ageStep(saga.id, HOUR_MS);
    await bench.step(saga.id);
    expect(at('register_droplet')(await bench.saga(saga.id))).toBe(true);
  });

  test('at an active droplet is enough to register it; a second attempt reads it anew', async () => {
    const { bench, saga, shown } = await sharing(0);
    shown.change = { vcpus: 7 };
    await bench.drive(saga.id);
    const other = await bench.provision({ name: 'web-2' });
    await bench.drive(other.id, at('register_droplet'));
    await bench.db.sql`update arcadia.sagas set attempt = 1 where id = ${other.id}`;
    await bench.drive(other.id);
    const rows = await bench.inventory();
    expect(Object.fromEntries(rows.map(({ name, attrs }) => [name, attrs['vcpus']]))).toEqual({ 'web-1': 7, 'web-2': 1 });
  });

  test('that speaks against a registration is not believed', async () => {
    const { bench, saga, shown } = await sharing(0);
    await bench.step(saga.id);
    shown.change = { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] };
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });
});

/** A budget that has nothing for these. */
function budgetWithout(...without: Priority[]): { budget: RequestBudget; without: Priority[] } {
  return budgetWithin(9_000, ...without);
}

/** A budget that will have something for these after a while. */
function budgetWithin(retryAfterMs: number, ...without: Priority[]): { budget: RequestBudget; without: Priority[] } {
  const failure = { kind: 'throttled', code: 'request_budget', status: null, requestId: null, retryAfterMs, method: 'GET', path: '/v2/droplets' } as const;
  const budget: RequestBudget = {
    draw: async (priority) => (without.includes(priority) ? Promise.reject(new DigitalOceanError(`no budget for ${priority}`, failure)) : uncounted),
    withdraw: async () => Promise.resolve(),
    answered: () => undefined,
    left: () => null,
  };
  return { budget, without };
}

/** A saga that waits without budget for reads, while a list of a while ago shows its droplet, with a change. */
async function recalling(change: Partial<Droplet>) {
  const { budget } = budgetWithout('read');
  const bench = await openBench({
    budget,
    activateAfterMs: 0,
    observer: (client): DropletObserver => ({
      ...observeSingly(client),
      recall: async (id) => {
        const { droplet } = await observeSingly(client.at('now')).observe(id, { wave: null, maxAgeMs: 0 });
        return droplet === null ? null : { droplet: { ...droplet, ...change }, ageMs: 100_000 };
      },
    }),
  });
  const saga = await bench.provision();
  await bench.drive(saga.id, at('wait_droplet_active'));
  return { bench, saga };
}

describe('without budget', () => {
  test('a create is put off before it is announced: nothing is written, and nothing has to be looked for later', async () => {
    const { budget, without } = budgetWithout('create');
    const bench = await openBench({ budget });
    const saga = await bench.provision();
    await bench.step(saga.id);
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 9_000 });
    expect(await bench.history(saga.id)).toEqual(['saga_created', 'saga_started']);
    expect((await bench.saga(saga.id)).context).toEqual({});
    without.length = 0;
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { create_intents: 1 } });
    expect([posts(bench.sandbox), requests(bench.sandbox, 'GET /v2/droplets?tag_name')]).toEqual([1, 0]);
  });

  test('a create waits as its saga: whose it is, how urgent, and since when; a cancelled one gives its turn up', async () => {
    const { budget } = budgetWithout('create');
    const waiters: unknown[] = [];
    const bench = await openBench({
      budget: {
        ...budget,
        draw: async (priority, request, waiter) => {
          if (priority === 'create') waiters.push(waiter);
          return budget.draw(priority, request, waiter);
        },
        withdraw: async (waiter) => Promise.resolve(void waiters.push({ ...waiter, withdrew: true })),
      },
    });
    const saga = await bench.provision();
    await bench.db.sql`update arcadia.sagas set requested_by = 'http:billing', priority = 'high' where id = ${saga.id}`;
    await bench.step(saga.id);
    const waiter = { id: saga.id, requester: 'http:billing', priority: 'high', since: saga.createdAt };
    expect(waiters).toEqual([waiter]);
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(waiters).toEqual([waiter, { ...waiter, withdrew: true }]);
  });

  test('a poll is put off without being counted', async () => {
    const { budget } = budgetWithout('read');
    const bench = await openBench({ budget });
    const saga = await bench.provision();
    await bench.drive(saga.id, at('wait_droplet_active'));
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 9_000, memo: {} });
    expect(requests(bench.sandbox, GET_DROPLET)).toBe(0);
  });

  test('a list of the last minutes that shows the droplet active ends the wait and is enough to register it', async () => {
    const { bench, saga } = await recalling({});
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { public_ipv4: expect.stringMatching(/^198\.18\./) } });
    expect(requests(bench.sandbox, 'GET /v2/droplets?tag_name')).toBe(0);
  });

  test.each<[string, Partial<Droplet>]>([
    ['shows the droplet new', { status: 'new' }],
    ['lacks an address', { networks: { v4: [], v6: [] } }],
    ["shows another saga's tag", { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] }],
  ])('a list of the last minutes that %s decides nothing: the poll is put off, and does not come back at once', async (_what, change) => {
    const { bench, saga } = await recalling(change);
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 9_000, memo: {} });
    expect(at('wait_droplet_active')(await bench.saga(saga.id))).toBe(true);
  });

  test('a second attempt to register reads anew, whatever a list showed', async () => {
    const { bench, saga } = await recalling({});
    await bench.step(saga.id);
    await bench.db.sql`update arcadia.sagas set attempt = 1 where id = ${saga.id}`;
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 9_000 });
    expect(at('register_droplet')(await bench.saga(saga.id))).toBe(true);
  });

  test('a poll comes back no sooner than polls do, however soon there is room: there are many, and one of them reads for all', async () => {
    const { budget } = budgetWithin(1, 'read');
    const bench = await openBench({ budget, settings });
    const saga = await bench.provision();
    await bench.drive(saga.id, at('wait_droplet_active'));
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: settings.pollIntervalMs });
  });

  test('for creates and reads, a rollback and a destroy go on: all their requests go first', async () => {
    const { budget, without } = budgetWithout();
    const bench = await openBench({ budget });
    const kept = await bench.drive((await bench.provision()).id);
    const cancelled = await bench.provision({ name: 'web-2' });
    await bench.drive(cancelled.id, at('wait_droplet_active'));
    without.push('create', 'read', 'sync');
    await bench.cancel(cancelled.id);
    expect((await bench.drive(cancelled.id)).status).toBe('compensated');
    expect((await bench.drive((await bench.destroy(Number(kept.context['droplet_id']))).id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toEqual([]);
  });
});
