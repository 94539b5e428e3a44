// What an error means for a step, where the step itself has nothing better to say. "Not yet" (throttled, a token that
// is refused, DigitalOcean out of reach) uses no attempt; the rest does, or is fatal.
import { DigitalOceanError } from '../do/errors.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { Direction } from '../saga/saga.ts';
import type { Memo, StepOutcome } from '../saga/step.ts';
import { waiting } from '../saga/step.ts';
import { outcomeOfUnexpected } from '../saga/unexpected.ts';

/** How often a refused request is tried again where no circuit is open for it: the circuits could not be written. */
const UNAUTHORIZED_DELAY_MS = 15_000;

const OUTAGE_FIRST_DELAY_MS = 2_000;
const OUTAGE_MAX_DELAY_MS = 60_000;

/**
 * Turns an error of a step into an outcome.
 *
 * @returns null for an error that is not about the step's work (Postgres is away): the job is run again as it is
 */
export function toStepOutcome(error: unknown, direction: Direction, memo: Memo): StepOutcome | null {
  return error instanceof DigitalOceanError ? fromDigitalOcean(error, direction, memo) : outcomeOfUnexpected(error);
}

function fromDigitalOcean(error: DigitalOceanError, direction: Direction, memo: Memo): StepOutcome {
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
      // A rollback is not given up because of one odd answer.
      return direction === 'backward' ? patient(failed(error, true)) : failed(error, false);
    default:
      return error.kind satisfies never;
  }
}

/** DigitalOcean refuses what only a person can put right. Whoever finds that it does not any more wakes the saga. */
function holdFor({ message, hold, retryAfterMs }: DigitalOceanError, memo: Memo): StepOutcome {
  const scopes = hold?.scopes ?? [];
  const what = hold?.isTokenRefused === false ? 'this request' : 'the token';
  const lack = scopes.length === 0 ? '' : ` The token probably lacks the scope ${scopes.join(' or ')}.`;
  const check = hold?.isTokenRefused === false ? 'Check the scopes of DIGITALOCEAN_TOKEN' : 'Check DIGITALOCEAN_TOKEN';
  const reason = `DigitalOcean refuses ${what}: ${message}.${lack} ${check}; the saga goes on by itself`;
  return waiting(retryAfterMs ?? UNAUTHORIZED_DELAY_MS, reason, { memo, alarm: true, ...(hold?.circuit == null ? {} : { heldBy: hold.circuit }) });
}

/**
 * DigitalOcean is out of reach, and a look or a deletion is due. There is, or may be, a droplet: to roll back would need
 * DigitalOcean just the same, and would take down what may be in order. So the saga waits, however long it takes.
 */
function holdOn(error: DigitalOceanError, memo: Memo): StepOutcome {
  const outages = (memo['outages'] ?? 0) + 1;
  const delayMs = Math.min(OUTAGE_MAX_DELAY_MS, OUTAGE_FIRST_DELAY_MS * 2 ** Math.min(outages - 1, 10));
  const what = isLocalTrouble(error) ? 'this worker cannot make requests, which is trouble of its own machine' : 'DigitalOcean is out of reach';
  return waiting(delayMs, `${what}: ${error.message}`, { memo: { ...memo, outages }, alarm: true });
}

function isOutage(error: DigitalOceanError): boolean {
  return error.status === null || error.status >= 500;
}

/** A lock, or an action that is running on the droplet, may last for hours: a snapshot of a large disk does. */
function patient(outcome: Failed): Failed {
  return { ...outcome, error: { ...outcome.error, patient: true } };
}

type Failed = Extract<StepOutcome, { kind: 'failed' }>;

/** The step failed; retried, or not. */
export function failed(error: DigitalOceanError, retryable: boolean): Failed {
  return { kind: 'failed', error: { code: `digitalocean_${error.kind}`, message: describe(error), retryable } };
}

/** DigitalOcean's own words, and the id of the request, which its support would ask for. */
export function describe(error: DigitalOceanError): string {
  return `DigitalOcean: ${error.message}${error.requestId === null ? '' : ` (request ${error.requestId})`}`;
}
