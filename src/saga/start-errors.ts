// Why a saga was not started.
import type { FieldProblem } from '../platform/request-problems.ts';
import { firstProblems, sentenceOf } from '../platform/request-problems.ts';
import { shorten } from '../platform/text.ts';
import type { Refusal } from './definition.ts';

/** The longest idempotency key. */
export const MAX_KEY_LENGTH = 255;

/** Thrown for an invalid request. The message names the first ten invalid fields, what was expected and the remedy. */
export class InvalidRequestError extends Error {
  override readonly name = 'InvalidRequestError';
  readonly code = 'invalid_request';
  readonly problems: readonly FieldProblem[];

  constructor(problems: readonly FieldProblem[]) {
    const first = firstProblems(problems);
    super(sentenceOf(first));
    this.problems = first;
  }
}

/** Thrown if the idempotency key was already used for something else. */
export class IdempotencyConflictError extends Error {
  override readonly name = 'IdempotencyConflictError';
  readonly code = 'idempotency_conflict';
  readonly sagaId: string;

  constructor(key: string, sagaId: string, what = 'with another input') {
    super(`idempotencyKey: ${JSON.stringify(shorten(key, MAX_KEY_LENGTH))} was used before ${what}, by saga ${sagaId}; use a new key for a new request`);
    this.sagaId = sagaId;
  }
}

/** Thrown if the idempotency key belongs to another caller's saga, about which this caller may learn nothing. */
export class IdempotencyKeyTakenError extends Error {
  override readonly name = 'IdempotencyKeyTakenError';
  readonly code = 'idempotency_conflict';

  constructor(key: string) {
    super(`idempotencyKey: ${JSON.stringify(shorten(key, MAX_KEY_LENGTH))} is taken by a saga that somebody else started, and these credentials may not read it; use a new key for a new request`);
  }
}

/**
 * Thrown if a transaction that has not been committed yet used the idempotency key. Nothing was started. After the commit, a
 * repeated request returns that transaction's saga; after a rollback, it starts one.
 */
export class KeyInProgressError extends Error {
  override readonly name = 'KeyInProgressError';
  readonly code = 'key_in_progress';

  constructor(key: string, cause: unknown) {
    super(`idempotencyKey: a request with ${JSON.stringify(shorten(key, MAX_KEY_LENGTH))} is not committed yet; repeat the request in a moment`, { cause });
  }
}

/** Thrown if the saga cannot be started at the moment. `code` comes from the definition. */
export class StartRefusedError extends Error {
  override readonly name = 'StartRefusedError';
  readonly code: string;
  /** The field of the input that is refused; null: none in particular. */
  readonly field: string | null;

  constructor({ code, message, field }: Refusal) {
    super(message);
    this.code = code;
    this.field = field ?? null;
  }
}
