// What an error means that neither a step nor its family explains.
import { isDatabaseOutage } from '../platform/db.ts';
import type { StepOutcome } from './step.ts';

/** @returns a failure to be retried; null where Postgres is away: nothing is decided, and the job is run again as it is */
export function outcomeOfUnexpected(error: unknown): StepOutcome | null {
  if (isDatabaseOutage(error)) return null;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { kind: 'failed', error: { code: 'unexpected', message, retryable: true } };
}
