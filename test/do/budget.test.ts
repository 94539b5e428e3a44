// The fleet's request budget: the same account, kept in Redis, in Postgres, and (while the store is away) in a process.

import { pino } from 'pino';
import { describe, expect, test, vi } from 'vitest';
import { budgetId, createRequestBudget } from '../../src/do/budget.ts';
import { createLocalBudgetStore } from '../../src/do/budget-local.ts';
import type { BudgetAnswer, BudgetAsk, BudgetStore, Turn } from '../../src/do/budget-store.ts';
import type { ObservedAnswer } from '../../src/do/observed-answer.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { waitFor } from '../support/wait-for.ts';
import { newBudgetId, useBudgetStores } from './budget-stores.ts';

const { create: stores, passTime } = useBudgetStores();

/** What waits: ever another one, of one requester, in the order in which they are made. */
let waiters = 0;
const turn = (more: Partial<Turn> = {}): Turn => ({ requester: 'a'.repeat(16), own: `1:${String((waiters += 1)).padStart(15, '0')}`, weight: 1, ...more });
const ask = (more: Partial<BudgetAsk> = {}): BudgetAsk => ({
  perMinute: 10, perHour: 100, keepMinute: 0, keepHour: 0, readsMinute: 0, readsHour: 0, isRead: false, turn: turn(), ...more,
});

/** Each of them waits for a turn of its own, unless none does. */
const asksLike = (what: BudgetAsk, times: number) => Array.from({ length: times }, () => (what.turn === null ? what : { ...what, turn: turn() }));

async function drawAll(store: BudgetStore, times: number, what: BudgetAsk) {
  return drawEach(store, asksLike(what, times));
}

/** One after another: those that ask first are the first in their order, too. */
async function drawEach(store: BudgetStore, asks: readonly BudgetAsk[]) {
  const answers: BudgetAnswer[] = [];
  for (const what of asks) answers.push(await store.draw(what));
  return grantedAndWaits(answers);
}

function grantedAndWaits(answers: readonly BudgetAnswer[]) {
  return { granted: answers.filter(({ waitMs }) => waitMs === 0).length, waits: answers.map(({ waitMs }) => waitMs).filter((ms) => ms > 0) };
}

