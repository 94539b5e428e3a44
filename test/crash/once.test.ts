// `once`, under the crash matrix: a worker is killed at each I/O of a saga that brings two effects about at a foreign service,
// and at each I/O of its rollback; another worker finishes it. Each effect is there once where the saga completed, and not at
// all where it was rolled back.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { describe, expect, test, vi } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import { emptyKeyRing } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { loadConfigFor } from '../../src/processes/inventory.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { openQueueConnection, queueStoreOf } from '../../src/queues/connection.ts';
import { startAndEnqueue } from '../../src/queues/start-and-enqueue.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { giveBack, takeDatabase } from './databases.ts';
import type { Boundary } from './boundaries.ts';
import { numberedOrderIo } from './boundaries.ts';
import type { CrashPlan } from './crash-plan.ts';
import { samplePart } from './matrix.ts';
import { ordersAppAt, placeOrders } from './orders-app.ts';
import { startVictim } from './stage.ts';

vi.setConfig({ maxConcurrency: 6, testTimeout: 180_000 });

type Stage = Readonly<{ startWorker(io?: Io): Promise<RunningWorker>; environment: NodeJS.ProcessEnv; untilAtRest(): Promise<unknown> }>;

/** `live`: the orders that stand, by their mark without the saga's id. `sent`: how many were placed. */
type Outcome = Readonly<{ status: string | undefined; live: readonly string[]; sent: number }>;

/** A saga at a service of its own: `play` starts workers, and resolves when the saga is at rest. */
async function onStage(fails: boolean, play: (stage: Stage) => Promise<void>): Promise<Outcome> {
  const orders: { mark: string; id: number; isCancelled: boolean }[] = [];
  const service = createServer((request, response) => {
    const mark = (request.url ?? '').slice('/orders/'.length);
    const live = orders.find((order) => order.mark === mark && !order.isCancelled);
    if (request.method === 'POST') orders.push({ mark, id: orders.length + 1, isCancelled: false });
    if (request.method === 'DELETE' && live !== undefined) live.isCancelled = true;
    response.end(JSON.stringify(request.method === 'POST' ? orders.length : (live?.id ?? null)));
  }).listen(0, '127.0.0.1');
  await once(service, 'listening');
  const address = service.address();
  const database = await takeDatabase();
  const redis = createTestRedis();
  const environment = {
    DATABASE_URL: database.url, REDIS_URL: redis.url, QUEUE_PREFIX: redis.prefix, LOG_LEVEL: 'silent',
    RECONCILE_INTERVAL_MS: '400', WORKER_LOCK_MS: '1200', STEP_BACKOFF_MS: '50', WORKER_CONCURRENCY: '2',
    ARCADIA_TEST_ORDERS_URL: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
  };
  const app = ordersAppAt(environment.ARCADIA_TEST_ORDERS_URL);
  const config = loadConfigFor(app, environment, ['DATABASE_URL']);
  const db = openDatabase(database.url, { max: 2 });
  const queues = openQueueConnection(queueStoreOf(config), silentLog);
  const stepQueues = openStepQueues(queues, directIo);
  const workers: RunningWorker[] = [];
  try {
    const catalog = { [placeOrders.name]: placeOrders };
    const { sagaId } = await startAndEnqueue({ name: placeOrders.name, input: { fails } }, { catalog, db, queues: stepQueues, keyRing: emptyKeyRing, reconcileGraceMs: 400, log: silentLog });
    await play({
      environment,
      startWorker: async (io = directIo) => {
        const worker = await startWorker(config, silentLog, io, app);
        workers.push(worker);
        return worker;
      },
      untilAtRest: () => waitFor(async () => { const loaded = await loadSaga(db, sagaId); return loaded !== null && isAtRest(loaded.saga.status); }, { what: 'the saga to be at rest', deadlineMs: 60_000 }),
    });
    const saga = (await loadSaga(db, sagaId))?.saga;
    return { status: saga?.status, live: orders.filter(({ isCancelled }) => !isCancelled).map(({ mark }) => mark.replace(`${sagaId}-`, '')).toSorted(), sent: orders.length };
  } finally {
    await Promise.allSettled(workers.map((worker) => worker.close()));
    await stepQueues.close();
    await Promise.allSettled([queues.close(), db.close()]);
    await giveBack(database);
    await redis.drop();
    service.close();
    service.closeAllConnections();
  }
}

/** The I/Os of a saga that nothing happens to. */
async function record(fails: boolean): Promise<readonly Boundary[]> {
  const boundaries: Boundary[] = [];
  const outcome = await onStage(fails, async ({ startWorker, untilAtRest }) => {
    await startWorker(numberedOrderIo((boundary, operation) => (boundaries.push(boundary), operation())));
    await untilAtRest();
  });
  expect(outcome).toEqual({ ...expected(fails), sent: 2 });
  return boundaries;
}

const expected = (fails: boolean) => (fails ? { status: 'compensated', live: [] } : { status: 'completed', live: ['order_invoice-invoice', 'order_parcel-parcel'] });

const recorded = await Promise.all([false, true].map(async (fails) => ({ fails, boundaries: await record(fails) })));
const cases = recorded.flatMap(({ fails, boundaries }) =>
  boundaries.flatMap(({ number, name }) => (['before', 'after'] as const).map((position) => ({ fails, number, position, title: `${fails ? 'rolled back' : 'completed'}: ${position} ${number} (${name})` }))),
);

test('a saga with two effects has boundaries around each of their requests', () => {
  expect(cases.filter(({ title }) => title.includes('POST /orders'))).toHaveLength(8);
  expect(cases.filter(({ title }) => title.includes('DELETE /orders'))).toHaveLength(4);
});

describe.concurrent('a worker that is killed at an I/O of an effect leaves each effect once, or not at all', () => {
  // Around a request every one is tried: what the service did is in no store of ours.
  const requests = cases.filter(({ title }) => title.includes('/orders'));
  const others = cases.filter(({ title }) => !title.includes('/orders'));
  for (const { fails, number, position, title } of [...requests, ...samplePart(others, 16)]) {
    test(`in ${title}`, async () => {
      const outcome = await onStage(fails, async ({ environment, startWorker, untilAtRest }) => {
        const plan: CrashPlan = { chain: 'job', number, position, signal: 'SIGKILL', cancelAfter: null };
        const victim = startVictim({ ...environment, ARCADIA_CRASH_PLAN: JSON.stringify(plan) });
        await victim.struck;
        await victim.exited;
        await startWorker();
        await untilAtRest();
      });
      expect(outcome).toMatchObject(expected(fails));
      // One that was never sent, or refused an answer, is not sent twice.
      expect(outcome.sent).toBe(2);
    });
  }
});
