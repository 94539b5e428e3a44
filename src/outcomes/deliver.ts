// One delivery to a webhook, run by its job. The result says what happens to the job; Postgres records whether the outcome
// was delivered.
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import type { DeliveryQueue, DeliveryVerdict } from '../queues/outcomes.ts';
import { computeBackoffMs } from '../saga/backoff.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';
import type { Patience } from './deliveries.ts';
import { dropDelivery, loadDelivery, markDelivered, markFailed } from './deliveries.ts';
import { readOutcomes } from './read-outcomes.ts';
import type { Post } from './webhook.ts';

/** How deliveries are retried. */
export type DeliverySettings = Patience &
  Readonly<{
    /** First and longest back-off, in milliseconds. */
    backoffMs: number;
    backoffCapMs: number;
  }>;

/** 30 attempts take half a day on average. After a day without any delivery, the subscription is paused and a person is asked. */
export const deliverySettings: DeliverySettings = { backoffMs: 1_000, backoffCapMs: 3_600_000, maxAttempts: 30, pauseAfterMs: 24 * 3_600_000 };

// This many consecutive failures count as an outage. When it ends, what it held up is due at once, whatever its back-off.
const OUTAGE_AFTER = 10;

export type DeliverOptions = Readonly<{
  db: Pick<Database, 'run'>;
  subscription: string;
  sources: readonly OutcomeSource[];
  post: Post;
  queue: Pick<DeliveryQueue, 'ensure'>;
  settings: DeliverySettings;
  log: Log;
  /** Called after each attempt; after a delivery, with the seconds since the outcome happened. Must not throw. */
  onAttempt(result: 'delivered' | 'failed', ageS: number): void;
}>;

/** Attempts a delivery once. */
export async function deliver(id: string, options: DeliverOptions): Promise<DeliveryVerdict> {
  const { db, subscription, sources, post, queue, settings, log } = options;
  const delivery = await loadDelivery(db, subscription, id);
  if (delivery === null) return complete('delivered before');
  if (delivery.isPaused) return complete('the subscription is paused');
  // The delivery of the outcome before it creates the job.
  if (!delivery.isFirst) return complete('an earlier outcome of the same saga is not delivered yet');
  if (delivery.dueInMs > 0) return { kind: 'postpone', delayMs: delivery.dueInMs, note: 'not due yet' };
  const outcome = (await readOutcomes(db, sources, [{ id, source: delivery.source }])).get(id);
  if (outcome === undefined) {
    log.error({ outcome: id, type: delivery.type, subscription }, 'outcome is gone: not delivered');
    await dropDelivery(db, subscription, id);
    return complete('gone');
  }
  const result = await post(id, JSON.stringify(outcome));
  const ageS = Math.max(0, Date.now() - Date.parse(outcome.timestamp)) / 1_000;
  if (result.kind === 'delivered') {
    const follow = await markDelivered(db, subscription, id, OUTAGE_AFTER);
    options.onAttempt('delivered', ageS);
    log.debug({ outcome: id, type: outcome.type, subscription }, 'outcome delivered');
    // If the queue is unavailable, the search for late deliveries finds them.
    await queue.ensure(follow).catch((error: unknown) => log.warn({ err: error }, 'could not enqueue deliveries: they are found later'));
    return complete(`${outcome.type} delivered`);
  }
  const { error, retryAfterMs } = result;
  const delayMs = Math.max(computeBackoffMs(delivery.attempts + 1, settings.backoffMs, Math.random(), settings.backoffCapMs), retryAfterMs ?? 0);
  const pausedReason = await markFailed(db, subscription, id, { error, delayMs, retryAfterMs, pauses: result.kind === 'gone' }, settings);
  options.onAttempt('failed', ageS);
  if (pausedReason !== null) {
    log.error({ outcome: id, subscription, reason: pausedReason }, 'outcomes paused: a person has to resume them');
    return complete(pausedReason);
  }
  log.warn({ outcome: id, type: outcome.type, subscription, attempt: delivery.attempts + 1, delayMs, reason: error }, 'outcome not delivered: trying again later');
  return { kind: 'postpone', delayMs, note: error };
}

function complete(note: string): DeliveryVerdict {
  return { kind: 'complete', note };
}
