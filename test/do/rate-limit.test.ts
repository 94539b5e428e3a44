import { describe, expect, test } from 'vitest';
import { computeThrottleMs, readRateLimit, readRetryAfterMs } from '../../src/do/rate-limit.ts';

const nowMs = Date.parse('2025-01-01T00:00:00Z');
const inSeconds = (seconds: number) => String(nowMs / 1_000 + seconds);

describe('the rate limit of an answer', () => {
  test('is read when all three headers make sense', () => {
    expect(
      readRateLimit({ 'ratelimit-limit': '5000', 'ratelimit-remaining': '4816', 'ratelimit-reset': inSeconds(60) }),
    ).toEqual({ limit: 5000, remaining: 4816, resetAt: new Date('2025-01-01T00:01:00Z') });
  });

  test.each([
    {},
    { 'ratelimit-limit': '5000', 'ratelimit-remaining': '1' },
    { 'ratelimit-limit': '-1', 'ratelimit-remaining': '1', 'ratelimit-reset': '1' },
    { 'ratelimit-limit': 'many', 'ratelimit-remaining': '1', 'ratelimit-reset': '1' },
    { 'ratelimit-limit': '1', 'ratelimit-remaining': '1', 'ratelimit-reset': '999999999999999' },
  ])('is unknown without them: %j', (headers) => {
    expect(readRateLimit(headers)).toBeNull();
  });
});

describe('the pause after a 429', () => {
  const spent = { 'ratelimit-remaining': '0', 'ratelimit-reset': inSeconds(90) };

  test.each([
    ['is what retry-after says in seconds', { 'retry-after': '7' }, 7_000],
    ['is what retry-after says as a date', { 'retry-after': 'Wed, 01 Jan 2025 00:00:30 GMT' }, 30_000],
    ['prefers retry-after to the reset', { ...spent, 'retry-after': '7' }, 7_000],
    ['lasts until the reset when nothing remains', spent, 90_000],
    ['ignores the reset while something remains', { ...spent, 'ratelimit-remaining': '3' }, 10_000],
    ['has a default', {}, 10_000],
    ['has a default when retry-after is nonsense', { 'retry-after': 'soon' }, 10_000],
    ['is at least a second', { 'retry-after': '0' }, 1_000],
    ['is at least a second when the reset is over', { ...spent, 'ratelimit-reset': inSeconds(-5) }, 1_000],
    ['is at most an hour', { 'retry-after': '99999999' }, 3_600_000],
  ])('%s', (_title, headers, expectedMs) => {
    expect(computeThrottleMs(headers, nowMs)).toBe(expectedMs);
  });

  test('has no default where the API did not ask for one', () => {
    expect(readRetryAfterMs({}, nowMs)).toBeNull();
    expect(readRetryAfterMs({ 'retry-after': '3' }, nowMs)).toBe(3_000);
  });
});
