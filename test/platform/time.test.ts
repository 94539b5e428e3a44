import { describe, expect, test } from 'vitest';
import { UnreadableTimeError, msBetween, parseTimestamp, readTimeMs } from '../../src/platform/time.ts';

describe('parseTimestamp', () => {
  test.each([
    ['2026-11-28 09:25:45.123456+00', '2026-11-28T09:25:45.123Z'],
    ['2026-11-28 09:25:45+00', '2026-11-28T09:25:45.000Z'],
    ['2026-11-28 09:25:45.5+00', '2026-11-28T09:25:45.500Z'],
    ['2024-02-29 23:59:59.07+00', '2024-02-29T23:59:59.070Z'],
    ['0044-03-15 12:00:00+00', '0044-03-15T12:00:00.000Z'],
    ['2026-11-28 14:55:45.1+05:30', '2026-11-28T09:25:45.100Z'],
    ['2026-11-28 04:25:45-05', '2026-11-28T09:25:45.000Z'],
  ])('reads %s', (text, iso) => {
    expect(parseTimestamp(text).toISOString()).toBe(iso);
  });

  test('reads infinity as the last time that there is', () => {
    expect(parseTimestamp('infinity').getTime()).toBeGreaterThan(Date.parse('9999-12-31T00:00:00Z'));
  });

  // Of each DateStyle; JavaScript would read the first one of each pair, as another day.
  test.each([
    '11.12.2026 09:25:45.123456 UTC', '28.11.2026 09:25:45 UTC',
    '12/11/2026 09:25:45 UTC', '28/11/2026 09:25:45 UTC',
    'Sat Nov 28 09:25:45.123456 2026 UTC', 'Sat 28 Nov 09:25:45 2026 UTC',
    '2026-11-28 09:25:45', '-infinity', '0044-03-15 12:00:00+00 BC', '2026-13-28 09:25:45+00', '',
  ])('refuses %j', (text) => {
    expect(() => parseTimestamp(text)).toThrow(UnreadableTimeError);
  });
});

test.each([
  ['2026-11-28T09:25:45.123Z', true],
  ['2026-11-28T09:25:45+02:00', true],
  ['28.11.2026 09:25:45', false],
  ['11.12.2026 09:25:45', false],
  ['2026-11-28T09:25:45', false],
  ['2026-11-28', false],
  ['2026-99-28T09:25:45Z', false],
  [17, false],
  [null, false],
])('readTimeMs(%j) is a time: %s', (written, isTime) => {
  expect(readTimeMs(written) !== null).toBe(isTime);
});

test('an age of what is no time is an error, never NaN', () => {
  const now = new Date();
  expect(() => msBetween(new Date(Number.NaN), now)).toThrow(UnreadableTimeError);
  expect(() => msBetween(now, new Date(Number.NaN))).toThrow(UnreadableTimeError);
  expect(() => msBetween('11.12.2026 09:25:45', now)).toThrow(UnreadableTimeError);
  expect(msBetween('2026-11-28T09:25:45Z', new Date('2026-11-28T09:25:46Z'))).toBe(1_000);
});
