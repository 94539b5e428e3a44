// The request budget of a single process, in memory. A worker falls back to it while the fleet's store is unreachable.
// Its windows roll, like the fleet's.

import type { BudgetStore } from './budget-store.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** Creates an empty budget. */
export function createLocalBudgetStore(nowMs: () => number = () => performance.now()): BudgetStore {
  let drawnAt: number[] = [];
  let heldUntil = 0;

  /** Returns the time until fewer than `limit` requests fall within the last `windowMs`. */
  const waitOf = (windowMs: number, limit: number, now: number): number => {
    const counted = drawnAt.filter((at) => at > now - windowMs);
    const [blocking] = counted.slice(counted.length - limit);
    return counted.length < limit || blocking === undefined ? 0 : blocking + windowMs - now;
  };

  return {
    draw: async ({ perMinute, perHour, keepMinute, keepHour }) => {
      const now = nowMs();
      drawnAt = drawnAt.filter((at) => at > now - HOUR_MS);
      const waitMs = Math.max(waitOf(MINUTE_MS, perMinute - keepMinute, now), waitOf(HOUR_MS, perHour - keepHour, now), heldUntil - now, 0);
      if (waitMs === 0) drawnAt.push(now);
      const usedMinute = drawnAt.filter((at) => at > now - MINUTE_MS).length;
      return Promise.resolve({ waitMs, usedMinute, usedHour: drawnAt.length, foreign: 0, serial: 0 });
    },
    // The local share is so small that one second more or less makes no difference.
    late: async () => Promise.resolve(),
    hold: async (forMs) => {
      heldUntil = Math.max(heldUntil, nowMs() + forMs);
      return Promise.resolve();
    },
    correct: async () => Promise.resolve(),
  };
}
