// The description of an effect that a step passes to `once` (see once.ts), and the state of an effect.
import type { Json, JsonObject } from '../platform/json.ts';
import type { Failure } from './failure.ts';

/** Tells `once` how to cause an effect. `Value` must be JSON. */
export type Effect<Value, Prepared = void> = Readonly<{
  /**
   * Prepares what `send` needs and may have to wait for: room in a budget, an opened secret. Called before the
   * announcement, so that nothing counts as sent if it throws.
   */
  prepare?(): Promise<Prepared>;
  /**
   * Sends the request. Put `mark` where `find` can search for it. It is the same for all tries of this effect in this
   * saga, and unique to this effect.
   *
   * @returns what to keep, usually an id
   * @throws {StepFailure} or {StepWait} with `sent: false` if the request certainly had no effect; any other error means
   *   that it may have had one
   */
  send(mark: string, prepared: Prepared): Promise<Value>;
  /**
   * Searches for the effect of an earlier unanswered `send`. Polled until `settleMs` after the last announcement.
   *
   * @returns what `send` would have returned; null if nothing is found (yet)
   */
  find(mark: string, sent: Readonly<{ ageMs: number; unanswered: number }>): Promise<Value | null>;
  /**
   * How long after its announcement a request's effect may still appear, in milliseconds; default one minute. Must exceed
   * the time that a worker may be frozen unnoticed (`WORKER_LOCK_MS`) and the time that the service takes for a request.
   */
  settleMs?: number;
  /** Time between two polls, in milliseconds; default five seconds. */
  pollMs?: number;
  /** How many requests may go unanswered before the step fails permanently; default three. */
  maxSends?: number;
  /** The failure of the step in that case. */
  giveUp?(sends: number): Failure;
  /** The text of an announcement in the timeline. */
  announcement?: string;
  /** Step outputs to record together with each announcement. */
  announces?: JsonObject;
  /** Why the saga waits while `find` returns nothing. */
  notYet?: string;
  /**
   * The context keys of the effect's state; by default derived from the names of the step and the effect. Use the same
   * for `once`, `undo` and `effects`.
   */
  keys?: Partial<EffectKeys>;
  /**
   * The step itself returns the value in its outputs, under `keys.value`. This saves one write. If the worker dies before
   * the step's end, `find` has to search once.
   */
  recordsWithStep?: true;
}>;

/** Tells `undo` how to undo an effect. */
export type Undoing<Value> = Readonly<{
  /** Undoes the effect. Must be idempotent and succeed if the effect is already gone. */
  undo(value: Value): Promise<void>;
  /** As for `once`: searches for the effect of an unanswered request that `undo` has not undone yet. */
  find: Effect<Value>['find'];
  settleMs?: number;
  pollMs?: number;
  keys?: Partial<EffectKeys>;
}>;

/**
 * Context keys: the number of announced requests, how many of them certainly had no effect, the time of the last
 * announcement, and the result.
 */
export type EffectKeys = Readonly<{
  sends: string;
  refusals: string;
  sentAt: string;
  value: string;
  /** Whether a stored value is valid; by default all are. An invalid value counts as not recorded. */
  isValue?(stored: Json): boolean;
}>;

/** What is known of an effect. `unknown`: a request was sent, and its result is unknown. */
export type EffectState<Value> = Readonly<{
  state: 'never' | 'unknown' | 'done';
  /** The result of `send` or `find`; null unless the state is `done`. */
  value: Value | null;
  mark: string;
  /** Number of requests announced so far. */
  sends: number;
  /** Number of requests that may have had an effect that is not recorded. */
  unanswered: number;
  /** The least time since the last announcement, in milliseconds by the database's clock; infinite if there was none. */
  ageMs: number;
}>;
