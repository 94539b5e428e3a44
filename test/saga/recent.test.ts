import { expect, test } from 'vitest';
import { createRecentSagas } from '../../src/saga/recent.ts';
import { makeSaga } from '../support/engine.ts';

const at = new Date('2026-01-01T00:00:00Z');

function recentAt(clock: { ms: number }, max = 10) {
  return createRecentSagas({ max, maxAgeMs: 1_000 }, () => clock.ms);
}

test('hands a saga out once, to the job of its revision, and says how old it is', () => {
  const clock = { ms: 100 };
  const recent = recentAt(clock);
  const saga = makeSaga({ revision: 3, updatedAt: at });
  recent.put(saga, 60);
  clock.ms = 500;
  const job = { sagaId: saga.id, revision: 3 };
  // Sent at 60, known at 100: the claim is as old as the statement, the clock no later than the reply allows.
  expect(recent.take(job)).toEqual({ saga, now: new Date(at.getTime() + 400), dueInMs: 0, memo: {}, inputChecked: true, ageMs: 440 });
  expect(recent.take(job)).toBeNull();
});

test.each([
  ['a job of another revision', 3, 500, 4],
  ['a job that comes too late', 3, 1_101, 3],
])('hands nothing to %s', (_what, written, ms, claimed) => {
  const clock = { ms: 100 };
  const recent = recentAt(clock);
  const saga = makeSaga({ revision: written });
  recent.put(saga, 100);
  clock.ms = ms;
  expect(recent.take({ sagaId: saga.id, revision: claimed })).toBeNull();
});

test('keeps no more than it may hold, until the old ones are over', () => {
  const clock = { ms: 0 };
  const recent = recentAt(clock, 2);
  const sagas = [1, 2, 3].map(() => makeSaga({ revision: 1 }));
  for (const saga of sagas) recent.put(saga, 0);
  clock.ms = 1_001;
  const late = makeSaga({ revision: 1 });
  recent.put(late, 1_001);
  expect(recent.take({ sagaId: late.id, revision: 1 })).not.toBeNull();

  const others = [1, 2, 3].map(() => makeSaga({ revision: 1 }));
  for (const saga of others) recent.put(saga, 1_001);
  expect(others.map(({ id }) => recent.take({ sagaId: id, revision: 1 }) !== null)).toEqual([true, true, false]);
});
