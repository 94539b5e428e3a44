// What counts as a budget without room: requests of sagas that have to wait, not those of a sync.
import { expect, test } from 'vitest';
import type { Priority, RequestBudget } from '../../src/do/budget.ts';
import { unlimitedBudget } from '../../src/do/budget.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { watchThrottle } from '../../src/do/throttle.ts';

test('a create that waits is told of until one of its kind has room; a sync that waits is not', async () => {
  let hasRoom = false;
  const throttled = new DigitalOceanError('later', { kind: 'throttled', status: 429, code: 'too_many_requests', requestId: null, retryAfterMs: 60_000, method: 'GET', path: '/v2/droplets' });
  const budget = { ...unlimitedBudget, draw: async (...given: Parameters<RequestBudget['draw']>) => (hasRoom ? unlimitedBudget.draw(...given) : Promise.reject(throttled)) };
  const watched = watchThrottle(budget);
  const throttledForMs = () => watched.throttledForMs();
  const draw = async (priority: Priority) => watched.budget.draw(priority, { method: 'GET', path: '/v2/droplets' }).catch(() => undefined);
  await draw('sync');
  expect(throttledForMs()).toBe(0);
  await draw('create');
  expect(throttledForMs()).toBeGreaterThan(50_000);
  hasRoom = true;
  await draw('create');
  expect(throttledForMs()).toBe(0);
});
