// The words of sagas and steps come from their authors, and are asked about every row, whatever its input. One that throws or
// returns something else must not take a whole list down: plain facts stand in for it, which never say that nothing is left.
import { shortTextOf } from '../platform/text.ts';
import type { Saga } from './saga.ts';
import type { SagaEnd, SagaFacts, SagaWords, StepWords, Subject } from './saga-words.ts';

/** What is said of a saga without words. */
export const plainWords: SagaWords = {
  completed: () => 'Completed.',
  cancelled: () => 'Its completed steps are undone.',
  rolledBack: () => 'Rolled back.',
  stuck: () => 'Effects of its steps may remain.',
};

const unknownEnd: SagaEnd = { text: 'Rolled back. What is left is not known, because the words of its definition failed: check it.', label: 'rolled back', tone: 'attention' };

/** The same words, none of which throws or returns anything else than it should. */
export function guardedWords(words: SagaWords): SagaWords {
  const { subject, outputs, cancelDestroys } = words;
  return {
    completed: guarded(words.completed, isText, plainWords.completed),
    cancelled: guarded(words.cancelled, isText, plainWords.cancelled),
    stuck: guarded(words.stuck, isText, plainWords.stuck),
    rolledBack: (saga) => endAfterRollback(words.rolledBack, saga),
    ...(words.causes === undefined ? {} : { causes: words.causes }),
    ...(subject === undefined ? {} : { subject: guarded(subject, isSubject, plainSubject) }),
    ...(outputs === undefined ? {} : { outputs: guarded(outputs, isOutputs, () => ({ name: 'outputs', values: [] })) }),
    // If it is not known, it might.
    ...(cancelDestroys === undefined ? {} : { cancelDestroys: guarded(cancelDestroys, (answer) => typeof answer === 'boolean', () => true) }),
  };
}

/** The same for the words of a step. */
export function guardedStepWords(words: StepWords): StepWords {
  const { notYet, waitsFor, limitMs } = words;
  return {
    ...words,
    ...(notYet === undefined ? {} : { notYet: guarded(notYet, isText, () => 'Not done yet') }),
    ...(waitsFor === undefined ? {} : { waitsFor: guarded(waitsFor, isText, () => 'what its step waits for') }),
    ...(limitMs === undefined ? {} : { limitMs: guarded(limitMs, (answer) => answer === null || typeof answer === 'number', () => null) }),
  };
}

/** What a definition says of a rolled-back saga. If it fails, a person should check. */
export function endAfterRollback(rolledBack: SagaWords['rolledBack'], saga: SagaFacts): string | SagaEnd {
  return guarded(rolledBack, (said) => isText(said) || isEnd(said), () => unknownEnd)(saga);
}

/** What is known of a saga whose definition does not say what it is about. */
export function plainSubject({ input }: Pick<Saga, 'input'>): Subject {
  return { kind: 'saga', name: shortTextOf(input['name']) || null, id: null };
}

function guarded<Facts, Result>(say: (saga: Facts) => Result, isFine: (said: unknown) => boolean, instead: (saga: Facts) => Result): (saga: Facts) => Result {
  return (saga) => {
    try {
      const said = say(saga);
      return isFine(said) ? said : instead(saga);
    } catch {
      return instead(saga);
    }
  };
}

function isText(said: unknown): boolean {
  return typeof said === 'string';
}

/** Whether a value is an end with all its parts. */
export function isEnd(said: unknown): said is SagaEnd {
  return isObject(said) && isText(said['text']) && isText(said['label']) && ['ok', 'plain', 'attention'].includes(String(said['tone']));
}

function isSubject(said: unknown): boolean {
  return isObject(said) && isText(said['kind']) && [said['name'], said['id']].every((part) => part === null || isText(part));
}

function isOutputs(said: unknown): boolean {
  return isObject(said) && isText(said['name']) && Array.isArray(said['values']) && said['values'].every(isText);
}

function isObject(said: unknown): said is Readonly<Record<string, unknown>> {
  return typeof said === 'object' && said !== null;
}
