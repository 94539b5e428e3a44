// Turns over the requesters whose creates wait for the request budget, on every store: the same course on each, in which time
// passes without anybody waiting.
import { expect, test, describe } from 'vitest';
import type { BudgetAnswer } from '../../src/do/budget-store.ts';
import { TURN_GRACE_MS } from '../../src/do/budget-store.ts';
import { seededRandom } from '../../src/sandbox/random.ts';
import type { TimedStore } from './budget-stores.ts';
import { useBudgetStores } from './budget-stores.ts';
import { CREATES, deletions, inOrder, last, limits, longest, of, run, some } from './course.ts';

// The stores round to whole milliseconds.
const NEARLY_MS = 5;
// One that asks again is late by a time of its own.
const LATE_MS = 500;

/** An answer that depends on a moment that nobody knows. */
class UnclearMoment extends Error {}

function differ(one: BudgetAnswer, other: BudgetAnswer, nearlyMs: number): boolean {
  if ((one.waitMs === 0) !== (other.waitMs === 0)) return true;
  return one.foreign !== other.foreign || Math.max(Math.abs(one.waitMs - other.waitMs), Math.abs(one.againMs - other.againMs)) >= nearlyMs;
}

/** The answers to so many that begin to wait at about the same moment. */
async function refusedOf({ store }: TimedStore, count: number, sizes: Partial<typeof limits>): Promise<BudgetAnswer[]> {
  const answers: BudgetAnswer[] = [];
  for (const { turn } of some(count, 'many')) answers.push(await store.draw({ ...limits, ...sizes, turn }));
  return answers.filter(({ waitMs }) => waitMs > 0);
}

const { timed, database } = useBudgetStores();

