// The texts of a saga for people, on pages and in the terminal. They come from its definition and its steps. A saga
// without a known definition shows plain facts.
import { shortTextOf } from '../platform/text.ts';
import type { Redaction } from './redact.ts';
import { redactionOf } from './redact.ts';
import type { Saga, SagaStatus } from './saga.ts';

/** The input for a saga's words. */
export type SagaFacts = Pick<Saga, 'input' | 'context' | 'error'>;

/**
 * How a saga ended. `text`: one or two sentences. `label`: two or three words for a badge. `tone`: `attention` if a
 * person should check although the saga is over; a rerun must then be confirmed, because the new saga might make a second
 * one of what is left. `rerunIsSafe`: it cannot, such as another attempt to delete something.
 */
export type SagaEnd = Readonly<{ text: string; label: string; tone: 'ok' | 'plain' | 'attention'; rerunIsSafe?: boolean }>;

/**
 * The subject of a saga. `kind`: one word, such as `server`. `name`: as people call it. `id`: as its provider calls it.
 * Null: unknown.
 */
export type Subject = Readonly<{ kind: string; name: string | null; id: string | null }>;

/**
 * Words for a step's work. `provider`: the service it calls, by name. `notYet`: what a waiting step waits for, as the
 * beginning of a sentence. `waitsFor`: the same as the object of "waits for". `limitMs`: its longest wait; null if that
 * is a number of polls and not a time. `milestone`: what a saga has become once the step is done, such as `active`; the
 * page of the fleet shows how long sagas take to it.
 */
export type StepWords = Readonly<{ doing: string; provider?: string; notYet?(saga: SagaFacts): string; waitsFor?(saga: SagaFacts): string; limitMs?(saga: SagaFacts): number | null; milestone?: string }>;

/** The words of one saga. Each function receives what is known of the saga, and must not throw if the context is incomplete. */
export type SagaWords<Facts = SagaFacts> = Readonly<{
  subject?(saga: Facts): Subject;
  /** What it produced, such as addresses: a name and the values. */
  outputs?(saga: Facts): Readonly<{ name: string; values: readonly string[] }>;
  /** Whether a cancel destroys the saga's subject and everything in it. */
  cancelDestroys?(saga: Facts): boolean;
  /** The result after completion, as a sentence. */
  completed(saga: Facts): string;
  /** What a cancel does, in sentences; shown when a person asks for it. */
  cancelled(saga: Facts): string;
  /** The result after a rollback; a plain string if nothing is left. */
  rolledBack(saga: Facts): string | SagaEnd;
  /** What may be left while it is stuck, and what that means, as a sentence. */
  stuck(saga: Facts): string;
  /** The most common causes of being stuck, for a person to check: a list in words. */
  causes?: string;
}>;

/** The statuses as shown on pages and terminals. Programs and filters use the stored names. */
export const statusWords: Readonly<Record<SagaStatus, string>> = {
  pending: 'waiting',
  running: 'running',
  completed: 'completed',
  compensating: 'rolling back',
  compensated: 'rolled back',
  stuck: 'needs attention',
};

const plainWords: SagaWords = {
  completed: () => 'Completed.',
  cancelled: () => 'Its completed steps are undone.',
  rolledBack: () => 'Rolled back.',
  stuck: () => 'Effects of its steps may remain.',
};

type Worded = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; secrets?: readonly string[]; steps: readonly Readonly<{ name: string; words?: StepWords }>[] }>>>;

/** The texts of sagas and steps on pages and terminals, by name. */
export type Surface = Readonly<{
  /** Plain words if the saga is unknown. */
  words(saga: Pick<Saga, 'name'>): SagaWords;
  /** Null if the step is unknown or has no words. */
  step(name: string): StepWords | null;
  /** Hides the sagas' secrets. */
  redact: Redaction;
}>;

/** Collects the words of the sagas that a process knows. */
export function surfaceOf(definitions: Worded): Surface {
  const sagas = new Map(Object.entries(definitions).map(([name, { words }]) => [name, { ...plainWords, ...words }] as const));
  const steps = new Map(Object.values(definitions).flatMap((definition) => definition.steps.map(({ name, words }) => [name, words ?? null] as const)));
  return {
    words: ({ name }) => sagas.get(name) ?? plainWords,
    step: (name) => steps.get(name) ?? null,
    redact: redactionOf(definitions),
  };
}

/** A step whose completion people wait for. `label`: what the saga has become by then. */
export type Milestone = Readonly<{ saga: string; step: string; label: string }>;

/** Lists the milestones of these sagas. */
export function milestonesOf(definitions: Worded): Milestone[] {
  return Object.entries(definitions).flatMap(([saga, { steps }]) => steps.flatMap(({ name, words }) => (words?.milestone === undefined ? [] : [{ saga, step: name, label: words.milestone }])));
}

/** Returns a saga's one-line title: its subject's name, or what is known instead. */
export function titleOf(words: SagaWords, saga: SagaFacts & Pick<Saga, 'saga8'>): string {
  const { kind, name, id } = words.subject?.(saga) ?? { kind: 'saga', name: shortTextOf(saga.input['name']), id: null };
  if (name !== null && name !== '') return name;
  return id === null ? saga.saga8 : `${kind} ${id}`;
}

/** Describes how a completed or rolled-back saga ended. */
export function describeEnd(words: SagaWords, saga: SagaFacts & Pick<Saga, 'status'>): SagaEnd {
  if (saga.status === 'completed') return { text: words.completed(saga), label: 'completed', tone: 'ok' };
  const end = words.rolledBack(saga);
  return typeof end === 'string' ? { text: end, label: 'rolled back', tone: 'plain' } : end;
}

/** Returns what the rollback of a saga may have left, as a sentence; null if a rerun needs no confirmation. */
export function leftoversOf(words: Partial<Pick<SagaWords, 'rolledBack'>>, saga: SagaFacts & Pick<Saga, 'status'>): string | null {
  const end = saga.status === 'compensated' ? words.rolledBack?.(saga) : undefined;
  return typeof end === 'object' && end.tone === 'attention' && end.rerunIsSafe !== true ? end.text : null;
}
