// The step contract between the engine and the files in src/steps.
import type { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import type { Effect, EffectKeys, EffectState, Undoing } from './effect.ts';
import type { Failure } from './failure.ts';
import type { Direction, Saga } from './saga.ts';
import type { StepFamily } from './step-family.ts';
import type { StepWords } from './saga-words.ts';

/**
 * One step of a saga.
 *
 * Both functions may run more than once for the same saga: after a crash, in another worker, even in two workers at once.
 * They must produce the same result each time.
 *
 * - `execute` does the step's work. It returns `done` with its outputs, which are merged into the saga's context, or
 *   `waiting` if it is too early to tell: the job returns after a delay and occupies no worker meanwhile. It throws a
 *   {@link StepFailure} if it failed. Any other error counts as a failure that may be retried.
 * - `compensate` undoes the work. It runs for every step that may have started, including the failed one, in reverse
 *   order. So it must also work if `execute` never ran, ran halfway, or was already undone.
 * - `superseded` is called if `execute` did its work, or a part of it that it returned or threw with outputs, but could
 *   not record it because another writer had moved the saga on. It receives the saga's current state and undoes what
 *   would otherwise be orphaned.
 */
export type Step<Deps, Context = JsonObject, Adds extends JsonObject = JsonObject> = Readonly<{
  name: string;
  /**
   * What the input or earlier steps must have added to the context. Checked when the saga is defined, and when the step
   * reads `run.context`.
   */
  needs?: z.ZodObject;
  /** What the step adds to the context. Its outputs are validated against this. */
  adds?: z.ZodObject;
  /**
   * Keys of the context that say what a rollback left behind, or what had happened before it and cannot be undone. Callers
   * get them with the outcome of a rolled-back saga, which has no other outputs. While one of them is filled, the saga asks a
   * person to check, and a rerun must be confirmed: `words.remains` can say more, or that there is nothing to check.
   */
  remains?: z.ZodObject;
  /**
   * `execute` has no lasting effect before its first `record`, or none at all. If it is a saga's first step, the start of
   * the saga is written together with its first write, and not before it runs.
   */
  recordsFirst?: true;
  /**
   * The work cannot be undone and must be done. A forward-only step has as many attempts as a compensation. If it fails
   * permanently, the saga is `stuck` until a person resumes or cancels it. It is rolled back only for a failure with
   * `nothingDone`.
   */
  forwardOnly?: true;
  /**
   * A field of the input: the step is part of a saga only if its input has this field. Decided when the saga starts. Not
   * allowed for a saga's first step.
   */
  onlyWith?: string;
  /**
   * Fields of the input that another step of the saga carries out, with the name of that step. A saga without that step is not
   * started with such a field.
   */
  carriedOutBy?: Readonly<Record<string, string>>;
  /** Its texts for people while it runs; its name by default. */
  words?: StepWords;
  /** The family of steps that use the same service and extend the worker for it; none by default. */
  family?: StepFamily;
  execute(run: StepRun<Context>, deps: Deps): Promise<StepOutcome<Adds>>;
  compensate(run: StepRun, deps: Deps): Promise<StepOutcome>;
  superseded?(run: StepRun, outputs: JsonObject, deps: Deps): Promise<void>;
}>;

/** The outcome of running a step. */
export type StepOutcome<Adds extends JsonObject = JsonObject> =
  | Readonly<{ kind: 'done'; outputs: Adds; note?: string }>
  /**
   * Not yet. Uses no attempt. `memo` holds counters for the next run. `outputs`, if given, are written at once. `alarm`:
   * a person should know. `heldBy`: the circuit that holds the saga, which is woken when it closes.
   */
  | Readonly<{ kind: 'waiting'; delayMs: number; reason: string; memo?: Memo; outputs?: JsonObject; alarm?: boolean; heldBy?: string }>
  | Readonly<{ kind: 'failed'; error: Failure; outputs?: JsonObject }>;

/**
 * Counters that one run of a step passes to the next. They are stored in the queue and may be lost. Steps must tolerate
 * that.
 */
export type Memo = Readonly<Record<string, number>>;

/** A step's view of one run. */
export type StepRun<Context = JsonObject> = Readonly<{
  /** The saga as in the database. A getter, because `record` updates it. */
  saga: Saga;
  /**
   * The saga's input and outputs so far, merged at the first access; outputs override the input. In forward direction,
   * parsed by the step's `needs`.
   *
   * @throws {StepFailure} `context_missing`
   */
  context: Context;
  direction: Direction;
  memo: Memo;
  /** The database's clock when the saga was read. Compare it with times from the database, never with this machine's. */
  now: Date;
  /**
   * Writes `outputs` into the saga's context before the step continues, so that the next run knows them. `stamps` are
   * context keys that are set to the database's time (ISO 8601).
   *
   * @throws {StaleRevisionError} if another writer has moved the saga on; stop
   */
  record(note: string, outputs: JsonObject, stamps?: readonly string[]): Promise<void>;
  /**
   * Throws unless this worker proved its claim on the saga a moment ago. Call it right before an effect that cannot be
   * repeated: a process that was frozen for longer than its lock may have been replaced.
   *
   * @throws {StaleRevisionError}
   */
  assertClaimIsFresh(): void;
  /**
   * Causes an effect in an external service at most once, whatever crashes: announces it before sending, searches for it
   * if the response was lost, and records the result.
   *
   * @param name of the effect, unique in its step: lower-case letters, digits and _
   * @returns the result of `send`, from this run or an earlier one; or the result of `find`
   * @throws {StepWait} {StepFailure} {StaleRevisionError}; the step must not catch them
   */
  once<Value, Prepared = void>(name: string, effect: Effect<Value, Prepared>): Promise<Value>;
  /**
   * Undoes an effect of this step, even if it is unknown whether the effect exists.
   *
   * @returns whether there was anything to undo
   * @throws {StepWait} while the effect may still appear; the step must not catch it
   */
  undo<Value>(name: string, undoing: Undoing<Value>): Promise<boolean>;
  /** Returns what is known of an effect of this step. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says what `send` returned
  effects<Value>(name: string, keys?: Partial<EffectKeys>): EffectState<Value>;
  /**
   * Opens a secret of the saga: an input field that its definition declares secret. `saga.input` only shows its size.
   *
   * @returns undefined if the input has none with this name
   * @throws {StepWait} while this worker lacks the key; {StepFailure} `<field>_unreadable`; {StaleRevisionError}; the
   *   step must not catch them
   */
  secret(field: string): Promise<string | undefined>;
  /**
   * The saga and revision of this run. As SQL it yields one row while the claim holds: use it in a write that must not
   * come late.
   */
  claim: Claim;
  log: Log;
}>;

/** The saga and the revision that a write belongs to. */
export type Claim = Readonly<{ sagaId: string; revision: number }>;

/** Thrown by a step that failed. */
export class StepFailure extends Error {
  override readonly name = 'StepFailure';
  readonly failure: Failure;
  readonly outputs: JsonObject | undefined;

  constructor(failure: Failure, outputs?: JsonObject) {
    super(failure.message);
    this.failure = failure;
    this.outputs = outputs;
  }
}

/** Returns the failure that a step threw, even with another copy of this package; null for any other error. */
export function failureOf(error: unknown): Readonly<{ failure: Failure; outputs: JsonObject | undefined }> | null {
  if (error instanceof StepFailure) return error;
  // An app brings its own copy if the command line is installed elsewhere.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a StepFailure by its name and its field
  return error instanceof Error && error.name === 'StepFailure' && 'failure' in error ? (error as StepFailure) : null;
}

type Waiting = Extract<StepOutcome, { kind: 'waiting' }>;

/** Thrown by a step that has to wait, if returning {@link waiting} is awkward. `sent`: as in {@link Failure}. */
export class StepWait extends Error {
  override readonly name = 'StepWait';
  readonly outcome: Waiting;
  readonly sent: false | undefined;

  constructor(outcome: Waiting, more: { sent?: false } = {}) {
    super(outcome.reason);
    this.outcome = outcome;
    this.sent = more.sent;
  }
}

/** Returns the wait that a step threw, even with another copy of this package; null for any other error. */
export function waitOf(error: unknown): Readonly<{ outcome: Waiting; sent: false | undefined }> | null {
  if (error instanceof StepWait) return error;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a StepWait by its name and its field
  return error instanceof Error && error.name === 'StepWait' && 'outcome' in error ? (error as StepWait) : null;
}

/** Thrown if another writer has moved the saga on since it was read. The old revision can no longer write. */
export class StaleRevisionError extends Error {
  override readonly name = 'StaleRevisionError';
  readonly code = 'stale_revision';
}

/** The step did its work. `outputs` are merged into the saga's context; `note` tells the timeline what was decided. */
export function done(): StepOutcome<Record<string, undefined>>;
export function done<Outputs extends JsonObject>(outputs: Outputs, note?: string): StepOutcome<Outputs>;
export function done(outputs: JsonObject = {}, note?: string): StepOutcome {
  return note === undefined ? { kind: 'done', outputs } : { kind: 'done', outputs, note };
}

/** The step failed. A retryable failure is retried. `outputs` are kept anyway. */
export function failed(code: string, message: string, more: { retryable?: boolean; outputs?: JsonObject } = {}): Extract<StepOutcome, { kind: 'failed' }> {
  const { retryable = true, outputs } = more;
  return { kind: 'failed', error: { code, message, retryable }, ...(outputs === undefined ? {} : { outputs }) };
}

/** It is too early to tell: run again after `delayMs`. */
export function waiting(delayMs: number, reason: string, more: { memo?: Memo; outputs?: JsonObject; alarm?: boolean; heldBy?: string } = {}): Extract<StepOutcome, { kind: 'waiting' }> {
  return { kind: 'waiting', delayMs, reason, ...more };
}
