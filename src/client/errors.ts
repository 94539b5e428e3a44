// How a saga can end that its caller did not hope for.
import type { Direction, SagaError } from '../saga/saga.ts';

/**
 * The saga did not do its work, and nothing of it is left: it was rolled back, refused or cancelled. `reason` says why, in
 * DigitalOcean's own words where DigitalOcean refused. (A destroy that was refused or cancelled leaves its droplet.)
 */
export class SagaRolledBackError extends Error {
  override readonly name = 'SagaRolledBackError';
  readonly code = 'saga_rolled_back';
  readonly sagaId: string;
  /** `code` for programs, such as `digitalocean_rejected` or `cancelled`; `step`: where it failed; `message` for people. */
  readonly reason: SagaError;

  constructor(sagaId: string, reason: SagaError) {
    super(`saga ${sagaId} was rolled back: ${reason.message} (${reason.code} in ${reason.step})`);
    this.sagaId = sagaId;
    this.reason = reason;
  }
}

/**
 * A step that must be done, or the saga's rollback, failed for good, and a person has to look. Not the end: after `retry`
 * the saga goes on where it was, and the result can be asked for again.
 */
export class SagaStuckError extends Error {
  override readonly name = 'SagaStuckError';
  readonly code = 'saga_stuck';
  readonly sagaId: string;
  /** Why it was being rolled back; where it is stuck on its way forward, why the step failed. */
  readonly reason: SagaError;
  /** What failed for good: undoing this step or, on the way forward, the step itself. */
  readonly compensation: Readonly<{ step: string; message: string }>;
  /** `backward`: the rollback is stuck. `forward`: a step that must be done is. */
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

/** There is no such saga: its transaction was rolled back, or is not committed yet, or its retention is over. */
export class SagaNotFoundError extends Error {
  override readonly name = 'SagaNotFoundError';
  readonly code = 'saga_not_found';
  readonly sagaId: string;

  constructor(sagaId: string) {
    super(`there is no saga ${sagaId}: the transaction that started it was rolled back or is not committed yet, or it ended long ago`);
    this.sagaId = sagaId;
  }
}

/** The client was closed while something was waited for. */
export class ClientClosedError extends Error {
  override readonly name = 'ClientClosedError';
  readonly code = 'client_closed';
}
