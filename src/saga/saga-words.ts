// The words of sagas and steps: what a definition says to people, as its author writes it.
import type { Saga } from './saga.ts';

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
 * page of the fleet shows how long sagas take to it. `remains`: what a rollback left of the step's `remains`, for a person to
 * check; null: nothing. Without it, the keys are named.
 */
export type StepWords = Readonly<{ doing: string; provider?: string; notYet?(saga: SagaFacts): string; waitsFor?(saga: SagaFacts): string; limitMs?(saga: SagaFacts): number | null; milestone?: string; remains?(saga: SagaFacts): string | SagaEnd | null }>;

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
  /** The result after a rollback; a plain string if nothing is left. What its steps left is said in any case. */
  rolledBack(saga: Facts): string | SagaEnd;
  /** What may be left while it is stuck, and what that means, as a sentence. */
  stuck(saga: Facts): string;
  /** The most common causes of being stuck, for a person to check: a list in words. */
  causes?: string;
}>;
