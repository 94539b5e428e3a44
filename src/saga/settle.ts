// Ends a run of a step: writes the outcome, logs it unless it is routine, and returns the queue's verdict.
import type { Log } from '../platform/log.ts';
import type { HeldClaim } from './claim.ts';
import { describeEvent } from './describe-event.ts';
import type { Held } from './holds.ts';
import type { Saga, SagaEventKind } from './saga.ts';
import { nextJobOf } from './saga.ts';
import type { StepOutcome } from './step.ts';
import type { Outcome } from './transition.ts';
import type { Verdict } from './verdict.ts';
import { next } from './verdict.ts';

/**
 * The result of one run of a step. `superseded`: another writer had moved the saga on. `undecided`: no decision was
 * possible (Postgres is unreachable, or the step has a bug), and the job is retried.
 */
export type StepResult = 'completed' | 'waiting' | 'retried' | 'failed' | 'stuck' | 'superseded' | 'undecided';

/** See the runner's option of this name. */
type Hold = ((held: Held) => Promise<number>) | undefined;

/** Writes the outcome of a step and returns the queue's verdict. */
export async function settle(
  outcome: StepOutcome,
  jobRevision: number,
  claim: HeldClaim,
  { log, about, now, forwardOnly, hold }: { log: Log; about: object; now: Date; forwardOnly: boolean; hold?: Hold },
): Promise<{ verdict: Verdict; result: StepResult }> {
  if (outcome.kind === 'waiting' && (outcome.alarm === true || log.isLevelEnabled('debug'))) {
    const ageMs = now.getTime() - claim.saga().createdAt.getTime();
    log[outcome.alarm === true ? 'error' : 'debug']({ ...about, reason: outcome.reason, delayMs: outcome.delayMs, sagaAgeMs: ageMs }, 'not yet');
  }
  if (outcome.kind === 'waiting' && outcome.outputs === undefined) {
    // A wait writes nothing itself, so the start has to be written separately.
    await claim.writeStart();
    const saga = claim.saga();
    const delayMs = await holdBack(outcome, saga, hold);
    if (saga.revision === jobRevision) {
      return { verdict: { kind: 'postpone', delayMs, memo: outcome.memo ?? {}, note: outcome.reason }, result: 'waiting' };
    }
    return { verdict: next(nextJobOf(saga, delayMs), outcome.reason), result: 'waiting' };
  }
  const transition = await claim.commit(toTransitionOutcome(outcome, forwardOnly));
  if (outcome.kind === 'waiting' && outcome.heldBy !== undefined) {
    return { verdict: next(nextJobOf(transition.saga, await holdBack(outcome, transition.saga, hold)), describeEvent(transition.event)), result: 'waiting' };
  }
  const { event, saga } = transition;
  const level = event.kind === 'step_completed' && transition.next !== null ? 'debug' : (levels[event.kind] ?? 'info');
  if (log.isLevelEnabled(level)) log[level]({ ...about, event: event.kind, detail: event.detail, revision: saga.revision }, event.kind.replaceAll('_', ' '));
  return { verdict: next(transition.next, describeEvent(event)), result: results[event.kind] ?? 'waiting' };
}

// Routine events appear only in the timeline. The log shows what ends a saga and what goes wrong. `error`: a person is
// needed. `warn`: something failed and is being handled.
const levels: Partial<Record<SagaEventKind, 'warn' | 'error'>> = {
  step_stuck: 'error',
  compensation_stuck: 'error',
  step_failed: 'warn',
  step_retried: 'warn',
  compensation_retried: 'warn',
};

/** Returns how long the saga waits. A held saga waits until it is woken, or at most this long. */
async function holdBack({ heldBy, delayMs }: Extract<StepOutcome, { kind: 'waiting' }>, saga: Saga, hold: Hold): Promise<number> {
  if (heldBy === undefined || hold === undefined) return delayMs;
  return hold({ sagaId: saga.id, revision: saga.revision, circuit: heldBy, delayMs });
}

// The only other event that a run writes at its end is a postponement, which ends nothing.
const results: Partial<Record<SagaEventKind, StepResult>> = {
  step_completed: 'completed',
  compensation_completed: 'completed',
  step_retried: 'retried',
  compensation_retried: 'retried',
  step_failed: 'failed',
  step_stuck: 'stuck',
  compensation_stuck: 'stuck',
};

function toTransitionOutcome(outcome: StepOutcome, forwardOnly: boolean): Outcome {
  if (outcome.kind === 'failed') return forwardOnly ? { ...outcome, forwardOnly } : outcome;
  if (outcome.kind === 'done') return outcome;
  return { kind: 'postponed', delayMs: outcome.delayMs, reason: outcome.reason, outputs: outcome.outputs ?? {} };
}
