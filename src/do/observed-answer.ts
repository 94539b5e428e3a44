// A record of each request to DigitalOcean, for the budget, the metrics and the traces.

import type { Method, OutcomeKind } from './outcome.ts';
import type { RateLimit } from './rate-limit.ts';

/** One request, with or without a response. */
export type ObservedAnswer = {
  readonly method: Method;
  /** With `{id}` in place of ids and without the query string. */
  readonly path: string;
  /** Null without a response. */
  readonly status: number | null;
  readonly outcome: OutcomeKind;
  /** Null if the response has no rate-limit headers. */
  readonly rateLimit: RateLimit | null;
  /** How long to pause; always set for a 429. */
  readonly retryAfterMs: number | null;
  readonly durationMs: number;
  /** DigitalOcean's clock at the time of the response, in Unix milliseconds; null or omitted if the response has none. */
  readonly serverTimeMs?: number | null;
};
