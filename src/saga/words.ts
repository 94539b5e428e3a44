// What a saga says to people, on pages and in the terminal. The words come with its definition and those of its steps; of a
// saga whose definition a process does not know, it says the plain facts.
import { shortTextOf } from '../platform/text.ts';
import type { Redaction } from './redact.ts';
import { redactionOf } from './redact.ts';
import type { Saga } from './saga.ts';

/** What the words of a saga are made of. */
export type SagaFacts = Pick<Saga, 'input' | 'context' | 'error'>;

/**
 * How a saga ended. `text`: a sentence or two. `label`: two or three words for a badge. `tone`: `attention` where a person
 * should look although the saga is over.
 */
export type SagaEnd = Readonly<{ text: string; label: string; tone: 'ok' | 'plain' | 'attention' }>;

/** What a saga is about. `kind`: one word, such as `server`. `name`: as people call it; `id`: as its provider does; null: not known. */
export type Subject = Readonly<{ kind: string; name: string | null; id: string | null }>;

/**
 * Words for what a step does. `provider`: whom it asks, by name. `notYet`: what it waits for, as the beginning of a sentence,
 * where it is a step that waits.
 */
export type StepWords = Readonly<{ doing: string; provider?: string; notYet?(saga: SagaFacts): string }>;

/** The words of one saga. Each function is given what is known of the saga, and must not throw for a context that lacks something. */
export type SagaWords<Facts = SagaFacts> = Readonly<{
  subject?(saga: Facts): Subject;
  /** What it handed out, such as addresses: a name and the values. */
  outputs?(saga: Facts): Readonly<{ name: string; values: readonly string[] }>;
  /** Whether a cancel destroys what the saga is about, with all that is in it. */
  cancelDestroys?(saga: Facts): boolean;
  /** What is so now that it is completed, as a sentence. */
  completed(saga: Facts): string;
  /** What a cancel does, as it is asked for, in sentences. */
  cancelled(saga: Facts): string;
  /** What is so after it was rolled back; a bare string where nothing is left. */
  rolledBack(saga: Facts): string | SagaEnd;
  /** What may be left while it is stuck, and what that means, as a sentence. */
  stuck(saga: Facts): string;
  /** What most often keeps it stuck, for a person to look at: a list in words. */
  causes?: string;
}>;

const plainWords: SagaWords = {
  completed: () => 'Completed.',
  cancelled: () => 'What its steps have done is undone.',
  rolledBack: () => 'Rolled back.',
  stuck: () => 'What its steps have done may be left.',
};

type Worded = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; secrets?: readonly string[]; steps: readonly Readonly<{ name: string; words?: StepWords }>[] }>>>;

/** What pages and terminals say of sagas and steps, by their names. */
export type Surface = Readonly<{
  /** Plain words where the saga is not known. */
  words(saga: Pick<Saga, 'name'>): SagaWords;
  /** Null where the step is not known, or has no words. */
  step(name: string): StepWords | null;
  /** Hides the secrets of the sagas. */
  redact: Redaction;
}>;

/** Takes the words of the sagas that a process knows. */
export function surfaceOf(definitions: Worded): Surface {
  const sagas = new Map(Object.entries(definitions).map(([name, { words }]) => [name, { ...plainWords, ...words }] as const));
  const steps = new Map(Object.values(definitions).flatMap((definition) => definition.steps.map(({ name, words }) => [name, words ?? null] as const)));
  return {
    words: ({ name }) => sagas.get(name) ?? plainWords,
    step: (name) => steps.get(name) ?? null,
    redact: redactionOf(definitions),
  };
}

/** What a saga is called where it has one line: the name of what it is about, or what is known instead. */
export function titleOf(words: SagaWords, saga: SagaFacts & Pick<Saga, 'saga8'>): string {
  const { kind, name, id } = words.subject?.(saga) ?? { kind: 'saga', name: shortTextOf(saga.input['name']), id: null };
  if (name !== null && name !== '') return name;
  return id === null ? saga.saga8 : `${kind} ${id}`;
}

/** How a completed or rolled-back saga ended. */
export function describeEnd(words: SagaWords, saga: SagaFacts & Pick<Saga, 'status'>): SagaEnd {
  if (saga.status === 'completed') return { text: words.completed(saga), label: 'completed', tone: 'ok' };
  const end = words.rolledBack(saga);
  return typeof end === 'string' ? { text: end, label: 'rolled back', tone: 'plain' } : end;
}
