// Times that steps had the database write into their saga's context.
import type { StepRun } from './step.ts';
import { msBetween, msOf, readTimeMs } from '../platform/time.ts';

/**
 * How long ago a step stamped this key of the context at least, in milliseconds by the database's clock; null: it did not.
 * A stamp that cannot be read counts from the saga's last change, which came no sooner: too young, never too old.
 */
export function stampAgeMs({ saga, now }: Pick<StepRun, 'saga' | 'now'>, key: string): number | null {
  const stamp = saga.context[key];
  if (stamp === undefined) return null;
  return msOf(now) - (readTimeMs(stamp) ?? msOf(saga.updatedAt));
}

/** For how long the current step has been the saga's, in milliseconds by the database's clock. */
export function stepAgeMs({ saga, now }: Pick<StepRun, 'saga' | 'now'>): number {
  return msBetween(saga.stepStartedAt, now);
}