describe.each(['local', 'redis', 'postgres'] as const)('turns in %s', (name) => {
  const create = timed[name];

  test('single creates behind many of another requester go out within seconds, and the many end when they would have', async () => {
    const alone = await run(create(), some(200, 'many'));
    const shared = await run(create(), [...some(200, 'many'), ...some(6, 'one', { at: 10_000, everyMs: 25_000 })]);
    expect(longest(of(shared.granted, 'one'))).toBeLessThan(12_000 + shared.behindMs);
    expect(last(of(shared.granted, 'many')) / last(alone.granted)).toBeLessThan(1.02);
    // Ever more asks would be work for nothing.
    expect(shared.answers.length / 206).toBeLessThan(4);
  }, 120_000);

  test('two that wait take turns, by their weights', async () => {
    const { granted } = await run(create(), [...some(CREATES, 'other', { from: 1_000 }), ...some(80, 'many', { at: 1_000 }), ...some(80, 'one', { at: 1_001, weight: 2 })]);
    const waited = granted.filter(({ at }) => at > 500 && at < 125_000);
    const ofOne = of(waited, 'one').length;
    const ofMany = of(waited, 'many').length;
    expect(ofOne / (ofOne + ofMany)).toBeGreaterThan(0.6);
    expect(ofOne / (ofOne + ofMany)).toBeLessThan(0.73);
  }, 60_000);

  test("within a requester a higher priority goes first, and a requester's own order is kept", async () => {
    const first = some(CREATES, 'other', { from: 1_000 });
    const normal = some(40, 'many', { at: 1_000 });
    const high = some(10, 'many', { at: 2_000, priority: 0, from: 100 });
    const low = some(10, 'many', { at: 500, priority: 2, from: 200 });
    const { granted } = await run(create(), [...first, ...normal, ...high, ...low], { perMinute: 30, keepMinute: 1, readsMinute: 2 });
    const order = inOrder(of(granted, 'many'));
    const places = (from: number, count: number) => Array.from({ length: count }, (_, index) => order.indexOf(from + index));
    // What goes out at once goes out in any order.
    const WINDOW = 27;
    expect(Math.max(...places(100, 10)) - Math.min(...places(30, 10))).toBeLessThan(0);
    expect(Math.max(...places(0, 40))).toBeLessThan(Math.max(...places(200, 10)));
    for (const [index, place] of places(0, 40).entries()) expect(Math.abs(place - (index + 10))).toBeLessThan(WINDOW);
  }, 60_000);

  test('those that are gone, or gave up their turns, keep nobody waiting', async () => {
    const gone = some(60, 'one', { at: 1_000 }).map((waiter) => ({ ...waiter, goneAt: waiter.at + 1 }));
    const { granted, behindMs } = await run(create(), [...some(CREATES, 'other', { from: 1_000 }), ...gone, ...some(30, 'many', { at: 2_000 })]);
    expect(of(granted, 'many')).toHaveLength(30);
    // All of them have room when the first ones leave the minute.
    expect(last(of(granted, 'many'))).toBeLessThan(61_000 + TURN_GRACE_MS + 2_000 + behindMs);

    const course = create();
    const waiting = some(150, 'one');
    await run(course, some(CREATES, 'other', { from: 1_000 }));
    for (const { turn } of waiting) await course.store.draw({ ...limits, turn });
    const [next] = some(1, 'one', { from: 1_000 });
    const before = await course.store.draw({ ...limits, turn: next?.turn ?? null });
    for (const { turn } of waiting) await course.store.withdraw(turn);
    const after = await course.store.draw({ ...limits, turn: next?.turn ?? null });
    expect(before.waitMs).toBeGreaterThan(120_000);
    expect(after.waitMs).toBeLessThan(62_000);
  }, 60_000);

  test('as many as a window has room for are not held back, if no more come', async () => {
    const { granted, behindMs } = await run(create(), some(CREATES, 'many'));
    expect(granted).toHaveLength(CREATES);
    expect(longest(granted)).toBeLessThan(5_000 + behindMs);
  }, 30_000);

  test('a single create goes out with the next of the hour, while another requester has used the hour up', async () => {
    const { granted } = await run(create(), [...some(90, 'many'), ...some(2, 'one', { at: 400_000, everyMs: 1_500_000 })], { perHour: 90, keepHour: 2, readsHour: 6 });
    // A twentieth of the hour's 82 goes out over the hour: one in 12 minutes.
    expect(longest(of(granted, 'one'))).toBeLessThan(725_000);
    expect(of(granted, 'many')).toHaveLength(90);
  }, 60_000);

  test('a burst leaves room for deletions, so that a single create still goes out with the next of the hour', async () => {
    const { granted, behindMs } = await run(
      create(),
      [...deletions(16, { everyMs: 300_000 }), ...some(90, 'many', { at: 1_200_500 }), ...some(4, 'one', { at: 1_500_000, everyMs: 750_000 })],
      { perHour: 90, keepHour: 2, readsHour: 6 },
    );
    // Of the hour's 82, 9 are paced: one in 400 s.
    expect(longest(of(granted, 'one'))).toBeLessThan(420_000 + behindMs);
    expect(longest(of(granted, 'deletion'))).toBeLessThan(1_000 + behindMs);
    expect(of(granted, 'many')).toHaveLength(90);
  }, 60_000);

  test('while other software uses the token, only the first of those that wait ask each minute', async () => {
    const course = create();
    await course.store.correct(100, 20);
    const refused = await refusedOf(course, 40, { perHour: 100, keepHour: 2, readsHour: 6 });
    expect(refused.length).toBeGreaterThan(20);
    // What others use leaves the hour: about 80 in an hour.
    expect(refused[0]?.againMs).toBeLessThanOrEqual(60_000);
    expect(refused.at(-1)?.againMs).toBeGreaterThan(400_000);
    expect(refused.at(-1)?.againMs).toBeLessThan(1_200_000);
    for (const { waitMs, againMs } of refused) expect(againMs).toBeLessThanOrEqual(waitMs);
  }, 60_000);

  test('after a 429, only the first of those that wait ask each minute', async () => {
    const course = create();
    await course.store.hold(1);
    await course.advanceTo(course.now() + 1_000);
    const refused = await refusedOf(course, 60, { perMinute: 10, perHour: 10_000, keepMinute: 0, readsMinute: 0 });
    expect(refused.length).toBeGreaterThan(50);
    expect(refused[0]?.againMs).toBeLessThanOrEqual(61_000);
    // It has no turn before five minutes are over, even if the limit grows back at once.
    expect(refused.at(-1)?.waitMs).toBeGreaterThan(240_000);
    expect(refused.at(-1)?.waitMs).toBeLessThan(400_000);
    expect(refused.at(-1)?.againMs).toBeGreaterThan(120_000);
  }, 60_000);
});

test('workers of the version before share the windows, and take the room that they find', async () => {
  const { store, now, advanceTo, id } = timed.postgres();
  const drawOld = async () => {
    const [row] = await database().sql<{ waitMs: number }[]>`
      select wait_ms from arcadia.draw_request(${id ?? ''}, ${limits.perMinute}, ${limits.perHour}, ${limits.keepMinute}, ${limits.keepHour}, ${limits.readsMinute}, ${limits.readsHour}, false, true, '1 second', '1 second')`;
    return row?.waitMs ?? 0;
  };
  for (let index = 0; index < CREATES - 5; index += 1) expect(await drawOld()).toBe(0);
  const [next, ...waiting] = some(6, 'many');
  let granted = 0;
  for (const { turn } of waiting) granted += (await store.draw({ ...limits, turn })).waitMs === 0 ? 1 : 0;
  await advanceTo(now() + 3_000);
  for (const { turn } of waiting.slice(granted)) granted += (await store.draw({ ...limits, turn })).waitMs === 0 ? 1 : 0;
  expect(granted).toBe(5);
  expect(await drawOld()).toBeGreaterThan(50_000);
  // Room comes after a minute, for whoever asks first.
  await advanceTo(62_000);
  expect(await drawOld()).toBe(0);
  expect((await store.draw({ ...limits, turn: next?.turn ?? null })).waitMs).toBe(0);
});

