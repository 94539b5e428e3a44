// Interprets errors that neither a step nor its family explains.
import { isDatabaseOutage, isOfOurDatabase } from '../platform/db.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import { textOfThrown } from '../platform/thrown.ts';
import type { StepOutcome } from './step.ts';

/**
 * @returns a failure to be retried; null if our Postgres is unreachable: nothing is decided, and the same job runs again
 */
export function outcomeOfUnexpected(error: unknown): Extract<StepOutcome, { kind: 'failed' }> | null {
  // A step's own requests fail with the same codes. They use attempts, unless this machine has a problem and nothing was
  // sent.
  if ((isOfOurDatabase(error) || isLocalTrouble(error)) && isDatabaseOutage(error)) return null;
  return { kind: 'failed', error: { code: 'unexpected', message: textOfThrown(error), retryable: true } };
}
