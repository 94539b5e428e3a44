// Random fleets of requesters that share the request budget, in simulated time: nobody waits longer than its share says,
// nobody is forgotten, no window is exceeded, and nothing is left unused for long while somebody waits.
import { expect, test } from 'vitest';
import { seededRandom } from '../../src/sandbox/random.ts';
import { createTimedLocalStore } from '../do/budget-stores.ts';
import type { Requester, Waiter } from '../do/course.ts';
import { run, some } from '../do/course.ts';

const MINUTE_MS = 61_000;
const HOUR_MS = 3_601_000;
// What leaves the window at the same moment is granted at the same moment, in the order in which those that wait come: each
// of them may be late.
const SAME_MOMENT_MS = 6_000;

type Fleet = Readonly<{ waiters: readonly Waiter[]; weights: ReadonlyMap<Requester, number>; sizes: Parameters<typeof run>[2]; lateMs: (waiter: Waiter) => number; perMinute: number; perHour: number }>;

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of a name from `some`
const requesterOf = (name: string) => name.split('-')[0] as Requester;

function fleetOf(seed: number): Fleet {
  const random = seededRandom(seed);
  const whole = (from: number, to: number) => from + Math.floor(random() * (to - from + 1));
  const weights = new Map((['many', 'one', 'other'] as const).map((name) => [name, [0.5, 1, 1, 2, 3][whole(0, 4)] ?? 1]));
  const waiters = [...weights].flatMap(([name, weight]) =>
    Array.from({ length: whole(1, 3) }, (_, part) => some(whole(1, whole(1, 60)), name, { at: whole(0, 150) * 1_000, everyMs: [0, 0, 50, 1_000, 5_000][whole(0, 4)] ?? 0, priority: whole(0, 2), weight, from: part * 100 })).flat(),
  );
  // Some are cancelled, or their worker dies; some come late, because their worker is busy or was replaced.
  const goneRate = [0, 0, 0.1, 0.5][whole(0, 3)] ?? 0;
  const perMinute = whole(8, 60);
  const perHour = random() < 0.2 ? whole(60, 150) : 5_000;
  return {
    waiters: waiters.map((waiter) => (random() < goneRate ? { ...waiter, goneAt: waiter.at + whole(1, 100_000) } : waiter)),
    weights,
    sizes: { perMinute, perHour, keepMinute: 1, keepHour: 2, readsMinute: 1, readsHour: 6 },
    lateMs: random() < 0.5 ? () => whole(0, 30) : () => whole(0, 3_000),
    perMinute: perMinute - 2,
    perHour: perHour - 8,
  };
}

test.each(Array.from({ length: 60 }, (_, index) => index + 1))('a shared budget gives everybody its share (fleet %i)', async (seed) => {
  const { waiters, weights, sizes, lateMs, perMinute, perHour } = fleetOf(seed);
  const { granted } = await run(createTimedLocalStore(), waiters, sizes, lateMs);

  const staying = waiters.filter(({ goneAt }) => goneAt === undefined);
  const names = new Set(granted.map(({ name }) => name));
  expect(staying.filter(({ name }) => !names.has(name))).toEqual([]);

  const times = granted.map(({ at }) => at).toSorted((one, other) => one - other);
  for (const [index, at] of times.entries()) {
    expect(at - (times[index - perMinute] ?? -MINUTE_MS)).toBeGreaterThanOrEqual(MINUTE_MS);
    expect(at - (times[index - perHour] ?? -HOUR_MS)).toBeGreaterThanOrEqual(HOUR_MS);
  }

  // While somebody waits, each other requester is served no more than its weight says, against what the own one was served.
  const passedOver: object[] = [];
  for (const one of granted) {
    const own = requesterOf(one.name);
    const meanwhile = granted.filter(({ at }) => at > one.at - one.waitedMs && at < one.at - SAME_MOMENT_MS);
    // A place that is given up goes to whoever asks first.
    const givenUp = waiters.filter(({ at, goneAt }) => goneAt !== undefined && at < one.at && goneAt > one.at - one.waitedMs).length;
    const served = (requester: Requester) => meanwhile.filter(({ name }) => requesterOf(name) === requester).length;
    for (const [other, weight] of weights) {
      const share = weight / (weights.get(own) ?? 1);
      const most = (served(own) + 1) * share + 1 + share + givenUp;
      if (other !== own && served(other) > most) passedOver.push({ ...one, other, served: served(other), most });
    }
  }
  expect(passedOver).toEqual([]);
});
