// What the commands say of the inventory where there is nothing to list.
import { expect, test } from 'vitest';
import { formatDrift, formatOrphans } from '../../src/cli/inventory-text.ts';

const now = new Date('2026-11-29T12:00:00Z');

test('no finding of a sync is told with its age', () => {
  const asOf = { sync: { readAt: new Date('2026-11-29T11:57:00Z') }, now };
  expect(formatDrift([], asOf, null)).toBe('no drift as of the last complete sync, 3 min 0 s ago');
  expect(formatOrphans([], asOf, null)).toBe('no orphans as of the last complete sync, 3 min 0 s ago');
  expect(formatOrphans([], { ...asOf, what: 'surplus droplets' }, null)).toBe('no surplus droplets as of the last complete sync, 3 min 0 s ago');
});

test('where nobody ever looked, nothing is said to be absent', () => {
  const asOf = { sync: { readAt: null }, now };
  expect(formatDrift([], asOf, null)).toBe('nothing is known of drift: the inventory was never synced. Run `arcadia sync`, or start a worker');
  expect(formatOrphans([], asOf, null)).toBe('nothing is known of orphans: the inventory was never synced. Run `arcadia sync`, or start a worker');
});
