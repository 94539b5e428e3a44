import { describe, expect, test } from 'vitest';
import { creates } from '../../src/steps/intents.ts';
import { makeSaga } from '../support/engine.ts';

const now = new Date('2026-12-11T10:00:00Z');
const updatedAt = new Date('2026-12-11T09:59:50Z');
const ageOf = (context: Parameters<typeof makeSaga>[0] & object) => creates({ saga: makeSaga({ updatedAt, ...context }), now }).ageMs;

describe('the age of the last create', () => {
  test('counts from its announcement', () => {
    expect(ageOf({ context: { create_intents: 1, create_intent_at: '2026-12-11T09:59:00.000Z' } })).toBe(60_000);
  });

  test('is infinite where none was announced', () => {
    expect(ageOf({ context: {} })).toBe(Number.POSITIVE_INFINITY);
  });

  // Not yet proven old: no other POST, no end of the rollback.
  test.each(['11.12.2026 09:59:00', '12/11/2026 09:59:00 UTC', 'NaN', '', 0, null])('counts from the last change of the saga, which came later, where the announcement is %j', (at) => {
    expect(ageOf({ context: { create_intents: 1, create_intent_at: at } })).toBe(10_000);
  });
});
