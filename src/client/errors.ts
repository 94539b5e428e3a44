// The errors of unsuccessful sagas.
import type { Direction, SagaError } from '../saga/saga.ts';

/**
 * Thrown if the saga did not do its work and nothing of it is left: it was rolled back, refused or cancelled. `reason`
 * says why, in DigitalOcean's own words if DigitalOcean refused. (A destroy that was refused or cancelled leaves its
 * droplet.)
 */
export class SagaRolledBackError extends Error {
  override readonly name = 'SagaRolledBackError';
  readonly code = 'saga_rolled_back';
  readonly sagaId: string;
  /** `code`: for programs, such as `digitalocean_rejected` or `cancelled`; docs/reference/error-codes.md lists them. `step`: where it failed. `message`: for people. */
  readonly reason: SagaError;

  constructor(sagaId: string, reason: SagaError) {
    super(`saga ${sagaId} was rolled back: ${reason.message} (${reason.code} in ${reason.step})`);
    this.sagaId = sagaId;
    this.reason = reason;
  }
}

/**
 * Thrown if a step that must be done, or the saga's rollback, failed permanently and a person has to act. This is not
 * final: after `retry` the saga continues where it was, and its result can be awaited again.
 */
export class SagaStuckError extends Error {
  override readonly name = 'SagaStuckError';
  readonly code = 'saga_stuck';
  readonly sagaId: string;
  /** Why it was being rolled back; or, if it is stuck on its way forward, why the step failed. */
  readonly reason: SagaError;
  /** What failed permanently: undoing this step, or, on the way forward, the step itself. */
  readonly compensation: Readonly<{ step: string; message: string }>;
  /** `backward`: the rollback is stuck. `forward`: a step that must be done is stuck. */
  readonly direction: Direction;

  constructor(sagaId: string, reason: SagaError, compensation: { step: string; message: string }, direction: Direction = 'backward') {
    super(
      direction === 'forward'
        ? `saga ${sagaId} is stuck: ${compensation.step} failed: ${compensation.message}`
        : `saga ${sagaId} is stuck: undoing ${compensation.step} failed: ${compensation.message} (rolled back because of: ${reason.message})`,
    );
    this.sagaId = sagaId;
    this.reason = reason;
    this.compensation = compensation;
    this.direction = direction;
  }
}

/** Thrown if the saga does not exist: its transaction was rolled back or is not committed yet, or its retention has ended. */
export class SagaNotFoundError extends Error {
  override readonly name = 'SagaNotFoundError';
  readonly code = 'saga_not_found';
  readonly sagaId: string;

  constructor(sagaId: string) {
    super(`saga ${sagaId} not found: its transaction was rolled back or is not committed yet, or its retention is over`);
    this.sagaId = sagaId;
  }
}

/** Thrown by a call to a closed client, and if the client was closed during a wait. */
export class ClientClosedError extends Error {
  override readonly name = 'ClientClosedError';
  readonly code = 'client_closed';
}
