// What `sync` and `orphans` say of a budget that is used up, a token that is refused, and prices that nobody knows.
import { expect, test } from 'vitest';
import { describeCost } from '../../src/cli/inventory-text.ts';
import { openFleet, runCommand } from '../support/fleet.ts';

test('a sync that waits for the request budget says so once, and until when', async () => {
  await using fleet = await openFleet('postgres');
  // It would wait for the rest of the hour.
  const { code, stdout, stderr } = await runCommand(['sync'], fleet.environment({ DIGITALOCEAN_REQUESTS_PER_HOUR: '2' }), 8_000);
  expect([code, stdout]).toEqual([null, '']);
  expect(stderr).toMatch(/^waiting for the request budget: .* asks again at \d{4}-\S+Z\n$/);
});

test('a sync with a token that is refused says that, and names no scope', async () => {
  await using fleet = await openFleet('postgres', { token: 'right' });
  const { code, stderr } = await runCommand(['sync'], fleet.environment({ DIGITALOCEAN_TOKEN: 'wrong' }));
  expect([code, stderr]).toEqual([1, expect.stringContaining('DigitalOcean refuses the token')]);
  expect(stderr).not.toContain('account:read');
});

test.each([
  [[0.5, 0.25], '0.75000 USD an hour'],
  [[0.5, null], 'at least 0.50000 USD an hour'],
  [[null], 'price unknown'],
])('the sum of the prices %j is: %s', (prices, sum) => {
  expect(describeCost(prices.map((priceUsdPerHour) => ({ priceUsdPerHour })))).toBe(sum);
});
