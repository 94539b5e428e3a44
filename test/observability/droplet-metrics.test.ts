// What a worker's metrics say of requests that are left, and for how long.
import { expect, test } from 'vitest';
import { createDropletMetrics } from '../../src/droplets/metrics.ts';

test('what the last answer left of the rate limit is unknown once that was minutes ago', async () => {
  let now = 0;
  const metrics = createDropletMetrics(() => null, () => now);
  const left = async () => /^arcadia_digitalocean_ratelimit_remaining (\S+)$/m.exec(await metrics.expose())?.[1];
  expect(await left()).toBe('Nan');
  metrics.onRequest({ method: 'GET', path: '/v2/account', status: 200, outcome: 'done', durationMs: 10, retryAfterMs: null, rateLimit: { limit: 5_000, remaining: 7, resetAt: new Date(0) } });
  expect(await left()).toBe('7');
  now = 399_000;
  expect(await left()).toBe('7');
  now = 401_000;
  expect(await left()).toBe('Nan');
});

test('what a 429 left is known until its pause is over', async () => {
  let now = 0;
  const metrics = createDropletMetrics(() => null, () => now);
  metrics.onRequest({ method: 'GET', path: '/v2/account', status: 429, outcome: 'throttled', durationMs: 10, retryAfterMs: 1_800_000, rateLimit: { limit: 5_000, remaining: 0, resetAt: new Date(0) } });
  now = 1_799_000;
  expect(await metrics.expose()).toContain('arcadia_digitalocean_ratelimit_remaining 0\n');
});
