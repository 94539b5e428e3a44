import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BACKOFF_CAP_MS, computeBackoffMs } from '../../src/saga/backoff.ts';

const attempt = fc.integer({ min: 1, max: 1_000_000 });
const baseMs = fc.integer({ min: 1, max: 2_147_483_647 });
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const justUnderOne = 1 - Number.EPSILON / 2;

describe('computeBackoffMs', () => {
  test('is a whole number of milliseconds from 100 to 60,000, whatever the attempt', () => {
    fc.assert(
      fc.property(attempt, baseMs, random, (attempt, baseMs, random) => {
        const delayMs = computeBackoffMs(attempt, baseMs, random);
        expect(Number.isInteger(delayMs)).toBe(true);
        expect(delayMs).toBeGreaterThanOrEqual(100);
        expect(delayMs).toBeLessThanOrEqual(60_000);
      }),
    );
  });

  test('is never longer than the doubled base, unless that is below the floor', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 5_000 }), random, (attempt, baseMs, random) => {
        expect(computeBackoffMs(attempt, baseMs, random)).toBeLessThanOrEqual(Math.max(100, baseMs * 2 ** (attempt - 1)));
      }),
    );
  });

  test('never gets shorter from one attempt to the next, for the same roll of the dice', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), baseMs, random, (attempt, baseMs, random) => {
        expect(computeBackoffMs(attempt + 1, baseMs, random)).toBeGreaterThanOrEqual(computeBackoffMs(attempt, baseMs, random));
      }),
    );
  });

  test.each([
    [1, 1_000], [2, 2_000], [3, 4_000], [4, 8_000], [6, 32_000], [7, BACKOFF_CAP_MS], [8, BACKOFF_CAP_MS], [1_000, BACKOFF_CAP_MS],
  ])('after attempt %i it is spread over all of 0 to %i ms', (attempt, ceilingMs) => {
    expect(computeBackoffMs(attempt, 1_000, justUnderOne)).toBe(ceilingMs);
    expect(computeBackoffMs(attempt, 1_000, 0.5)).toBe(ceilingMs / 2);
    expect(computeBackoffMs(attempt, 1_000, 0)).toBe(100);
  });

  test('treats attempt 0 like attempt 1', () => {
    expect(computeBackoffMs(0, 1_000, 0.75)).toBe(computeBackoffMs(1, 1_000, 0.75));
  });
});
