// What an error means that neither a step nor its family explains.
import { isDatabaseOutage, isOfOurDatabase } from '../platform/db.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { StepOutcome } from './step.ts';

/** @returns a failure to be retried; null where our Postgres is away: nothing is decided, and the job is run again as it is */
export function outcomeOfUnexpected(error: unknown): StepOutcome | null {
  // A step's own requests fail with the same codes: they use attempts, unless this machine is in trouble and nothing was sent.
  if ((isOfOurDatabase(error) || isLocalTrouble(error)) && isDatabaseOutage(error)) return null;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { kind: 'failed', error: { code: 'unexpected', message, retryable: true } };
}