describe.each(['redis', 'postgres'] as const)('the account in %s', (name) => {
  const create = stores[name];

  test('grants what a minute has room for, however many draw at once, and no more', async () => {
    const store = create();
    const { granted, waits } = grantedAndWaits(await Promise.all(asksLike(ask(), 25).map((what) => store.draw(what))));
    expect([granted, waits.length]).toEqual([10, 15]);
    // The window is a minute, and a second for requests on their way.
    for (const waitMs of waits) expect(waitMs).toBeGreaterThan(59_000);
  });

  test('tells those who wait to come back as room becomes free, not all at once', async () => {
    const { waits } = await drawAll(create(), 35, ask());
    // A window after the other, but for the time that it took to ask.
    const rounds = waits.map((waitMs) => Math.round(waitMs / 61_000));
    expect(rounds.filter((round) => round === 1)).toHaveLength(10);
    expect(rounds.filter((round) => round === 2)).toHaveLength(10);
    expect(rounds.filter((round) => round === 3)).toHaveLength(5);
  });

  test('forecasts the wait of the next create, and neither draws nor keeps a place for it', async () => {
    const store = create();
    const forecasts = async () => Promise.all([1, 2, 3].map(() => store.forecast(ask())));
    expect(await forecasts()).toEqual([0, 0, 0]);
    expect((await drawAll(store, 15, ask())).granted).toBe(10);
    const first = await forecasts();
    for (const waitMs of first) expect(waitMs).toBeGreaterThan(59_000);
    // Five wait already. The sixth place is free as soon as theirs: ten leave the minute at once.
    const { waits } = await drawAll(store, 1, ask());
    expect(Math.abs((waits[0] ?? 0) - (first[2] ?? 0))).toBeLessThan(1_000);
    expect((await drawAll(store, 14, ask())).waits.filter((waitMs) => waitMs > 100_000)).toHaveLength(10);
    expect(await store.forecast(ask({ perHour: 5 }))).toBeGreaterThan(3_500_000);
  });

  test('forecasts the end of a pause that DigitalOcean asked for', async () => {
    const store = create();
    await store.hold(20_000);
    const waitMs = await store.forecast(ask());
    expect(waitMs).toBeGreaterThan(15_000);
    expect(waitMs).toBeLessThanOrEqual(60_000);
  });

  test('the hour is a limit of its own', async () => {
    const { granted, waits } = await drawAll(create(), 8, ask({ perMinute: 100, perHour: 5 }));
    expect(granted).toBe(5);
    expect(Math.min(...waits)).toBeGreaterThan(3_590_000);
  });

  test('keeps a reserve for those who go first', async () => {
    const store = create();
    expect((await drawAll(store, 20, ask({ keepMinute: 3 }))).granted).toBe(7);
    expect((await drawAll(store, 20, ask({ keepMinute: 2 }))).granted).toBe(1);
    expect((await drawAll(store, 20, ask())).granted).toBe(2);
  });

  test('others leave reads their share, and reads that use more leave as much to others', async () => {
    const share = { readsMinute: 2, readsHour: 20 };
    const afterCreates = create();
    expect((await drawAll(afterCreates, 20, ask(share))).granted).toBe(8);
    // One look after another: a fifth of the minute has a fifth of the share.
    const reads = await drawAll(afterCreates, 20, ask({ ...share, isRead: true, turn: null }));
    expect(reads.granted).toBe(1);
    expect(Math.max(...reads.waits)).toBeLessThanOrEqual(12_200);
    const afterReads = create();
    expect((await drawAll(afterReads, 20, ask({ ...share, isRead: true, turn: null }))).granted).toBe(8);
    expect((await drawAll(afterReads, 20, ask(share))).granted).toBe(2);
  });

  test('who has no place in the queue is told of the next room, however many are queued', async () => {
    const store = create();
    const share = { readsMinute: 2, readsHour: 20 };
    expect(Math.max(...(await drawAll(store, 60, ask(share))).waits)).toBeGreaterThan(300_000);
    const { granted, waits } = await drawAll(store, 10, ask({ ...share, isRead: true, turn: null }));
    expect(granted).toBe(1);
    expect(Math.max(...waits)).toBeLessThanOrEqual(61_000);
    expect((await drawAll(store, 1, ask({ perMinute: 11, turn: null }))).granted).toBe(1);
    expect(Math.max(...(await drawAll(store, 5, ask({ perMinute: 11, turn: null }))).waits)).toBeLessThanOrEqual(61_000);
  });

  test('who has no place in the queue does not come back at once, over and over', async () => {
    const store = create();
    await store.hold(990);
    const { waits } = await drawAll(store, 5, ask({ turn: null }));
    expect(waits).toEqual([1_000, 1_000, 1_000, 1_000, 1_000]);
  });

  test('those who wait are told of the hour, too, as those before them will use it up', async () => {
    const { waits } = await drawAll(create(), 25, ask({ perHour: 20 }));
    waits.sort((a, b) => a - b);
    // Ten at once, ten in a minute; when the first ten leave the hour, there is room for the last five.
    expect(waits[9]).toBeLessThan(62_000);
    expect(waits[10]).toBeGreaterThan(3_600_000);
    expect(waits[14]).toBeLessThan(3_602_000);
  });

  test.for([
    ['come round by the minute', 100],
    // Of 23 an hour, 3 are paced.
    ['are an hour away', 23],
  ] as const)('whoever comes at its turn, a moment before there is room, gets the room that nobody else comes for: the next turns %s', async ([, perHour]) => {
    const id = newBudgetId();
    const store = create(id);
    const asks = Array.from({ length: 30 }, () => ask({ perHour }));
    expect((await drawEach(store, asks)).granted).toBe(10);
    // Those of the first round arrived a second late, and those of the second come as they were told.
    await passTime[name](id, 60_000, 61_100);
    const { waits } = await drawEach(store, asks.slice(10, 20));
    expect(waits).toHaveLength(10);
    expect(Math.max(...waits)).toBeLessThan(1_500);
  });

  test('a request that took long to arrive counts from then', async () => {
    const store = create();
    const drawn = await Promise.all(Array.from({ length: 10 }, () => store.draw(ask())));
    const waitMs = async () => (await store.draw(ask({ turn: null }))).waitMs;
    await waitFor(async () => (await waitMs()) < 60_700, { what: 'the windows to roll on a bit', everyMs: 20 });
    const before = await waitMs();
    await Promise.all(drawn.map(({ serial }) => store.late(serial)));
    expect(await waitMs()).toBeGreaterThan(before);
  });

  test('a 429 holds everybody for as long as it says, and halves the minute', async () => {
    const store = create();
    await Promise.all([store.hold(30_000), store.hold(300)]);
    const [first] = (await drawAll(store, 1, ask())).waits;
    expect(first).toBeGreaterThan(29_000);
    expect(first).toBeLessThan(31_500);
    const other = create();
    await other.hold(50);
    const one = ask();
    await waitFor(async () => (await other.draw(one)).waitMs === 0, { what: 'the hold to end', everyMs: 20 });
    expect((await drawAll(other, 10, ask())).granted).toBe(4);
  });

  test('after a 429 nobody is sent away for long by a limit that grows back meanwhile', async () => {
    const store = create();
    await store.hold(50);
    const { waits } = await drawAll(store, 200, ask({ perHour: 10_000 }));
    expect(waits.length).toBeGreaterThan(100);
    // At half the limit, the last would wait for 40 minutes, of which the limit is cut for five. With the whole limit, for 20.
    expect(Math.max(...waits)).toBeLessThan(1_300_000);
    expect(Math.max(...waits)).toBeGreaterThan(1_000_000);
  });

  test("what others use of the token's hour is taken off, and given back once they use less", async () => {
    const store = create();
    await drawAll(store, 5, ask());
    await store.correct(100, 3);
    expect(await store.draw(ask({ keepHour: 2 }))).toMatchObject({ waitMs: 0, usedHour: 6 });
    const refused = await store.draw(ask({ keepHour: 2 }));
    expect(refused.foreign).toBeGreaterThanOrEqual(91);
    // Nobody knows when theirs leave the window: look again in a minute.
    expect(refused.waitMs).toBe(60_000);
    await store.correct(100, 94);
    expect(await store.draw(ask({ keepHour: 2 }))).toMatchObject({ waitMs: 0, usedHour: 7, foreign: 0 });
  });

  test('a smaller limit than the configured one is kept to', async () => {
    const store = create();
    await store.draw(ask());
    await store.correct(4, 3);
    expect((await drawAll(store, 9, ask())).granted).toBe(3);
  });
});

