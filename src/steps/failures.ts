// Interprets an error for a step that does not handle it itself. "Not yet" (throttled, a refused token, DigitalOcean
// unreachable) uses no attempt. Any other error uses one or is fatal.
import { DigitalOceanError } from '../do/errors.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { Direction } from '../saga/saga.ts';
import type { Memo, StepOutcome } from '../saga/step.ts';
import { waiting } from '../saga/step.ts';
import { outcomeOfUnexpected } from '../saga/unexpected.ts';

/** Retry interval of a refused request without an open circuit, because the circuits could not be written. */
const UNAUTHORIZED_DELAY_MS = 15_000;

const OUTAGE_FIRST_DELAY_MS = 2_000;
const OUTAGE_MAX_DELAY_MS = 60_000;

/** An outcome of a step that is not done. */
export type Undone = Exclude<StepOutcome, { kind: 'done' }>;

/**
 * Converts an error of a step to an outcome.
 *
 * @returns null for an error that does not concern the step's work (Postgres is unreachable): the same job runs again
 */
export function toStepOutcome(error: unknown, direction: Direction, memo: Memo): Undone | null {
  return error instanceof DigitalOceanError ? fromDigitalOcean(error, direction, memo) : outcomeOfUnexpected(error);
}

function fromDigitalOcean(error: DigitalOceanError, direction: Direction, memo: Memo): Undone {
  if (error.hold?.isAccountFull === true) return waitForRoom(error, memo);
  switch (error.kind) {
    case 'throttled':
      return waiting(error.retryAfterMs ?? OUTAGE_MAX_DELAY_MS, `DigitalOcean's rate limit is used up: ${error.message}`, { memo });
    case 'unauthorized':
      return holdFor(error, memo);
    case 'later':
      if (isOutage(error)) return holdOn(error, memo);
      return error.method === 'DELETE' ? patient(failed(error, true)) : failed(error, true);
    case 'ambiguous':
      return failed(error, true);
    case 'rejected':
      // One odd response must not end a rollback.
      return direction === 'backward' ? patient(failed(error, true)) : failed(error, false);
    default:
      return error.kind satisfies never;
  }
}

/** DigitalOcean refuses for a cause that only a person can fix. The saga is woken once a probe succeeds. */
function holdFor({ message, hold, retryAfterMs }: DigitalOceanError, memo: Memo): Undone {
  const scopes = hold?.scopes ?? [];
  const what = hold?.isTokenRefused === false ? 'this request' : 'the token';
  const lack = scopes.length === 0 ? '' : ` The token probably lacks the scope ${scopes.join(' or ')}.`;
  const check = hold?.isTokenRefused === false ? 'Check the scopes of DIGITALOCEAN_TOKEN' : 'Check DIGITALOCEAN_TOKEN';
  const reason = `DigitalOcean refuses ${what}: ${message}.${lack} ${check}; the saga goes on by itself`;
  return waiting(retryAfterMs ?? UNAUTHORIZED_DELAY_MS, reason, { memo, alarm: true, ...(hold?.circuit == null ? {} : { heldBy: hold.circuit }) });
}

/** The saga is woken in its turn, once there is room. */
function waitForRoom({ message, hold, retryAfterMs }: DigitalOceanError, memo: Memo): Undone {
  const reason = `the DigitalOcean account has no room for another droplet: ${message}. The saga goes on by itself once it has`;
  return waiting(retryAfterMs ?? UNAUTHORIZED_DELAY_MS, reason, { memo, alarm: true, ...(hold?.circuit == null ? {} : { heldBy: hold.circuit }) });
}

/**
 * DigitalOcean is unreachable, and a poll or a deletion is due. A droplet exists or may exist. A rollback would need
 * DigitalOcean too, and might destroy a working droplet. So the saga waits, however long that takes.
 */
function holdOn(error: DigitalOceanError, memo: Memo): Undone {
  const outages = (memo['outages'] ?? 0) + 1;
  const delayMs = Math.min(OUTAGE_MAX_DELAY_MS, OUTAGE_FIRST_DELAY_MS * 2 ** Math.min(outages - 1, 10));
  return waiting(delayMs, `${troubleOf(error)}: ${error.message}`, { memo: { ...memo, outages }, alarm: true });
}

function troubleOf(error: DigitalOceanError): string {
  if (isLocalTrouble(error)) return 'this worker cannot make requests, which is trouble of its own machine';
  return error.status === null ? 'DigitalOcean is out of reach' : 'DigitalOcean fails at this request';
}

function isOutage(error: DigitalOceanError): boolean {
  return error.status === null || error.status >= 500;
}

/** A lock, or an action in progress on the droplet, may last for hours, for example a snapshot of a large disk. */
function patient(outcome: Failed): Failed {
  return { ...outcome, error: { ...outcome.error, patient: true } };
}

type Failed = Extract<StepOutcome, { kind: 'failed' }>;

/** Builds the failure of a step, retryable or not. */
export function failed(error: DigitalOceanError, retryable: boolean): Failed {
  return { kind: 'failed', error: { code: `digitalocean_${error.kind}`, message: describe(error), retryable } };
}

/** DigitalOcean's message and the request id, which its support asks for. */
export function describe(error: DigitalOceanError): string {
  return `DigitalOcean: ${error.message}${error.requestId === null ? '' : ` (request ${error.requestId})`}`;
}
