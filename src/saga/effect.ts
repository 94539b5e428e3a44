// What a step says of an effect that it brings about (see once.ts), and what it is told of one.
import type { Json } from '../platform/json.ts';
import type { Failure } from './failure.ts';

/** How `once` brings an effect about. `Value` must be JSON. */
export type Effect<Value, Prepared = void> = Readonly<{
  /**
   * What `send` needs, and what may have to be waited for: a place in a budget, an opened secret. Called before the
   * announcement, so that nothing counts as sent where it throws.
   */
  prepare?(): Promise<Prepared>;
  /**
   * Sends the request. `mark` is to be put where `find` can look for it: it is the same for all tries of this effect in
   * this saga, and no other effect has it.
   *
   * @returns what is to be kept: an id, mostly
   * @throws {StepFailure} or {StepWait} with `sent: false` where the request surely had no effect; any other error means
   *   that it may have had one
   */
  send(mark: string, prepared: Prepared): Promise<Value>;
  /**
   * Looks for what an earlier `send` without an answer has done. Asked again and again until `settleMs` after the last
   * announcement.
   *
   * @returns what `send` would have returned; null where there is nothing (yet)
   */
  find(mark: string, sent: Readonly<{ ageMs: number; unanswered: number }>): Promise<Value | null>;
  /**
   * How long after a request was announced its effect may still come to light, in milliseconds: one minute unless told otherwise.
   * Longer than a worker may be frozen unnoticed (`WORKER_LOCK_MS`) and than the service takes with a request.
   */
  settleMs?: number;
  /** Between two looks, in milliseconds: five seconds unless told otherwise. */
  pollMs?: number;
  /** How many requests may go without an answer before the step fails for good: three unless told otherwise. */
  maxSends?: number;
  /** What the step fails with then. */
  giveUp?(sends: number): Failure;
  /** What the timeline says of an announcement. */
  announcement?: string;
  /** Why the saga waits while `find` shows nothing yet. */
  notYet?: string;
  /** Under which keys of the context it is kept; made of the names of step and effect where left out. The same for `once`, `undo` and `effects`. */
  keys?: Partial<EffectKeys>;
  /**
   * The step itself puts the value into its outputs, under `keys.value`: one write fewer. A worker that dies before the
   * step's end costs a look by `find`.
   */
  recordsWithStep?: true;
}>;

/** How `undo` takes an effect back. */
export type Undoing<Value> = Readonly<{
  /** Takes it back. Must be idempotent, and bear that it is gone already. */
  undo(value: Value): Promise<void>;
  /** As for `once`: looks for what a request without an answer has done, and what `undo` has not taken back yet. */
  find: Effect<Value>['find'];
  settleMs?: number;
  pollMs?: number;
  keys?: Partial<EffectKeys>;
}>;

/** Keys of the context: how many requests were announced, how many of them surely did nothing, when the last one was announced, and what came of it. */
export type EffectKeys = Readonly<{
  sends: string;
  refusals: string;
  sentAt: string;
  value: string;
  /** Whether what stands there is a value; anything is, where left out. What is none counts as not recorded. */
  isValue?(stored: Json): boolean;
}>;

/** What is known of an effect. `unknown`: a request went out, and nobody knows what it did. */
export type EffectState<Value> = Readonly<{
  state: 'never' | 'unknown' | 'done';
  /** What `send` or `find` returned; null unless it is `done`. */
  value: Value | null;
  mark: string;
  /** Requests announced so far. */
  sends: number;
  /** Those that may have done something that is not recorded. */
  unanswered: number;
  /** How long ago the last one was announced at least, in milliseconds by the database's clock; infinite where none was. */
  ageMs: number;
}>;
