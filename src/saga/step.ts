// What a step is: the contract between the engine and the files in src/steps.
import type { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import type { Effect, EffectKeys, EffectState, Undoing } from './effect.ts';
import type { Failure } from './failure.ts';
import type { Direction, Saga } from './saga.ts';
import type { StepFamily } from './step-family.ts';
import type { StepWords } from './words.ts';

/**
 * One step of a saga.
 *
 * Both functions may be run more than once for the same saga: after a crash, by another worker, even by two workers at
 * once. They must come to the same result each time.
 *
 * - `execute` does the step's work. It returns `done` with its outputs, which are merged into the saga's context, or
 *   `waiting` when it is too early to tell: the job comes back after a delay and no worker is held meanwhile. It throws
 *   a {@link StepFailure} when it failed; any other error counts as a failure that may be retried.
 * - `compensate` undoes it. It is run for every step that may have started, the failed one included, in reverse order;
 *   so it must also work where `execute` never ran, ran half, or was undone before.
 * - `superseded` is called when `execute` did its work, but could not record it because somebody else had moved the
 *   saga on. It sees the saga as it stands now, and takes back what would otherwise belong to nobody.
 */
export type Step<Deps, Context = JsonObject, Adds extends JsonObject = JsonObject> = Readonly<{
  name: string;
  /** What the input or earlier steps must have put into the context: checked when the saga is defined, and when the step looks at `run.context`. */
  needs?: z.ZodObject;
  /** What it puts there: its outputs are held against this. */
  adds?: z.ZodObject;
  /**
   * `execute` does nothing that lasts before its first `record`, or nothing that lasts at all. Where it is a saga's first
   * step, the start of the saga is written together with what it writes first, and not before it runs.
   */
  recordsFirst?: true;
  /**
   * What it does cannot be undone, and must be done: a forward-only step has the attempts of a compensation, and where it
   * fails for good the saga is `stuck`, for a person to resume or to cancel. It is rolled back only for a failure that
   * says `nothingDone`.
   */
  forwardOnly?: true;
  /** What it says to people while it runs; its name where left out. */
  words?: StepWords;
  /** Steps that work with the same service, and bring something to the worker for it; none where left out. */
  family?: StepFamily;
  execute(run: StepRun<Context>, deps: Deps): Promise<StepOutcome<Adds>>;
  compensate(run: StepRun, deps: Deps): Promise<StepOutcome>;
  superseded?(run: StepRun, outputs: JsonObject, deps: Deps): Promise<void>;
}>;

/** What came of running a step. */
export type StepOutcome<Adds extends JsonObject = JsonObject> =
  | Readonly<{ kind: 'done'; outputs: Adds; note?: string }>
  /**
   * Not yet. Uses no attempt. `memo` holds counters for the next run; `outputs`, where given, are written at once.
   * `alarm`: somebody should know. `heldBy`: the circuit that holds the saga; it is woken when that closes.
   */
  | Readonly<{ kind: 'waiting'; delayMs: number; reason: string; memo?: Memo; outputs?: JsonObject; alarm?: boolean; heldBy?: string }>
  | Readonly<{ kind: 'failed'; error: Failure; outputs?: JsonObject }>;

/** Counters that one run of a step hands to the next. They live in the queue and may be lost; steps must bear that. */
export type Memo = Readonly<Record<string, number>>;

/** One run of a step, as the step sees it. */
export type StepRun<Context = JsonObject> = Readonly<{
  /** The saga as the database has it; a getter, because `record` moves it on. */
  saga: Saga;
  /**
   * The saga's input and outputs so far as one object, as it was when it was first looked at; outputs go before the input. On the
   * way forward, it is what the step `needs`.
   *
   * @throws {StepFailure} `context_missing`
   */
  context: Context;
  direction: Direction;
  memo: Memo;
  /** The database's clock when the saga was read. Compare with times from the database, never with this machine's. */
  now: Date;
  /**
   * Writes `outputs` into the saga's context before the step goes on, so that whoever comes next knows.
   * `stamps` are context keys that get the database's time (ISO 8601).
   *
   * @throws {StaleRevisionError} when somebody else has moved the saga on: stop
   */
  record(note: string, outputs: JsonObject, stamps?: readonly string[]): Promise<void>;
  /**
   * Throws unless this worker proved its claim on the saga a moment ago. To be called right before an effect that
   * cannot be repeated: a process that was frozen for longer than its lock may have been replaced.
   *
   * @throws {StaleRevisionError}
   */
  assertClaimIsFresh(): void;
  /**
   * Brings about an effect of a foreign service at most once, whatever dies when: announced before it is sent, looked for
   * where its answer was lost, recorded when it is known.
   *
   * @param name of the effect, unique in its step: lower-case letters, digits and _
   * @returns what `send` returned, now or in an earlier run; or what `find` found
   * @throws {StepWait} {StepFailure} {StaleRevisionError}, for the step to let pass
   */
  once<Value, Prepared = void>(name: string, effect: Effect<Value, Prepared>): Promise<Value>;
  /**
   * Takes an effect of this step back, also where nobody knows whether there is one.
   *
   * @returns whether there was anything to take back
   * @throws {StepWait} while it may still come to light, for the step to let pass
   */
  undo<Value>(name: string, undoing: Undoing<Value>): Promise<boolean>;
  /** What is known of an effect of this step. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says what `send` returned
  effects<Value>(name: string, keys?: Partial<EffectKeys>): EffectState<Value>;
  /**
   * Opens a secret of the saga: a field of its input that its definition names as one. In `saga.input` stands only its size.
   *
   * @returns undefined where the input has none under this name
   * @throws {StepWait} while this worker lacks the key; {StepFailure} `<field>_unreadable`; {StaleRevisionError}; for the step to
   *   let pass
   */
  secret(field: string): Promise<string | undefined>;
  /** SQL that yields one row as long as this run's claim stands: put it into a write that must not come late. */
  claim: Claim;
  log: Log;
}>;

/** Which saga at which revision a write belongs to. */
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

/** The failure that a step threw, be it by another copy of this package; null for any other error. */
export function failureOf(error: unknown): Readonly<{ failure: Failure; outputs: JsonObject | undefined }> | null {
  if (error instanceof StepFailure) return error;
  // An app brings its own copy, where the command line is installed elsewhere.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a StepFailure by its name and its field
  return error instanceof Error && error.name === 'StepFailure' && 'failure' in error ? (error as StepFailure) : null;
}

type Waiting = Extract<StepOutcome, { kind: 'waiting' }>;

/** Thrown by a step that has to wait, where returning {@link waiting} is awkward. `sent`: as in {@link Failure}. */
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

/** The wait that a step threw, be it by another copy of this package; null for any other error. */
export function waitOf(error: unknown): Readonly<{ outcome: Waiting; sent: false | undefined }> | null {
  if (error instanceof StepWait) return error;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a StepWait by its name and its field
  return error instanceof Error && error.name === 'StepWait' && 'outcome' in error ? (error as StepWait) : null;
}

/** Somebody else has moved the saga on since it was read: whoever holds the old revision has no say any more. */
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

/** It failed. What can be retried is retried; `outputs` are kept all the same. */
export function failed(code: string, message: string, more: { retryable?: boolean; outputs?: JsonObject } = {}): Extract<StepOutcome, { kind: 'failed' }> {
  const { retryable = true, outputs } = more;
  return { kind: 'failed', error: { code, message, retryable }, ...(outputs === undefined ? {} : { outputs }) };
}

/** It is too early to tell: come back after `delayMs`. */
export function waiting(delayMs: number, reason: string, more: { memo?: Memo; outputs?: JsonObject; alarm?: boolean; heldBy?: string } = {}): Extract<StepOutcome, { kind: 'waiting' }> {
  return { kind: 'waiting', delayMs, reason, ...more };
}