test.each([
  ...[1, 2, 3, 4, 5, 6].map((seed) => [seed, 'alone'] as const),
  ...[7, 8, 9].map((seed) => [seed, 'after 429s'] as const),
  ...[10, 11, 12].map((seed) => [seed, 'beside other software'] as const),
  ...[13, 14, 15, 16].map((seed) => [seed, 'beside deletions'] as const),
])('the stores answer as the budget of a process does, ask by ask (course %i, %s)', async (seed, how) => {
  const random = seededRandom(seed);
  const whole = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const waiters = (['many', 'one', 'other'] as const).flatMap((name) => {
    const weight = whole(1, 3);
    return [0, 1, 2].flatMap((part) => some(whole(1, 20), name, { at: whole(0, 40_000), everyMs: whole(0, 3) * 211, priority: whole(0, 2), weight, from: part * 100 }));
  });
  // The draws of the others stay the same for their seeds.
  const deleted = how === 'beside deletions' ? deletions(whole(10, 40), { at: whole(0, 5_000), everyMs: whole(5_000, 100_000) }) : [];
  const withGone = [...waiters, ...deleted].map((waiter) => (random() < 0.1 ? { ...waiter, goneAt: waiter.at + 1 } : waiter));
  const sizes = { perMinute: whole(8, 40), perHour: 100, keepMinute: 1, keepHour: 2, readsMinute: 1, readsHour: 6 };
  // What DigitalOcean says meanwhile.
  const tidings = { alone: [], 'beside deletions': [], 'after 429s': [whole(0, 5_000), whole(5_000, 90_000)], 'beside other software': [whole(0, 5_000), whole(5_000, 90_000), whole(90_000, 900_000)] }[how]
    .map((at) => ({ at, forMs: whole(500, 20_000), remaining: whole(0, 60) }));
  let compares = 0;
  for (const name of ['redis', 'postgres'] as const) {
    const real = timed[name]();
    // Of a refusal without a turn a store keeps nothing: there, one decides when it was asked, and one when it had answered.
    const locals = [timed.local(), timed.local()];
    const differences: object[] = [];
    const told = new Set<object>();
    const tell = async () => {
      for (const tiding of tidings.filter((one) => one.at <= real.now() && !told.has(one))) {
        told.add(tiding);
        const { forMs, remaining } = tiding;
        const tellOne = async (store: TimedStore['store']) => (how === 'after 429s' ? store.hold(forMs) : store.correct(100, remaining));
        await tellOne(real.store);
        const toldAt = await (how === 'after 429s' ? real.heldAt() : real.correctedAt());
        for (const { store, advanceTo } of locals) {
          await advanceTo(toldAt);
          await tellOne(store);
        }
      }
    };
    const compared: TimedStore = {
      ...real,
      store: {
        ...real.store,
        draw: async (ask) => {
          await tell();
          const askedAt = real.now();
          const answer = await real.store.draw(ask);
          const answeredAt = real.now();
          const decidedAt = await real.decidedAt(ask, answer);
          const expected = await Promise.all(locals.map(async ({ store, advanceTo }, index) => {
            await advanceTo(decidedAt ?? (index === 0 ? askedAt : answeredAt));
            return store.draw(ask);
          }));
          const [one = answer, ...others] = expected;
          const nearlyMs = NEARLY_MS + (decidedAt === null ? answeredAt - askedAt : 0);
          if (others.some((other) => differ(one, other, nearlyMs))) throw new UnclearMoment();
          if (differ(answer, one, nearlyMs)) differences.push({ own: ask.turn?.own, at: askedAt, answer, expected: one });
          if (tidings.length === 0 || told.size > 0) compares += 1;
          return answer;
        },
      },
    };
    // Each is late by a time of its own: if two moments were the same by the rules, milliseconds would decide.
    await run(compared, withGone, sizes, () => whole(LATE_MS / 2, LATE_MS)).catch((error: unknown) => {
      if (!(error instanceof UnclearMoment)) throw error;
    });
    expect(differences.slice(0, 3)).toEqual([]);
  }
  expect(compares).toBeGreaterThan(0);
}, 120_000);
