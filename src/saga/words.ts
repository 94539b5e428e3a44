// The texts of a saga for people, on pages and in the terminal. They come from its definition and its steps. A saga
// without a known definition shows plain facts.
import { endAfterRollback, guardedStepWords, guardedWords, plainSubject, plainWords } from './guarded-words.ts';
import type { LeavingStep } from './leftovers.ts';
import { endWithLeftovers } from './leftovers.ts';
import type { Redaction } from './redact.ts';
import { redactionOf } from './redact.ts';
import type { SagaEnd, SagaFacts, SagaWords, StepWords } from './saga-words.ts';
import type { Saga, SagaStatus } from './saga.ts';

/** The statuses as shown on pages and terminals. Programs and filters use the stored names. */
export const statusWords: Readonly<Record<SagaStatus, string>> = {
  pending: 'waiting',
  running: 'running',
  completed: 'completed',
  compensating: 'rolling back',
  compensated: 'rolled back',
  stuck: 'needs attention',
};

type Worded = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; secrets?: readonly string[]; steps: readonly (LeavingStep & Readonly<{ words?: StepWords }>)[] }>>>;

type Leaving = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; steps: readonly LeavingStep[] }>>>;

/** A saga by its name. `steps`: those of its row; without them, those of its definition. */
type Named = Pick<Saga, 'name'> & Partial<Pick<Saga, 'steps'>>;

/** The texts of sagas and steps on pages and terminals, by name. */
export type Surface = Readonly<{
  /** Plain words if the saga is unknown. What known steps left is said in any case. */
  words(saga: Named): SagaWords;
  /** Null if the step is unknown or has no words. */
  step(name: string): StepWords | null;
  /** Hides the sagas' secrets. */
  redact: Redaction;
}>;

/** Collects the words of the sagas that a process knows. */
export function surfaceOf(definitions: Worded): Surface {
  const steps = new Map(Object.values(definitions).flatMap((definition) => definition.steps.map(({ name, words }) => [name, words === undefined ? null : guardedStepWords(words)] as const)));
  return {
    words: wordsIn(definitions),
    step: (name) => steps.get(name) ?? null,
    redact: redactionOf(definitions),
  };
}

/** Returns the words of a saga. They never say that nothing is left where a step, of any saga known here, left something. */
export function wordsIn(definitions: Leaving): (saga: Named) => SagaWords {
  const known = new Map(Object.entries(definitions).map(([name, { words, steps }]) => [name, { words: guardedWords({ ...plainWords, ...words }), steps }] as const));
  const leaving = new Map(Object.values(definitions).flatMap(({ steps }) => steps.flatMap((step) => (step.remains === undefined ? [] : [[step.name, step] as const]))));
  return ({ name, steps = [] }) => {
    const definition = known.get(name);
    const words = definition?.words ?? plainWords;
    // Another version of the definition may have started the saga, so the steps of its row count too.
    const names = new Set([...(definition?.steps ?? []).map((step) => step.name), ...steps]);
    const mayLeave = [...names].flatMap((step) => leaving.get(step) ?? []);
    return { ...words, rolledBack: (saga) => endWithLeftovers(words.rolledBack(saga), mayLeave, saga) };
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
  const { kind, name, id } = words.subject?.(saga) ?? plainSubject(saga);
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
  const end = saga.status === 'compensated' && words.rolledBack !== undefined ? endAfterRollback(words.rolledBack, saga) : undefined;
  return typeof end === 'object' && end.tone === 'attention' && end.rerunIsSafe !== true ? end.text : null;
}
