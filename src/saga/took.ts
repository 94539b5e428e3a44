// How long sagas and attempts of steps took. Pages and terminal say it by this one rule, so that the same saga has the
// same times in both.
import type { StoredEvent } from './events.ts';
import type { Saga } from './saga.ts';

/** Returns how long a saga took, in milliseconds: from its request to its end, waits included; null: it has not ended. */
export function sagaTookMs({ createdAt, finishedAt }: Pick<Saga, 'createdAt' | 'finishedAt'>): number | null {
  return finishedAt === null ? null : finishedAt.getTime() - createdAt.getTime();
}

/**
 * Returns since when the attempt runs that the events after `event` belong to.
 *
 * An attempt starts when the one before it ended, the first one when a worker took the saga, and one after a failure at
 * the end of its back-off. So its time is the time that the step itself needed, with its polls. Waiting for the first
 * worker and back-off are no part of it: a step would otherwise seem slow because a service was down.
 *
 * @param since the result for the event before; the saga's `createdAt` for the first event
 */
export function attemptSince(since: Date, event: Pick<StoredEvent, 'kind' | 'at' | 'detail'>): Date {
  switch (event.kind) {
    case 'saga_created':
    case 'saga_started':
    case 'step_completed':
    case 'compensation_completed':
    case 'step_failed':
    case 'step_stuck':
    case 'compensation_stuck':
    case 'cancel_requested':
    case 'retry_requested':
      return event.at;
    case 'step_retried':
    case 'compensation_retried':
      return new Date(event.at.getTime() + (typeof event.detail['delayMs'] === 'number' ? event.detail['delayMs'] : 0));
    case 'saga_rejected':
    case 'step_recorded':
    case 'compensation_recorded':
    case 'step_postponed':
    case 'compensation_postponed':
      return since;
    default:
      return event.kind satisfies never;
  }
}

/** Whether an event ends an attempt of a step, or of undoing it. */
function endsAttempt({ kind }: Pick<StoredEvent, 'kind'>): boolean {
  return /^(?:step|compensation)_(?:completed|failed|retried|stuck)$/.test(kind);
}

/** Returns how long each attempt took that ended, in milliseconds, by the `seq` of the event that ended it. */
export function attemptsTookMs(saga: Pick<Saga, 'createdAt'>, events: readonly Pick<StoredEvent, 'seq' | 'kind' | 'at' | 'detail'>[]): ReadonlyMap<number, number> {
  const took = new Map<number, number>();
  let since = saga.createdAt;
  for (const event of events) {
    // A worker may act before a back-off has ended by the clock.
    if (endsAttempt(event)) took.set(event.seq, Math.max(0, event.at.getTime() - since.getTime()));
    since = attemptSince(since, event);
  }
  return took;
}
