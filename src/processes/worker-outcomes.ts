// Outcomes in a worker, wired: who is told, by the configuration, and the loops and the queue that do it.
import { Counter, Histogram, Registry } from 'prom-client';
import type { Dispatcher } from '../outcomes/dispatcher.ts';
import { createDispatcher } from '../outcomes/dispatcher.ts';
import type { DeliverySettings } from '../outcomes/deliver.ts';
import { deliverySettings, openDeliveries } from '../outcomes/deliver.ts';
import type { Target } from '../outcomes/targets.ts';
import { notifyTarget, queueTarget, webhookTarget } from '../outcomes/targets.ts';
import { openWebhook } from '../outcomes/webhook.ts';
import type { Config } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { withoutIo } from '../platform/db.ts';
import type { Io } from '../platform/io.ts';
import { directIo } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import type { QueueConnection } from '../queues/connection.ts';
import { openDeliveryQueue, openOutcomeQueue, startDeliveryWorker } from '../queues/outcomes.ts';
import type { WorkerSettings } from '../queues/step-workers.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';

export type WorkerOutcomes = Readonly<{
  /** Of the deliveries; none where no webhook is configured. */
  workers: readonly ReturnType<typeof startDeliveryWorker>[];
  /** A saga of this worker came to rest. */
  wake(): void;
  /** Its loops; each ends when the signal is aborted. */
  run(signal: AbortSignal): readonly Promise<void>[];
  /** In the text format of Prometheus. */
  metrics(): Promise<string>;
  close(): Promise<void>;
}>;

/** Names of the subscriptions. */
const WEBHOOK = 'webhook';
const QUEUE = 'queue';
const NOTIFY = 'notify';

// Seconds from when it happened until its receiver has it.
const BUCKETS = [0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 1_800, 3_600, 14_400, 86_400];

export type WorkerOutcomesOf = Readonly<{ config: Config['outcomes']; db: Database; connection: QueueConnection; settings: WorkerSettings; sources: readonly OutcomeSource[]; io: Io; log: Log; timings?: OutcomeTimings }>;

/** How often it looks, and how deliveries are retried; all in milliseconds. */
export type OutcomeTimings = Readonly<{ pollMs?: number; leaseMs?: number; lateMs?: number; timeoutMs?: number; delivery?: DeliverySettings }>;

/** Opens what tells of outcomes. Its worker takes deliveries at once. */
export function openOutcomes({ config, db, connection, settings, sources, io, log, timings = {} }: WorkerOutcomesOf): WorkerOutcomes {
  const registry = new Registry();
  const registers = [registry];
  const attempts = new Counter({ name: 'arcadia_outcome_attempts_total', help: 'Attempts of this worker to deliver an outcome to the webhook', labelNames: ['result'], registers });
  const ages = new Histogram({ name: 'arcadia_outcome_delivery_seconds', help: 'Time from an outcome to its acceptance by the webhook', buckets: BUCKETS, registers });
  for (const result of ['delivered', 'failed']) attempts.inc({ result }, 0);

  const of = { db: withoutIo(db), sources };
  const targets: Target[] = config.notify ? [notifyTarget(of, NOTIFY)] : [];
  const dispatchers: Dispatcher[] = [];
  const workers: ReturnType<typeof startDeliveryWorker>[] = [];
  const queues: Readonly<{ close(): Promise<void> }>[] = [];
  if (config.queue !== null) {
    const queue = openOutcomeQueue(connection, config.queue);
    queues.push(queue);
    targets.push(queueTarget(of, { name: QUEUE, describe: `queue ${config.queue}`, queue }));
  }
  if (config.webhook !== null) {
    // Of the jobs, and of the loop.
    const [queue, background] = [openDeliveryQueue(connection, WEBHOOK, io), openDeliveryQueue(connection, WEBHOOK, directIo)];
    queues.push(queue, background);
    targets.push(webhookTarget(of, { name: WEBHOOK, describe: new URL(config.webhook.url).origin, queue: background, lateMs: timings.lateMs }));
    const options = {
      db,
      subscription: WEBHOOK,
      sources,
      post: openWebhook(config.webhook, io, timings.timeoutMs),
      queue,
      settings: timings.delivery ?? deliverySettings,
      log,
      onAttempt: (result: 'delivered' | 'failed', ageS: number) => {
        attempts.inc({ result });
        if (result === 'failed') return;
        ages.observe(ageS);
        for (const dispatcher of dispatchers) dispatcher.madeRoom();
      },
    };
    workers.push(startDeliveryWorker(connection, { settings, subscription: WEBHOOK, deliver: openDeliveries(options), io, log }));
  }
  dispatchers.push(...targets.map((target) => createDispatcher({ ...of, target, log, ...timings })));
  return {
    workers,
    wake: () => {
      for (const dispatcher of dispatchers) dispatcher.wake();
    },
    run: (signal) => dispatchers.map((dispatcher) => dispatcher.run(signal)),
    metrics: () => registry.metrics(),
    close: async () => {
      await Promise.all(queues.map((queue) => queue.close()));
    },
  };
}
