// Interprets errors that neither a step nor its family explains.
import { isDatabaseOutage, isOfOurDatabase } from '../platform/db.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { StepOutcome } from './step.ts';

/**
 * @returns a failure to be retried; null if our Postgres is unreachable: nothing is decided, and the same job runs again
 */
export function outcomeOfUnexpected(error: unknown): StepOutcome | null {
  // A step's own requests fail with the same codes. They use attempts, unless this machine has a problem and nothing was
  // sent.
  if ((isOfOurDatabase(error) || isLocalTrouble(error)) && isDatabaseOutage(error)) return null;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { kind: 'failed', error: { code: 'unexpected', message, retryable: true } };
}
