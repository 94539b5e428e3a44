// Limits how many readiness checks a worker makes at once. A check of a droplet whose firewall drops packets holds a job's place
// for seconds. Without a limit, such droplets would fill all places, and creates and ends of leases would wait behind them.
import type { Finding, Target } from './probe.ts';

/** No check was made, because too many others were under way. Try again after `retryMs`. */
export type Busy = Readonly<{ retryMs: number }>;

// The share of a worker's places that checks may fill.
const SHARE = 1 / 5;

/** How many checks a worker makes at once. */
export function probePlaces(concurrency: number): number {
  return Math.max(1, Math.floor(concurrency * SHARE));
}

/**
 * Limits a check to so many at once.
 *
 * @param how.aboutMs after which a refused check may try again, in milliseconds; the actual time is random, from half of it
 */
export function limitProbes(
  probe: (target: Target) => Promise<Finding>,
  { places, aboutMs, random = Math.random }: Readonly<{ places: number; aboutMs: number; random?: () => number }>,
): (target: Target) => Promise<Finding | Busy> {
  let underWay = 0;
  return async (target) => {
    if (underWay >= places) return { retryMs: Math.round(aboutMs * (1 + random()) / 2) };
    underWay += 1;
    try {
      return await probe(target);
    } finally {
      underWay -= 1;
    }
  };
}
