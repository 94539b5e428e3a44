// What a saga says to people, on pages and in the terminal. The words come with its definition; of a saga whose definition
// a process does not know, it says the plain facts.
import type { Saga } from './saga.ts';

/** What the words of a saga are made of. */
export type SagaFacts = Pick<Saga, 'input' | 'context' | 'error'>;

/**
 * How a saga ended. `text`: a sentence or two. `label`: two or three words for a badge. `tone`: `attention` where a person
 * should look although the saga is over.
 */
export type SagaEnd = Readonly<{ text: string; label: string; tone: 'ok' | 'plain' | 'attention' }>;

/** The words of one saga. Each function is given what is known of the saga, and must not throw for a context that lacks something. */
export type SagaWords = Readonly<{
  /** What is so now that it is completed, as a sentence. */
  completed(saga: SagaFacts): string;
  /** What a cancel does, as it is asked for, in sentences. */
  cancelled(saga: SagaFacts): string;
  /** What is so after it was rolled back; a bare string where nothing is left. */
  rolledBack(saga: SagaFacts): string | SagaEnd;
  /** What may be left while it is stuck, and what that means, as a sentence. */
  stuck(saga: SagaFacts): string;
}>;

const plainWords: SagaWords = {
  completed: () => 'Completed.',
  cancelled: () => 'What its steps have done is undone.',
  rolledBack: () => 'Rolled back.',
  stuck: () => 'What its steps have done may be left.',
};

/** The words of a saga, or plain ones where its definition is not known. */
export function wordsOf(definition: Readonly<{ words?: SagaWords | undefined }> | undefined): SagaWords {
  return definition?.words ?? plainWords;
}

/** How a completed or rolled-back saga ended. */
export function describeEnd(words: SagaWords, saga: SagaFacts & Pick<Saga, 'status'>): SagaEnd {
  if (saga.status === 'completed') return { text: words.completed(saga), label: 'completed', tone: 'ok' };
  const end = words.rolledBack(saga);
  return typeof end === 'string' ? { text: end, label: 'rolled back', tone: 'plain' } : end;
}
