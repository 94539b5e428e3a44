// Deliveries to a webhook, each run by its job. The result says what happens to the job; Postgres records whether the outcome
// was delivered.
import { batch } from '../platform/batch.ts';
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import type { DeliveryQueue, DeliveryVerdict } from '../queues/outcomes.ts';
import { computeBackoffMs } from '../saga/backoff.ts';
import type { Outcome, OutcomeSource } from '../saga/outcome-source.ts';
import type { Delivery, DeliveryStore, Patience } from './deliveries.ts';
import { createDeliveryStore } from './deliveries.ts';
import type { Entry } from './log.ts';
import { readOutcomes } from './read-outcomes.ts';
import type { Post } from './webhook.ts';

/** How deliveries are retried. */
export type DeliverySettings = Patience &
  Readonly<{
    /** First and longest back-off, in milliseconds. */
    backoffMs: number;
    backoffCapMs: number;
  }>;

/** 30 attempts of one outcome take half a day on average. After them, or after a day without any delivery, the subscription is paused and a person is asked. */
export const deliverySettings: DeliverySettings = { backoffMs: 1_000, backoffCapMs: 3_600_000, maxAttempts: 30, pauseAfterMs: 24 * 3_600_000 };

const batching = { max: 100, patienceMs: 50 };

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

/** Opens the deliveries of a subscription. The function attempts one of them once. */
export function openDeliveries(options: DeliverOptions): (id: string) => Promise<DeliveryVerdict> {
  const { db, subscription, sources, settings } = options;
  const store = createDeliveryStore(db, subscription, settings);
  const read = batch(async (entries: readonly Pick<Entry, 'id' | 'source'>[]) => {
    const outcomes = await readOutcomes(db, sources, entries);
    return entries.map(({ id }) => outcomes.get(id) ?? null);
  }, batching);
  return (id) => deliver(id, { ...options, store, read });
}

type Opened = DeliverOptions & Readonly<{ store: DeliveryStore; read: (entry: Pick<Entry, 'id' | 'source'>) => Promise<Outcome | null> }>;

async function deliver(id: string, options: Opened): Promise<DeliveryVerdict> {
  const { store, subscription, read, post, queue, settings, log } = options;
  const delivery = await store.load(id);
  if (delivery === null) return complete('delivered before');
  if (delivery.isPaused) return complete('the subscription is paused');
  // The delivery of the outcome before it creates the job.
  if (!delivery.isFirst) return complete('an earlier outcome of the same saga is not delivered yet');
  if (delivery.dueInMs > 0) return { kind: 'postpone', delayMs: delivery.dueInMs, note: 'not due yet' };
  const outcome = await read({ id, source: delivery.source });
  if (outcome === null) {
    log.error({ outcome: id, type: delivery.type, subscription }, 'outcome is gone: not delivered');
    await store.drop(id);
    return complete('gone');
  }
  const result = await post(id, JSON.stringify(outcome));
  const ageS = Math.max(0, Date.now() - Date.parse(outcome.timestamp)) / 1_000;
  if (result.kind === 'delivered') {
    const follow = await store.delivered(id);
    options.onAttempt('delivered', ageS);
    log.debug({ outcome: id, type: outcome.type, subscription }, 'outcome delivered');
    // If the queue is unavailable, the search for late deliveries finds them.
    await queue.ensure(follow).catch((error: unknown) => log.warn({ err: error }, 'could not enqueue deliveries: they are found later'));
    return complete(`${outcome.type} delivered`);
  }
  const { error, retryAfterMs } = result;
  const delayMs = Math.max(backoffOf(delivery, settings, Math.random()), retryAfterMs ?? 0);
  const pausedReason = await store.failed({ id, error, delayMs, retryAfterMs, pauses: result.kind === 'gone' });
  options.onAttempt('failed', ageS);
  if (pausedReason !== null) {
    log.error({ outcome: id, subscription, reason: pausedReason }, 'outcomes paused: a person has to resume them');
    return complete(pausedReason);
  }
  log.warn({ outcome: id, type: outcome.type, subscription, attempt: delivery.attempts + 1, delayMs, reason: error }, 'outcome not delivered: trying again later');
  return { kind: 'postpone', delayMs, note: error };
}

/**
 * Computes the delay before the next attempt. In an outage it grows with the age of the outage. The failures in it say nothing about the
 * outcome: once the receiver is back, an outcome that fails again is tried again as soon as any other.
 */
function backoffOf({ attempts, outageMs }: Delivery, { backoffMs, backoffCapMs }: DeliverySettings, random: number): number {
  if (outageMs === null) return computeBackoffMs(attempts + 1, backoffMs, random, backoffCapMs);
  return computeBackoffMs(1, Math.max(backoffMs, outageMs), random, backoffCapMs);
}

function complete(note: string): DeliveryVerdict {
  return { kind: 'complete', note };
}
