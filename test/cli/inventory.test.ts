// What `sync` and `orphans` say of a budget that is used up, a token that is refused, and prices that nobody knows.
import { expect, test } from 'vitest';
import { describeCost } from '../../src/cli/inventory-text.ts';
import { openFleet, runCommand } from '../support/fleet.ts';

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