const request = { method: 'GET', path: '/v2/droplets/{id}' } as const;

function budgetOn(store: BudgetStore, limits = { perMinute: 100, perHour: 1_000 }, log = silentLog) {
  return createRequestBudget({ store, ...limits, io: directIo, log });
}

async function granted(draws: Promise<unknown>[]): Promise<number> {
  return (await Promise.allSettled(draws)).filter(({ status }) => status === 'fulfilled').length;
}

const away = async () => Promise.reject(new Error('connect ECONNREFUSED'));
const silent = async () => new Promise<never>(() => undefined);

describe('the budget of a process', () => {
  test('refuses like a 429, which uses no attempt, and says until when', async () => {
    const budget = budgetOn(stores.redis(), { perMinute: 1, perHour: 10 });
    await budget.draw('read', request);
    const error: unknown = await budget.draw('read', request).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DigitalOceanError);
    expect(error).toMatchObject({ kind: 'throttled', code: 'request_budget', retryAfterMs: expect.closeTo(61_000, -4) });
    expect(String(error)).toContain('GET /v2/droplets/{id} was not sent');
  });

  test('deletions, creates, reads and the sync each leave something to those before them', async () => {
    const budget = budgetOn(stores.redis());
    const drawn = [];
    for (const priority of ['sync', 'read', 'create', 'destroy'] as const) {
      drawn.push(await granted(Array.from({ length: 100 }, () => budget.draw(priority, request))));
    }
    expect(drawn).toEqual([75, 19, 4, 2]);
    expect(budget.left()).toEqual({ minute: 0, hour: 900 });
    await expect(budget.draw('now', request)).resolves.toBeDefined();
  });

  test('a create waits as the one who waits for it: by requester and weight, then priority, then age; other requests do not', async () => {
    const turns: (Turn | null)[] = [];
    const local = createLocalBudgetStore();
    const store: BudgetStore = { ...local, draw: async (what) => (turns.push(what.turn), local.draw(what)), withdraw: async (which) => Promise.resolve(void turns.push(which)) };
    const budget = createRequestBudget({ store, perMinute: 100, perHour: 1_000, weights: { billing: 3, constructor: 2 }, io: directIo, log: silentLog });
    const waiter = { id: 'one', requester: 'billing', priority: 'normal', since: new Date(1_000) } as const;
    const others = [{ ...waiter, priority: 'high' }, { ...waiter, priority: 'low', since: new Date(0) }, { ...waiter, since: new Date(2_000) }, { ...waiter, requester: 'toString' }, { ...waiter, requester: null }] as const;
    for (const one of [waiter, ...others]) await budget.draw('create', request, one);
    await budget.draw('destroy', request, waiter);
    await budget.draw('create', request);
    await budget.withdraw(waiter);
    const [first, high, low, younger, unknown, nobody, deletion, anonymous, withdrawn] = turns;
    expect(first).toMatchObject({ requester: expect.stringMatching(/^[0-9a-f]{16}$/), own: '1:000000000001000:one', weight: 3 });
    const inOrder = [high, first, younger, low].map((one) => one?.own ?? '');
    expect(inOrder.toSorted((one, other) => (one < other ? -1 : 1))).toEqual(inOrder);
    expect(unknown).toMatchObject({ weight: 1 });
    expect(unknown?.requester).not.toBe(first?.requester);
    expect(nobody).toMatchObject({ requester: '-'.repeat(16), weight: 1 });
    expect(deletion).toBeNull();
    expect(anonymous).toMatchObject({ requester: nobody?.requester, own: '1:000000000000000:GET /v2/droplets/{id}' });
    expect(withdrawn).toEqual(first);
  });

  test('answers that tell of more use than ours correct the account; ours alone do not', async () => {
    const told: number[][] = [];
    const store: BudgetStore = { ...createLocalBudgetStore(), correct: async (...what) => Promise.resolve(void told.push(what)) };
    const budget = budgetOn(store);
    const answer = (limit: number, remaining: number): ObservedAnswer => ({
      ...request, status: 200, outcome: 'done', rateLimit: { limit, remaining, resetAt: new Date() }, retryAfterMs: null, durationMs: 1,
    });
    await budget.draw('read', request);
    budget.answered(answer(1_000, 999));
    budget.answered(answer(100, 0));
    expect(told).toEqual([]);
    budget.answered(answer(1_000, 600));
    expect(told).toEqual([[1_000, 600]]);
  });

  test('no more is left than DigitalOcean grants the token, whatever is configured', async () => {
    const budget = budgetOn(createLocalBudgetStore(), { perMinute: 100, perHour: 20_000 });
    await budget.draw('destroy', request);
    expect(budget.left()?.hour).toBe(19_999);
    budget.answered({ ...request, status: 200, outcome: 'done', rateLimit: { limit: 5_000, remaining: 4_999, resetAt: new Date() }, retryAfterMs: null, durationMs: 1 });
    expect(budget.left()?.hour).toBe(4_999);
  });

  test('what is left does not stay at what it was once the window is over and nothing was drawn since', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const budget = budgetOn(createLocalBudgetStore());
      for (let count = 0; count < 10; count += 1) await budget.draw('destroy', request);
      expect(budget.left()).toEqual({ minute: 90, hour: 990 });
      vi.advanceTimersByTime(61_000);
      expect(budget.left()).toEqual({ minute: 100, hour: 990 });
      vi.advanceTimersByTime(3_600_000);
      expect(budget.left()).toEqual({ minute: 100, hour: 1_000 });
    } finally {
      vi.useRealTimers();
    }
  });

  test('a request that took longer than is allowed for is told to the store, another is not', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const told: number[] = [];
      let serial = 0;
      const local = createLocalBudgetStore();
      const store: BudgetStore = {
        ...local,
        draw: async (what) => ({ ...(await local.draw(what)), serial: (serial += 1) }),
        late: async (which) => Promise.resolve(void told.push(which)),
      };
      const budget = budgetOn(store);
      const [quick, slow] = [await budget.draw('create', request), await budget.draw('create', request)];
      quick.over();
      vi.advanceTimersByTime(1_500);
      slow.over();
      expect(told).toEqual([2]);
    } finally {
      vi.useRealTimers();
    }
  });

  test('with the store away it goes on with a tenth of its own, and says so', async () => {
    const lines: string[] = [];
    const log = pino({}, { write: (line) => void lines.push(line) });
    const budget = budgetOn({ draw: away, withdraw: away, late: away, hold: away, correct: away }, { perMinute: 100, perHour: 1_000 }, log);
    expect(await granted(Array.from({ length: 50 }, () => budget.draw('destroy', request)))).toBe(10);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('small share of its own');
    expect(budget.left()).toBeNull();
  });

  test('while the store answers late, requests wait for it; none is drawn from elsewhere', async () => {
    const local = createLocalBudgetStore();
    let isLate = false;
    const store: BudgetStore = { ...local, draw: async (what) => (isLate ? silent() : local.draw(what)) };
    const budget = budgetOn(store);
    await budget.draw('destroy', request);
    isLate = true;
    const refusals = await Promise.allSettled(Array.from({ length: 20 }, () => budget.draw('destroy', request)));
    expect(refusals).toEqual(refusals.map(() => ({ status: 'rejected', reason: expect.objectContaining({ kind: 'throttled', retryAfterMs: 1_000 }) })));
    // Nobody would come back for it.
    await budget.draw('now', request);
    isLate = false;
    await budget.draw('destroy', request);
  });

  test('a store that has not said a word for seconds is away', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const budget = budgetOn({ draw: silent, withdraw: silent, late: silent, hold: silent, correct: silent }, { perMinute: 100, perHour: 1_000 });
      vi.advanceTimersByTime(5_000);
      const startedAt = Date.now();
      expect(await granted(Array.from({ length: 50 }, () => budget.draw('destroy', request)))).toBe(10);
      expect(Date.now() - startedAt).toBeLessThan(3_000);
    } finally {
      vi.useRealTimers();
    }
  });

  test('the name of an account gives neither the token nor the URL away', () => {
    expect(budgetId('dop_v1_canary', 'https://api.digitalocean.com')).toMatch(/^[0-9a-f]{32}$/);
    expect(budgetId('dop_v1_canary', 'https://a')).not.toBe(budgetId('dop_v1_canary', 'https://b'));
  });
});

test('the windows of a process roll', async () => {
  let now = 0;
  const store = createLocalBudgetStore(() => now);
  const what = ask({ perMinute: 2, perHour: 3 });
  const draws: number[] = [];
  for (const at of [0, 10_000, 20_000, 60_001, 70_001, 3_600_001]) {
    now = at;
    draws.push((await store.draw(what)).waitMs);
  }
  expect(draws).toEqual([0, 0, 40_000, 0, 3_529_999, 0]);
});
