// The queues of outcomes: that of the deliveries to a webhook, whose jobs say "look at this delivery", and that which an app's
// own backend takes outcomes from.
import type { Job, Worker } from 'bullmq';
import { DelayedError } from 'bullmq';
import { z } from 'zod';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import type { Outcome } from '../saga/outcome-source.ts';
import type { QueueConnection } from './connection.ts';
import { queueNames } from './jobs.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';
import { withTimeLimit } from './time-limit.ts';

/** What a delivery's job carries. */
const deliveryJobSchema = z.object({ subscription: z.string(), id: z.string() });

export type DeliveryQueue = Readonly<{
  /** Makes a job for each of these deliveries, where there is none. */
  add(ids: readonly string[]): Promise<void>;
  /** The same, and makes those due now that are delayed. */
  ensure(ids: readonly string[]): Promise<void>;
  close(): Promise<void>;
}>;

/** Opens the queue of a subscription's deliveries. */
export function openDeliveryQueue(connection: QueueConnection, subscription: string, io: Io): DeliveryQueue {
  const queue = connection.queue(queueNames.outcomes);
  const ask = <T>(what: string, operation: () => Promise<T>) => io('queue', what, () => withTimeLimit(what, operation));
  const add = async (ids: readonly string[]) => {
    const jobs = ids.map((id) => ({ name: 'deliver', data: { subscription, id }, opts: { jobId: jobIdOf(subscription, id), removeOnComplete: true, removeOnFail: true } }));
    return jobs.length === 0 ? [] : ask('add outcomes', () => queue.addBulk(jobs));
  };
  const promote = async (job: Job) => {
    if ((await ask('state in outcomes', () => job.getState())) === 'delayed') await ask('promote in outcomes', () => job.promote().catch(() => undefined));
  };
  return {
    add: async (ids) => void (await add(ids)),
    ensure: async (ids) => {
      const jobs = await add(ids);
      // Many at the end of an outage. The store answers a few at once as fast as one.
      for (let at = 0; at < jobs.length; at += PROMOTED_AT_ONCE) await Promise.all(jobs.slice(at, at + PROMOTED_AT_ONCE).map(promote));
    },
    close: () => queue.close(),
  };
}

const PROMOTED_AT_ONCE = 50;

/** BullMQ refuses colons. */
function jobIdOf(subscription: string, id: string): string {
  return `${subscription}_${id.replaceAll('/', '_')}`;
}

/** What to do with the job: it is done with, or comes back later. `note`: what came of it, for people. */
export type DeliveryVerdict = Readonly<{ kind: 'complete'; note: string } | { kind: 'postpone'; delayMs: number; note: string }>;

// A receiver that is slow takes a place each.
const CONCURRENCY = 20;

const OUTAGE_DELAY_MS = 1_000;

/** Starts the worker of a subscription's deliveries. */
export function startDeliveryWorker(
  connection: QueueConnection,
  options: { settings: WorkerSettings; subscription: string; deliver: (id: string) => Promise<DeliveryVerdict>; io: Io; log: Log },
): Worker {
  const { settings, subscription, deliver, io, log } = options;
  const worker: Worker = connection.worker(
    queueNames.outcomes,
    async (job, token) => {
      const parsed = deliveryJobSchema.safeParse(job.data);
      if (!parsed.success || parsed.data.subscription !== subscription) return 'not a delivery of this fleet: nothing was done';
      let verdict: DeliveryVerdict;
      try {
        verdict = await deliver(parsed.data.id);
      } catch (error) {
        log.warn({ outcome: parsed.data.id, err: error }, 'could not deliver the outcome: trying again later');
        verdict = { kind: 'postpone', delayMs: OUTAGE_DELAY_MS, note: 'Postgres or the queue store did not answer' };
      }
      if (verdict.kind === 'complete') return verdict.note;
      const { delayMs, note } = verdict;
      await io('queue', 'update data', () => job.updateData({ ...parsed.data, reason: note }));
      await io('queue', 'move to delayed', () => job.moveToDelayed(Math.round(Date.now() + delayMs), token));
      throw new DelayedError();
    },
    { ...workerOptions({ ...settings, concurrency: CONCURRENCY }), removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } },
  );
  worker.on('failed', (job, error) => log.warn({ queue: queueNames.outcomes, jobId: job?.id, reason: error.message }, 'job failed'));
  return worker;
}

export type OutcomeQueue = Readonly<{
  /** Jobs that nobody has taken yet. */
  count(): Promise<number>;
  add(outcomes: readonly Outcome[]): Promise<void>;
  close(): Promise<void>;
}>;

/** Opens the queue that a backend takes outcomes from. Its jobs go when they are completed; failed ones stay for a while. */
export function openOutcomeQueue(connection: QueueConnection, name: string): OutcomeQueue {
  const queue = connection.queue(name);
  return {
    count: () => withTimeLimit(`count ${name}`, () => queue.count()),
    add: async (outcomes) => {
      const jobs = outcomes.map((outcome) => ({
        name: outcome.type,
        data: outcome,
        opts: { jobId: outcome.data.id.replace('/', '_'), removeOnComplete: true, removeOnFail: { age: 14 * 24 * 3_600, count: 5_000 } },
      }));
      await withTimeLimit(`add ${name}`, () => queue.addBulk(jobs));
    },
    close: () => queue.close(),
  };
}
