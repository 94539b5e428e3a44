// What the commands say of the inventory where there is nothing to list.
import { expect, test } from 'vitest';
import { formatDrift, formatOrphans } from '../../src/cli/inventory-text.ts';
import type { Orphan } from '../../src/inventory/orphans.ts';

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

test('orphans on a narrow terminal keep their category', () => {
  const orphan: Orphan = {
    id: 12, category: 'unknown', reason: 'it carries no saga id', sagaId: 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001', providerId: '512340001', name: 'theirs', region: 'fra1', sizeSlug: 's-1vcpu-1gb', tags: [], priceUsdPerHour: 0.00893,
    createdAt: now, firstSeenAt: now, lastSeenAt: now, approvedAt: null, approvedBy: null, acknowledgedAt: null, acknowledgedBy: null, acknowledgedReason: null, sweepFailingSince: null, sweepError: null,
  };
  const [head = '', row = ''] = formatOrphans([orphan], { sync: { readAt: now }, now }, 40).split('\n');
  expect([head.length <= 40, row.length <= 40]).toEqual([true, true]);
  expect(row).toMatch(/^12 +unknown +512340001/);
});
