// The decision at the heart of the engine: takes a saga and an outcome, and returns the saga's new state, its event and
// the next job. Pure: no I/O, no clock, no random numbers of its own.
import type { JsonObject } from '../platform/json.ts';
import { asStored, isEmpty } from '../platform/json.ts';
import { shorten } from '../platform/text.ts';
import { BACKOFF_CAP_MS, PATIENT_BACKOFF_CAP_MS, computeBackoffMs } from './backoff.ts';
import type { NextJob, Saga, SagaError, SagaEvent, SagaEventKind, SagaStatus } from './saga.ts';
import { currentStep, directionOf, isCancellable, isStuckForward, nextJobOf } from './saga.ts';
import type { Failure } from './failure.ts';
import type { Sealed } from './secrets.ts';
import { MISSING_KEY } from './secrets.ts';

// The longest text in an event or an error, whoever wrote it: every read of the saga reads all of them.
const MAX_TEXT_LENGTH = 2_000;

/** What can happen to a saga. */
export type Outcome =
  /**
   * Its first step is about to run. `input`: the validated input, if it had not been validated before; with it what was
   * given, if that differs, and the steps that the saga has with it.
   */
  | Readonly<{ kind: 'started'; input?: JsonObject; sealed?: Sealed | null; given?: JsonObject | null; steps?: readonly string[] }>
  /** The input is invalid. The saga ends without running a step. `input`: what to keep of it, with what was given; if omitted, all. */
  | Readonly<{ kind: 'rejected'; error: Failure; input?: JsonObject; given?: JsonObject }>
  /** The current step recorded something before continuing. */
  | Readonly<{ kind: 'recorded'; note: string; outputs: JsonObject; stamps?: readonly string[] }>
  /** The current step has something to record and wants to run again later. */
  | Readonly<{ kind: 'postponed'; delayMs: number; reason: string; outputs: JsonObject }>
  | Readonly<{ kind: 'done'; outputs: JsonObject; note?: string }>
  /** `forwardOnly`: the step must be done, so its failure does not roll the saga back. */
  | Readonly<{ kind: 'failed'; error: Failure; outputs?: JsonObject; forwardOnly?: boolean }>
  | Readonly<{ kind: 'cancel_requested'; by: string; reason?: string }>
  | Readonly<{ kind: 'retry_requested'; by: string }>;

export type RetryPolicy = Readonly<{ stepAttempts: number; stepBackoffMs: number; compensationAttempts: number }>;

/** A change of a saga, ready to be written. It applies only while the row is still at `from`. */
export type Transition = Readonly<{
  sagaId: string;
  /** The revision that this transition starts from. `saga.revision` is one higher. */
  from: number;
  /**
   * The status that it starts from. If Postgres lost its latest writes, revisions are reused, so the revision alone is
   * not enough.
   */
  was: SagaStatus;
  saga: Saga;
  /** Merged into the stored context, so that keys unknown to this program survive. */
  patch: JsonObject;
  /** Replaces the stored input; null: it stays. Its secrets are sealed, or erased with the end of the saga. */
  input: JsonObject | null;
  /** The secrets of that input. */
  sealed: Sealed | null;
  /** What that input was before its schema changed it; null: the same. */
  given: JsonObject | null;
  /** Replaces the stored steps; null: they stay. */
  steps: readonly string[] | null;
  /** Context keys that are set to the database's time. */
  stamps: readonly string[];
  /** The current step or its direction changed, so its clock starts again. */
  stepChanged: boolean;
  /** The event of the start of a saga whose first step records first: it happened just before and is written with this one. */
  before?: SagaEvent;
  event: SagaEvent;
  next: NextJob | null;
}>;

/** Why an outcome does not apply to a saga in its current state. */
export type Refusal = Readonly<{ refused: string }>;

/**
 * Decides the transition for an outcome.
 *
 * @param random from 0 to 1, for the jitter of a backoff
 * @returns the transition; or a refusal if the outcome does not apply to the saga in its current state (it is already at
 *   rest, or it is asked to resume although it is not stuck)
 */
export function decide(saga: Saga, outcome: Outcome, policy: RetryPolicy, random: number): Transition | Refusal {
  switch (outcome.kind) {
    case 'cancel_requested':
      return cancel(saga, outcome);
    case 'retry_requested':
      return retry(saga, outcome);
    case 'started':
      if (saga.status !== 'pending') return { refused: `the saga is ${saga.status}, not pending` };
      return outcome.input === undefined ? move(saga, { status: 'running' }, { kind: 'saga_started' }) : startAdmitted(saga, outcome.input, outcome);
    case 'rejected':
      if (saga.status !== 'pending') return { refused: `the saga is ${saga.status}, not pending` };
      return reject(saga, outcome);
    case 'recorded':
    case 'postponed':
    case 'done':
    case 'failed':
      if (saga.status === 'running') return forward(saga, outcome, policy, random);
      if (saga.status === 'compensating') return backward(saga, outcome, policy, random);
      return { refused: `no step of this saga is running: it is ${saga.status}` };
    default:
      return outcome satisfies never;
  }
}

