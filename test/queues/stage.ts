// A small fleet on either backend of the queues: an engine of fake steps, its queues, and workers.

import type { Queue, Worker } from 'bullmq';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import type { QueueConnection, QueueStore } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import type { StepQueues } from '../../src/queues/step-queues.ts';
import { startStepWorkers } from '../../src/queues/step-workers.ts';
import type { WorkerSettings } from '../../src/queues/step-workers.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import type { ReconcilerPass } from '../../src/saga/reconciler.ts';
import { reconcile } from '../../src/saga/reconciler.ts';
import { runJob } from '../../src/saga/runner.ts';
import { labelsOf } from '../../src/saga/labels.ts';
import type { RunnerOptions } from '../../src/saga/runner.ts';
import type { NextJob, SagaStatus } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { Engine, Ledger } from '../support/engine.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { openEngine, reconcileGraceMs } from '../support/engine.ts';
import { createTestRedis } from '../support/services-redis.ts';
import type { TestRedis } from '../support/services-redis.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';

export const backends = queueStoreKinds();
export type Backend = QueueStore['kind'];

export type Fleet = {
  readonly engine: Engine;
  readonly connection: QueueConnection;
  readonly queues: StepQueues;
  /** The queues themselves, for what a dashboard, an operator or a stranger may do. */
  readonly forward: Queue;
  readonly backward: Queue;
  /** Starts a saga and enqueues its first job. */
  readonly start: () => Promise<NextJob>;
  /** Starts workers of both step queues; `runner` is laid over the engine's options. */
  readonly work: (settings?: Partial<WorkerSettings>, runner?: Partial<RunnerOptions<Ledger>>) => Promise<Worker[]>;
  /** One pass of the reconciler. */
  readonly reconcile: () => Promise<ReconcilerPass>;
  /** Waits until these sagas are at rest, and returns their statuses. */
  readonly settled: (jobs: readonly NextJob[]) => Promise<SagaStatus[]>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Opens a fleet; on Redis it uses a prefix of its own on the run's server, unless it is given a store. */
export async function openQueueStage(
  backend: Backend,
  catalog: Catalog<Ledger>,
  given: { store?: QueueStore; runner?: Partial<RunnerOptions<Ledger>>; io?: Io } = {},
): Promise<Fleet> {
  const engine = await openEngine(catalog, given.runner);
  const redis = createTestRedis();
  const store = given.store ?? storeOf(backend, engine, redis);
  const connection = openQueueConnection(store, silentLog);
  const labels = labelsOf(catalog);
  const queues = openStepQueues(connection, directIo, { labelsOf: labels });
  const forward = connection.queue(queueNames.steps);
  const backward = connection.queue(queueNames.compensations);
  const workers: Worker[] = [];
  return {
    engine,
    connection,
    queues,
    forward,
    backward,
    start: async () => {
      const job = await engine.start();
      await queues.enqueue(job);
      return job;
    },
    work: async (settings = {}, runner = {}) => {
      const started = startStepWorkers(connection, {
        settings: { concurrency: 10, lockMs: 10_000, ...settings },
        queues,
        labelsOf: labels,
        run: (claim) => runJob(claim, { ...engine.options, ...runner }),
        io: given.io ?? directIo,
        log: silentLog,
      });
      workers.push(...started);
      await Promise.all(started.map((worker) => worker.waitUntilReady()));
      return started;
    },
    reconcile: () => reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: reconcileGraceMs }), ensure: queues.ensure, log: silentLog }),
    settled: (jobs) =>
      waitFor(
        async () => {
          const sagas = await Promise.all(jobs.map(({ sagaId }) => engine.load(sagaId)));
          const statuses = sagas.map(({ saga }) => saga.status);
          return statuses.every((status) => isAtRest(status)) && statuses;
        },
        { what: `${jobs.length} sagas to come to rest` },
      ),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(workers.map((worker) => worker.close()));
      await Promise.all([forward.close(), backward.close(), queues.close()]);
      await connection.close();
      await engine[Symbol.asyncDispose]();
      await redis.drop();
    },
  };
}

function storeOf(backend: Backend, engine: Engine, redis: TestRedis): QueueStore {
  return backend === 'redis' ? { kind: 'redis', nodes: redis.nodes, prefix: redis.prefix } : { kind: 'postgres', databaseUrl: engine.url };
}

/** How many jobs there are in a queue, in whatever state. */
export async function countJobs(queue: Queue): Promise<number> {
  return Object.values(await queue.getJobCounts()).reduce((sum, count) => sum + count, 0);
}
