// Times that the database wrote into a saga's context for its steps.
import type { StepRun } from './step.ts';
import { msBetween, msOf, readTimeMs } from '../platform/time.ts';

/**
 * Returns the least time since a step stamped this context key, in milliseconds by the database's clock; null: it did
 * not. For an unreadable stamp, uses the saga's last change, which came no earlier: the age may be too low, never too
 * high.
 */
export function stampAgeMs({ saga, now }: Pick<StepRun, 'saga' | 'now'>, key: string): number | null {
  const stamp = saga.context[key];
  if (stamp === undefined) return null;
  return msOf(now) - (readTimeMs(stamp) ?? msOf(saga.updatedAt));
}

/** Returns how long the current step has been current, in milliseconds by the database's clock. */
export function stepAgeMs({ saga, now }: Pick<StepRun, 'saga' | 'now'>): number {
  return msBetween(saga.stepStartedAt, now);
}