function startAdmitted(saga: Saga, input: JsonObject, { sealed, given, steps = saga.steps }: Extract<Outcome, { kind: 'started' }>): Transition {
  const started = move(saga, { status: 'running', steps }, { kind: 'saga_started', input, sealed: sealed ?? null });
  return { ...started, given: given ?? null, steps: steps.join() === saga.steps.join() ? null : steps };
}

function reject(saga: Saga, { error, input, given }: Extract<Outcome, { kind: 'rejected' }>): Transition {
  const telling: Telling = { kind: 'saga_rejected', detail: { ...error }, ...(input === undefined ? {} : { input }) };
  return { ...move(saga, { status: 'compensated', error: toSagaError(saga, error) }, telling), given: given ?? null };
}

/** Merges two transitions. `second` starts where `first` ends. `first` must write nothing but its event. */
export function joined(first: Transition, second: Transition): Transition {
  return { ...second, from: first.from, was: first.was, before: first.event };
}

type RunOutcome = Extract<Outcome, { kind: 'recorded' | 'postponed' | 'done' | 'failed' }>;

function forward(saga: Saga, outcome: RunOutcome, policy: RetryPolicy, random: number): Transition {
  switch (outcome.kind) {
    case 'recorded':
      return record(saga, outcome, 'step_recorded');
    case 'postponed':
      return postpone(saga, outcome, 'step_postponed');
    case 'done': {
      const isLast = saga.cursor === saga.steps.length - 1;
      const change: Change = isLast ? { status: 'completed' } : { cursor: saga.cursor + 1 };
      return move(saga, { ...change, attempt: 0 }, { kind: 'step_completed', detail: doneDetail(outcome), patch: outcome.outputs });
    }
    case 'failed': {
      const attempt = saga.attempt + 1;
      const forwardOnly = outcome.forwardOnly === true;
      if (outcome.error.retryable && attempt < (forwardOnly ? policy.compensationAttempts : policy.stepAttempts)) {
        return retryLater(saga, outcome, 'step_retried', backoffMs(attempt, outcome.error, policy, random));
      }
      if (forwardOnly && outcome.error.nothingDone !== true) {
        const error: SagaError = { ...toSagaError(saga, outcome.error), direction: 'forward' };
        return move(saga, { status: 'stuck', attempt, error }, failureEvent(outcome, 'step_stuck', attempt));
      }
      // The failed step is compensated too: a request that timed out may have taken effect.
      const change: Change = { status: 'compensating', attempt: 0, error: toSagaError(saga, outcome.error) };
      return move(saga, change, failureEvent(outcome, 'step_failed', attempt));
    }
    default:
      return outcome satisfies never;
  }
}

function backward(saga: Saga, outcome: RunOutcome, policy: RetryPolicy, random: number): Transition {
  switch (outcome.kind) {
    case 'recorded':
      return record(saga, outcome, 'compensation_recorded');
    case 'postponed':
      return postpone(saga, outcome, 'compensation_postponed');
    case 'done': {
      const change: Change = saga.cursor === 0 ? { status: 'compensated' } : { cursor: saga.cursor - 1 };
      return move(saga, { ...change, attempt: 0 }, { kind: 'compensation_completed', detail: doneDetail(outcome), patch: outcome.outputs });
    }
    case 'failed': {
      const attempt = saga.attempt + 1;
      if (outcome.error.retryable && attempt < policy.compensationAttempts) {
        return retryLater(saga, outcome, 'compensation_retried', backoffMs(attempt, outcome.error, policy, random));
      }
      return move(saga, { status: 'stuck', attempt }, failureEvent(outcome, 'compensation_stuck', attempt));
    }
    default:
      return outcome satisfies never;
  }
}

function backoffMs(attempt: number, { patient }: Failure, { stepBackoffMs }: RetryPolicy, random: number): number {
  return computeBackoffMs(attempt, stepBackoffMs, random, patient === true ? PATIENT_BACKOFF_CAP_MS : BACKOFF_CAP_MS);
}

function cancel(saga: Saga, outcome: Extract<Outcome, { kind: 'cancel_requested' }>): Transition | Refusal {
  const detail = outcome.reason === undefined ? { by: outcome.by } : { by: outcome.by, reason: outcome.reason };
  const error: SagaError = {
    code: 'cancelled',
    message: shorten(outcome.reason === undefined ? `cancelled by ${outcome.by}` : `cancelled by ${outcome.by}: ${outcome.reason}`, MAX_TEXT_LENGTH),
    step: currentStep(saga),
    retryable: false,
  };
  // No step of a pending saga has run, so there is nothing to undo.
  if (saga.status === 'pending') return move(saga, { status: 'compensated', error }, { kind: 'cancel_requested', detail });
  if (isCancellable(saga)) return move(saga, { status: 'compensating', attempt: 0, error }, { kind: 'cancel_requested', detail });
  return { refused: saga.status === 'completed' ? 'the saga is already completed' : `the saga is already ${saga.status}` };
}

