// A saga as stored: the row of `arcadia.sagas`, its events, and the names of both.
import type { Json, JsonObject } from '../platform/json.ts';

/** How urgent a saga is among those of the same requester. Where sagas wait for something scarce, a higher one goes first. */
export type SagaPriority = 'high' | 'normal' | 'low';

export const sagaPriorities = ['high', 'normal', 'low'] as const satisfies readonly SagaPriority[];

export type SagaStatus = 'pending' | 'running' | 'completed' | 'compensating' | 'compensated' | 'stuck';

export const sagaStatuses: readonly SagaStatus[] = ['pending', 'running', 'completed', 'compensating', 'compensated', 'stuck'];

/**
 * Why a saga is being rolled back or is stuck. `message` is for people and includes the other side's response.
 * `direction: 'forward'`: the saga is stuck on its way forward, at a step that must be done. It is not being rolled back.
 */
export type SagaError = Readonly<{ code: string; message: string; step: string; retryable: boolean; direction?: 'forward' }>;

/** A saga at one revision, as a worker knows it. */
export type Saga = Readonly<{
  id: string;
  /** The first 8 characters of the id, unique in the database. */
  saga8: string;
  name: string;
  status: SagaStatus;
  /** Names of the steps in forward order, as of the saga's start. */
  steps: readonly string[];
  /** Index of the current step, which is being executed or compensated. */
  cursor: number;
  /** The fencing token: the number of transitions so far. */
  revision: number;
  /** Failed attempts of the current step in the current direction. */
  attempt: number;
  input: JsonObject;
  /** The steps' outputs and what they recorded on the way. */
  context: JsonObject;
  error: SagaError | null;
  idempotencyKey: string | null;
  /** The requester that the caller names; unproven. */
  requestedBy: string | null;
  /**
   * Who started it, proven: `http:<name of the credentials>`, `sql:<database role>` or `queue`; null for sagas of older
   * versions.
   */
  startedBy: string | null;
  priority: SagaPriority;
  /** Its trace in W3C Trace Context format; null if its start was not traced. */
  traceparent: string | null;
  /** The resource it holds, such as `server:4711`; null: none, or another saga took it after this one came to rest. */
  resource: string | null;
  /** The saga that holds its resource, so that it waits for that saga; null: none. */
  waitsFor: string | null;
  /** The rolled-back saga that this one repeats; null: none. */
  rerunOf: string | null;
  /** The saga that repeats this one after its rollback; null: none. */
  rerunAs: string | null;
  cancelRequestedAt: Date | null;
  /** When the current step became current, by the database's clock. */
  stepStartedAt: Date;
  createdAt: Date;
  updatedAt: Date;
  finishedAt: Date | null;
}>;

export type Direction = 'forward' | 'backward';

export type SagaEventKind =
  | 'saga_created'
  | 'saga_started'
  | 'saga_rejected'
  | 'step_recorded'
  | 'step_postponed'
  | 'step_completed'
  | 'step_retried'
  | 'step_failed'
  | 'step_stuck'
  | 'compensation_recorded'
  | 'compensation_postponed'
  | 'compensation_completed'
  | 'compensation_retried'
  | 'compensation_stuck'
  | 'cancel_requested'
  | 'retry_requested';

/** One transition, as stored in `arcadia.saga_events`. `seq` is the saga's revision after it. */
export type SagaEvent = Readonly<{
  seq: number;
  kind: SagaEventKind;
  step: string | null;
  attempt: number | null;
  detail: Readonly<Record<string, Json>>;
}>;

/** The next work for a saga. The queues turn it into a job. It can be recreated from the row at any time. */
export type NextJob = Readonly<{
  sagaId: string;
  revision: number;
  direction: Direction;
  step: string;
  /** Position of the step, from 1, and the number of steps; for people to read. */
  position: number;
  of: number;
  /** Number of the step's attempt, from 1; for people to read. */
  attempt: number;
  /** The input for the job's labels: see labels.ts. */
  saga: Pick<Saga, 'name' | 'input' | 'context'>;
  traceparent: string | null;
  delayMs: number;
}>;

/** Whether nothing more happens to the saga by itself. A stuck saga is at rest too: it waits for a person. */
export function isAtRest(status: SagaStatus): status is 'completed' | 'compensated' | 'stuck' {
  return status === 'completed' || status === 'compensated' || status === 'stuck';
}

/** Returns the direction of a saga that is not at rest. */
export function directionOf(saga: Pick<Saga, 'status'>): Direction {
  return saga.status === 'compensating' ? 'backward' : 'forward';
}

/** Whether a saga is stuck on its way forward. A retry resumes the step; a cancel gives it up. */
export function isStuckForward(saga: Pick<Saga, 'status' | 'error'>): boolean {
  return saga.status === 'stuck' && saga.error?.direction === 'forward';
}

/** Whether a saga can be cancelled in its current state. */
export function isCancellable(saga: Pick<Saga, 'status' | 'error'>): boolean {
  return saga.status === 'pending' || saga.status === 'running' || isStuckForward(saga);
}

/** Returns the name of the current step. */
export function currentStep(saga: Pick<Saga, 'steps' | 'cursor'>): string {
  const step = saga.steps[saga.cursor];
  if (step === undefined) throw new RangeError(`cursor ${saga.cursor} is outside the ${saga.steps.length} steps`);
  return step;
}

/** Returns the job that is due for a saga; null if the saga is at rest. */
export function nextJobOf(saga: Pick<Saga, 'id' | 'name' | 'status' | 'steps' | 'cursor' | 'revision' | 'attempt' | 'input' | 'context' | 'traceparent'>, delayMs = 0): NextJob | null {
  if (isAtRest(saga.status)) return null;
  return {
    sagaId: saga.id,
    revision: saga.revision,
    direction: directionOf(saga),
    step: currentStep(saga),
    position: saga.cursor + 1,
    of: saga.steps.length,
    attempt: saga.attempt + 1,
    saga: { name: saga.name, input: saga.input, context: saga.context },
    traceparent: saga.traceparent,
    delayMs,
  };
}
