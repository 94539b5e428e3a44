import { expect, test } from 'vitest';
import { stampAgeMs } from '../../src/saga/stamps.ts';
import { makeSaga } from '../support/engine.ts';

const now = new Date('2026-12-11T10:00:00Z');

test.each([
  ['2026-12-11T09:59:00.000Z', 60_000],
  ['11.12.2026 09:59:00', 10_000],
  [null, 10_000],
  [undefined, null],
])('of a stamp %j, the age is %j', (stamp, ageMs) => {
  const saga = makeSaga({ updatedAt: new Date('2026-12-11T09:59:50Z'), context: stamp === undefined ? {} : { delete_sent_at: stamp } });
  expect(stampAgeMs({ saga, now }, 'delete_sent_at')).toBe(ageMs);
});
