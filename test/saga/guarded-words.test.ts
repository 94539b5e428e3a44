// The words of a definition are asked about every saga, whatever its input. What fails there stays there.
import { describe, expect, test } from 'vitest';
import type { Saga } from '../../src/saga/saga.ts';
import type { SagaWords, StepWords } from '../../src/saga/saga-words.ts';
import { describeEnd, leftoversOf, surfaceOf, titleOf } from '../../src/saga/words.ts';

const saga = { saga8: '1234abcd', name: 'ship', status: 'compensated', input: { name: 'parcel-1' }, context: {}, error: null } as const satisfies Partial<Saga>;

const broken = {
  'throw': () => {
    throw new TypeError("Cannot read properties of undefined (reading 'name')");
  },
  'return nothing': () => undefined,
  'return a promise': async () => Promise.resolve('done'),
  'return what has another shape': () => ({ text: 1, kind: null, values: 'none' }),
};

/** What no type lets through. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- on purpose
const untyped = (say: () => unknown) => say as () => never;

describe.each(Object.entries(broken))('words that %s', (_how, say) => {
  const all: SagaWords = { subject: untyped(say), outputs: untyped(say), cancelDestroys: untyped(say), completed: untyped(say), cancelled: untyped(say), rolledBack: untyped(say), stuck: untyped(say) };
  const waits: StepWords = { doing: 'packing', notYet: untyped(say), waitsFor: untyped(say), limitMs: untyped(say) };
  const surface = surfaceOf({ ship: { words: all, steps: [{ name: 'pack', words: waits }] } });
  const words = surface.words(saga);

  test('leave plain facts', () => {
    expect([words.completed(saga), words.cancelled(saga), words.stuck(saga)]).toEqual(['Completed.', 'Its completed steps are undone.', 'Effects of its steps may remain.']);
    expect(titleOf(words, saga)).toBe('parcel-1');
    expect(titleOf(words, { ...saga, input: {} })).toBe('1234abcd');
    expect(words.outputs?.(saga)).toEqual({ name: 'outputs', values: [] });
    const step = surface.step('pack');
    expect([step?.doing, step?.notYet?.(saga), step?.waitsFor?.(saga), step?.limitMs?.(saga)]).toEqual(['packing', 'Not done yet', 'what its step waits for', null]);
  });

  test('never say that nothing is left, or that a cancel destroys nothing', () => {
    expect(describeEnd(words, saga)).toMatchObject({ tone: 'attention' });
    expect(leftoversOf({ rolledBack: untyped(say) }, saga)).toContain('What is left is not known');
    expect(words.cancelDestroys?.(saga)).toBe(true);
  });
});

test('words that work are said as they are', () => {
  const end = { text: 'One parcel is on its way.', label: 'sent', tone: 'attention', rerunIsSafe: true } as const;
  const words = surfaceOf({ ship: { words: { subject: () => ({ kind: 'parcel', name: null, id: '7' }), cancelDestroys: () => false, rolledBack: () => end }, steps: [] } }).words(saga);
  expect([titleOf(words, saga), words.cancelDestroys?.(saga), describeEnd(words, saga), leftoversOf(words, saga)]).toEqual(['parcel 7', false, end, null]);
});