function retry(saga: Saga, outcome: Extract<Outcome, { kind: 'retry_requested' }>): Transition | Refusal {
  if (saga.status !== 'stuck') return { refused: `only a stuck saga can be resumed; this one is ${saga.status}` };
  const change: Change = isStuckForward(saga) ? { status: 'running', error: null } : { status: 'compensating' };
  return move(saga, { ...change, attempt: 0 }, { kind: 'retry_requested', detail: { by: outcome.by } });
}

function record(saga: Saga, outcome: Extract<Outcome, { kind: 'recorded' }>, kind: SagaEventKind): Transition {
  const detail = { note: outcome.note, ...outcome.outputs };
  return move(saga, {}, { kind, detail, patch: outcome.outputs, stamps: outcome.stamps ?? [] });
}

function postpone(saga: Saga, outcome: Extract<Outcome, { kind: 'postponed' }>, kind: SagaEventKind): Transition {
  const detail = { reason: outcome.reason, delayMs: outcome.delayMs };
  return move(saga, {}, { kind, detail, patch: outcome.outputs, delayMs: outcome.delayMs });
}

function retryLater(saga: Saga, outcome: Extract<Outcome, { kind: 'failed' }>, kind: SagaEventKind, delayMs: number): Transition {
  const attempt = saga.attempt + 1;
  const event = failureEvent(outcome, kind, attempt);
  return move(saga, { attempt }, { ...event, detail: { ...event.detail, delayMs }, delayMs });
}

function failureEvent(outcome: Extract<Outcome, { kind: 'failed' }>, kind: SagaEventKind, attempt: number): Telling {
  const { code, message, retryable } = outcome.error;
  return { kind, attempt, detail: { code, message, retryable }, patch: outcome.outputs ?? {} };
}

function doneDetail(outcome: Extract<Outcome, { kind: 'done' }>): JsonObject {
  const { note, outputs } = outcome;
  return { ...outputs, ...(note === undefined ? {} : { note }) };
}

function toSagaError(saga: Saga, failure: Failure): SagaError {
  return { code: failure.code, message: shorten(failure.message, MAX_TEXT_LENGTH), step: currentStep(saga), retryable: failure.retryable };
}

type Change = Partial<Pick<Saga, 'status' | 'steps' | 'cursor' | 'attempt' | 'error'>>;
type Telling = {
  kind: SagaEventKind;
  attempt?: number;
  detail?: JsonObject;
  patch?: JsonObject;
  input?: JsonObject;
  sealed?: Sealed | null;
  stamps?: readonly string[];
  delayMs?: number;
};

// Most steps put out nothing.
const nothing: JsonObject = {};
const noStamps: readonly string[] = [];

/**
 * Every transition is created here: the revision increases by one, one event records it, and the next job follows from
 * the row.
 */
function move(from: Saga, change: Change, telling: Telling): Transition {
  const turned = directionOf({ ...from, ...change }) !== directionOf(from);
  const patch = patchOf(from, turned, telling.patch);
  const input = telling.input ?? null;
  const context = patch === nothing ? from.context : { ...from.context, ...patch };
  const saga: Saga = { ...from, ...change, revision: from.revision + 1, input: input ?? from.input, context };
  return {
    sagaId: from.id,
    from: from.revision,
    was: from.status,
    saga,
    patch,
    input,
    sealed: telling.sealed ?? null,
    given: null,
    steps: null,
    stamps: telling.stamps ?? noStamps,
    stepChanged: saga.cursor !== from.cursor || turned || telling.kind === 'retry_requested',
    event: {
      seq: saga.revision,
      kind: telling.kind,
      // The event belongs to the step that was current when it happened.
      step: currentStep(from),
      attempt: telling.attempt ?? (from.status === 'stuck' ? from.attempt : from.attempt + 1),
      detail: telling.detail === undefined || isEmpty(telling.detail) ? { status: saga.status } : { ...withShortTexts(telling.detail), status: saga.status },
    },
    next: nextJobOf(saga, telling.delayMs ?? 0),
  };
}

function patchOf({ context }: Saga, turned: boolean, given: JsonObject = nothing): JsonObject {
  const patch = isEmpty(given) ? nothing : asStored(given);
  // A step that is undone may need no secret: then nothing else would take the mark away.
  return turned && (context[MISSING_KEY] ?? null) !== null ? { ...patch, [MISSING_KEY]: null } : patch;
}

function withShortTexts(detail: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(detail).map(([key, value]) => [key, typeof value === 'string' ? shorten(value, MAX_TEXT_LENGTH) : value]));
}
