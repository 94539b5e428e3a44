// What the budget, the metrics and the traces are told about each request to DigitalOcean.

import type { Method, OutcomeKind } from './outcome.ts';
import type { RateLimit } from './rate-limit.ts';

/** What an observer is told about each request, answered or not. */
export type ObservedAnswer = {
  readonly method: Method;
  /** With `{id}` in place of ids, and without the query. */
  readonly path: string;
  /** Null when there was no answer. */
  readonly status: number | null;
  readonly outcome: OutcomeKind;
  /** Null when the answer does not say. */
  readonly rateLimit: RateLimit | null;
  /** How long to leave the API alone; always set for a 429. */
  readonly retryAfterMs: number | null;
  readonly durationMs: number;
};
