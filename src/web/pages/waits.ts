// What a saga that is under way waits for, in plain words. Pure.
import type { Saga } from '../../saga/saga.ts';
import { currentStep, directionOf } from '../../saga/saga.ts';
import type { StoredEvent } from '../../saga/store.ts';
import type { Surface } from '../../saga/words.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import { withoutRequest } from './timeline.ts';

/** Says what a saga waits for, by the words of its step, its last event and what its job tells. */
export function describeWait(saga: Saga, surface: Surface, last: StoredEvent | undefined, { memo, reason }: Pick<InspectedJob, 'memo' | 'reason'>): string {
  if (saga.waitsFor !== null) return `waits for saga ${saga.waitsFor}, which is at work on the same resource`;
  if (saga.status === 'pending') return 'waits for a worker to take its first step';
  const step = currentStep(saga);
  const words = surface.step(step);
  const what = directionOf(saga) === 'backward' ? `undoing ${step}` : (words?.doing ?? `running ${step}`);
  const polls = memo['polls'] ?? 0;
  if (reason !== undefined) return `${what}: ${withoutRequest(shortTextOf(reason))}${polls > 0 ? ` (looked ${times(polls)})` : ''}`;
  if ((memo['outages'] ?? 0) > 0) return `${what}: ${words?.provider ?? 'the other end'} is out of reach (asked ${times(memo['outages'] ?? 0)}); it waits as long as it takes`;
  if (last?.kind === 'step_retried' || last?.kind === 'compensation_retried') {
    return `${what}: attempt ${saga.attempt} failed, it tries again: ${withoutRequest(shortTextOf(last.detail['message']))}`;
  }
  if (last?.kind === 'step_postponed' || last?.kind === 'compensation_postponed') return `${what}: ${shortTextOf(last.detail['reason'])}`;
  return polls > 0 ? `${what}: looked ${times(polls)}, not yet` : what;
}

// A worker takes a job within milliseconds, unless there are too few of them.
const LONG_QUEUE_MS = 2_000;

/**
 * For how long a saga's step has been due without a worker that has it, in milliseconds; null: one has it, or it is not
 * due, or not for long.
 *
 * @param job null: its queue has none, or could not be asked; a step that wrote something down is at a job of before
 * @param aliveWorkers names of those that live; null: not known
 */
export function untakenForMs(
  saga: Pick<Saga, 'updatedAt'>,
  job: Pick<InspectedJob, 'takenBy' | 'dueInMs' | 'dueSinceMs'> | null,
  { aliveWorkers, now }: { aliveWorkers: readonly string[] | null; now: Date },
): number | null {
  if (job === null) return aliveWorkers?.length === 0 ? Math.max(0, now.getTime() - saga.updatedAt.getTime()) : null;
  const { takenBy, dueInMs, dueSinceMs } = job;
  if (dueInMs > 0 || dueSinceMs < LONG_QUEUE_MS) return null;
  // What a dead worker had stays its own until another one looks after it.
  const isTaken = takenBy !== null && (aliveWorkers === null || (takenBy === '' ? aliveWorkers.length > 0 : aliveWorkers.includes(takenBy)));
  return isTaken ? null : dueSinceMs;
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}
