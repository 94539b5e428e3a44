// Describes what an unfinished saga waits for, in plain words. Pure.
import type { Saga } from '../../saga/saga.ts';
import { currentStep, directionOf } from '../../saga/saga.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { Surface } from '../../saga/words.ts';
import { counted, shortTextOf } from '../../platform/text.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import { withoutRequest } from './timeline.ts';

/** Describes what a saga waits for, from its step's words, its last event and its job. */
export function describeWait(saga: Saga, surface: Surface, last: StoredEvent | undefined, { memo, reason }: Pick<InspectedJob, 'memo' | 'reason'>): string {
  if (saga.waitsFor !== null) return `waiting for saga ${saga.waitsFor}, which is using the same resource`;
  if (saga.status === 'pending') return 'waiting for a worker to run its first step';
  const step = currentStep(saga);
  const words = surface.step(step);
  const what = directionOf(saga) === 'backward' ? `undoing ${step}` : (words?.doing ?? `running ${step}`);
  const polls = memo['polls'] ?? 0;
  if (words?.waitsFor !== undefined && directionOf(saga) === 'forward' && saga.attempt === 0) {
    const checked = polls > 0 ? `, checked ${counted(polls, 'time')}` : '';
    return `waits for ${words.waitsFor(saga)}${checked}${reason === undefined ? '' : `; ${withoutRequest(shortTextOf(reason))}`}`;
  }
  if (reason !== undefined) return `${what}: ${withoutRequest(shortTextOf(reason))}${polls > 0 ? ` (${counted(polls, 'poll')})` : ''}`;
  if ((memo['outages'] ?? 0) > 0) return `${what}: ${words?.provider ?? 'the service'} is unreachable (${counted(memo['outages'] ?? 0, 'attempt')}); retrying until it answers`;
  if (last?.kind === 'step_retried' || last?.kind === 'compensation_retried') {
    return `${what}: attempt ${saga.attempt} failed, retrying: ${withoutRequest(shortTextOf(last.detail['message']))}`;
  }
  if (last?.kind === 'step_postponed' || last?.kind === 'compensation_postponed') return `${what}: ${shortTextOf(last.detail['reason'])}`;
  return polls > 0 ? `${what}: ${counted(polls, 'poll')}` : what;
}

// A worker takes a job within milliseconds, unless there are too few workers.
const LONG_QUEUE_MS = 2_000;

/**
 * Returns how long a saga's step has been due without a worker, in milliseconds; null: a worker has it, or it is not due,
 * or not for long.
 *
 * @param job null: its queue has none or could not be read; after a step recorded something, its job is of an earlier
 *   revision
 * @param aliveWorkers names of the live workers; null: unknown
 */
export function untakenForMs(
  saga: Pick<Saga, 'updatedAt'>,
  job: Pick<InspectedJob, 'takenBy' | 'dueInMs' | 'dueSinceMs'> | null,
  { aliveWorkers, now }: { aliveWorkers: readonly string[] | null; now: Date },
): number | null {
  if (job === null) return aliveWorkers?.length === 0 ? Math.max(0, now.getTime() - saga.updatedAt.getTime()) : null;
  const { takenBy, dueInMs, dueSinceMs } = job;
  if (dueInMs > 0 || dueSinceMs < LONG_QUEUE_MS) return null;
  // A dead worker keeps its job until another one takes it over.
  const isTaken = takenBy !== null && (aliveWorkers === null || (takenBy === '' ? aliveWorkers.length > 0 : aliveWorkers.includes(takenBy)));
  return isTaken ? null : dueSinceMs;
}
