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
  now = 239_000;
  expect(await left()).toBe('7');
  now = 241_000;
  expect(await left()).toBe('Nan');
});
