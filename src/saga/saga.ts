// What a saga is at rest: the row of `arcadia.sagas`, its events, and the words for both.
import type { Json, JsonObject } from '../platform/json.ts';

export type SagaStatus = 'pending' | 'running' | 'completed' | 'compensating' | 'compensated' | 'stuck';

export const sagaStatuses: readonly SagaStatus[] = ['pending', 'running', 'completed', 'compensating', 'compensated', 'stuck'];

/**
 * Why a saga is being rolled back, or is stuck. `message` is for people, and repeats what the other end said.
 * `direction: 'forward'`: the saga is stuck on its way forward, at a step that must be done; it is not being rolled back.
 */
export type SagaError = Readonly<{ code: string; message: string; step: string; retryable: boolean; direction?: 'forward' }>;

/** One saga, as a worker knows it at one revision. */
export type Saga = Readonly<{
  id: string;
  /** The first 8 characters of the id, unique in the database. */
  saga8: string;
  name: string;
  status: SagaStatus;
  /** Names of the steps, in forward order, as they were when the saga was started. */
  steps: readonly string[];
  /** Index of the current step: being executed, or being compensated. */
  cursor: number;
  /** The fencing token: the number of transitions so far. */
  revision: number;
  /** Failed attempts of the current step in the current direction. */
  attempt: number;
  input: JsonObject;
  /** Outputs of the steps, and what they recorded on the way. */
  context: JsonObject;
  error: SagaError | null;
  idempotencyKey: string | null;
  /** Whom the caller names; a claim. */
  requestedBy: string | null;
  /** Who started it, as far as it is proven: `http:<name of the credentials>`, `sql:<database role>` or `queue`; null for sagas of older versions. */
  startedBy: string | null;
  /** The trace that it belongs to, as W3C Trace Context writes it; null where nobody traced its start. */
  traceparent: string | null;
  /** The resource that it holds, such as `server:4711`; null: none, or another saga took it after this one came to rest. */
  resource: string | null;
  /** The saga that it waits for, because that one holds its resource; null: it waits for none. */
  waitsFor: string | null;
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

/** One transition, as it is kept in `arcadia.saga_events`. `seq` is the saga's revision after it. */
export type SagaEvent = Readonly<{
  seq: number;
  kind: SagaEventKind;
  step: string | null;
  attempt: number | null;
  detail: Readonly<Record<string, Json>>;
}>;

/** The work that is due next for a saga. The queues turn it into a job; it can be made again from the row at any time. */
export type NextJob = Readonly<{
  sagaId: string;
  revision: number;
  direction: Direction;
  step: string;
  /** Position of the step, from 1, and the number of steps: for people to read. */
  position: number;
  of: number;
  /** Which attempt of the step it is, from 1: for people to read. */
  attempt: number;
  /** What the labels of the job are made of: see labels.ts. */
  saga: Pick<Saga, 'name' | 'input' | 'context'>;
  traceparent: string | null;
  delayMs: number;
}>;

/** Nothing more will happen to it by itself. A stuck saga is at rest too: it waits for a person. */
export function isAtRest(status: SagaStatus): boolean {
  return status === 'completed' || status === 'compensated' || status === 'stuck';
}

/** Which way a saga that is not at rest moves. */
export function directionOf(saga: Pick<Saga, 'status'>): Direction {
  return saga.status === 'compensating' ? 'backward' : 'forward';
}

/** Whether a saga is stuck on its way forward: a retry goes on with the step, and a cancel gives it up. */
export function isStuckForward(saga: Pick<Saga, 'status' | 'error'>): boolean {
  return saga.status === 'stuck' && saga.error?.direction === 'forward';
}

/** Whether a saga can be cancelled as it stands. */
export function isCancellable(saga: Pick<Saga, 'status' | 'error'>): boolean {
  return saga.status === 'pending' || saga.status === 'running' || isStuckForward(saga);
}

/** Name of the step that is current. */
export function currentStep(saga: Pick<Saga, 'steps' | 'cursor'>): string {
  const step = saga.steps[saga.cursor];
  if (step === undefined) throw new RangeError(`cursor ${saga.cursor} is outside the ${saga.steps.length} steps`);
  return step;
}

/** The job that is due for a saga as it stands; null when it is at rest. */
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
