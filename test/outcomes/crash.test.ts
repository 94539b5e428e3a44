// A worker is killed at each I/O of a delivery: another worker finishes it. The receiver gets the outcome, and not more often
// than there were requests that the worker died around.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { describe, expect, test, vi } from 'vitest';
import { listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import { emptyKeyRing } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { loadConfigFor } from '../../src/processes/inventory.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { startSaga } from '../../src/saga/start.ts';
import { giveBack, takeDatabase } from '../crash/databases.ts';
import type { Boundary } from '../crash/boundaries.ts';
import { numberedOutcomeIo } from '../crash/boundaries.ts';
import type { CrashPlan } from '../crash/crash-plan.ts';
import { samplePart } from '../crash/matrix.ts';
import { ordersAppAt, placeOrders } from '../crash/orders-app.ts';
import { startVictim } from '../crash/stage.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { SECRET, startReceiver } from './stage.ts';

vi.setConfig({ maxConcurrency: 6, testTimeout: 180_000 });

type Play = (stage: Readonly<{ environment: NodeJS.ProcessEnv; start(io?: Io): Promise<void>; startSaga(): Promise<void> }>) => Promise<void>;

/** Plays until a saga's outcome is delivered. Its receiver fails the first time. Returns what it took. */
async function onStage(play: Play) {
  const service = createServer((_request, response) => response.end('1')).listen(0, '127.0.0.1');
  await once(service, 'listening');
  const address = service.address();
  await using receiver = await startReceiver((_received, response) => {
    const isTaken = receiver.requests.length > 1;
    response.writeHead(isTaken ? 204 : 503).end();
    return isTaken;
  });
  const database = await takeDatabase();
  const redis = createTestRedis();
  const environment = {
    DATABASE_URL: database.url, REDIS_URL: redis.url, QUEUE_PREFIX: redis.prefix, LOG_LEVEL: 'silent',
    RECONCILE_INTERVAL_MS: '400', WORKER_LOCK_MS: '1200', STEP_BACKOFF_MS: '50', WORKER_CONCURRENCY: '2',
    OUTCOME_WEBHOOK_URL: receiver.url, OUTCOME_WEBHOOK_SECRETS: SECRET,
    ARCADIA_TEST_ORDERS_URL: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
  };
  const app = ordersAppAt(environment.ARCADIA_TEST_ORDERS_URL);
  const config = loadConfigFor(app, environment, ['DATABASE_URL']);
  const db = openDatabase(database.url, { max: 2 });
  const workers: RunningWorker[] = [];
  const subscribed = () => waitFor(async () => (await listSubscriptions(db)).some(({ name }) => name === 'webhook'), { what: 'the subscription', deadlineMs: 60_000, everyMs: 50 });
  try {
    await play({
      environment,
      start: async (io = directIo) => void workers.push(await startWorker(config, silentLog, io, app)),
      startSaga: async () => {
        await subscribed();
        await startSaga(db, { [placeOrders.name]: placeOrders }, { name: placeOrders.name, input: { fails: false } }, 0, emptyKeyRing);
      },
    });
    await waitFor(() => receiver.taken.length > 0, { what: 'the outcome', deadlineMs: 60_000 });
    await waitFor(async () => (await listSubscriptions(db)).every(({ waiting }) => waiting === 0), { what: 'the end of the delivery', deadlineMs: 60_000 });
    const [saga] = await db.sql<{ id: string }[]>`select id || '/' || revision as id from arcadia.sagas where status = 'completed'`;
    return { expected: saga?.id, ids: receiver.taken.map(({ body }) => body.data.id) };
  } finally {
    await Promise.allSettled(workers.map((worker) => worker.close()));
    await db.close();
    await giveBack(database);
    await redis.drop();
    service.close();
    service.closeAllConnections();
  }
}

const boundaries: Boundary[] = [];
await onStage(async ({ start, startSaga: begin }) => {
  await start(numberedOutcomeIo((boundary, operation) => (boundaries.push(boundary), operation())));
  await begin();
});
const cases = boundaries.flatMap(({ number, name }) => (['before', 'after'] as const).map((position) => ({ number, name, position })));

test('a delivery that fails once and then succeeds has these boundaries', () => {
  expect(boundaries.map(({ name }) => name).filter((name) => name !== 'outcomes.load')).toEqual(['outcomes.read_sagas', 'POST webhook', 'outcomes.failed', 'outcomes.read_sagas', 'POST webhook', 'outcomes.delivered']);
});

describe.concurrent('a worker that is killed at an I/O of a delivery', () => {
  const requests = cases.filter(({ name }) => name === 'POST webhook');
  const others = cases.filter(({ name }) => name !== 'POST webhook');
  for (const { number, name, position } of [...requests, ...samplePart(others, 3)]) {
    test(`${position} ${number} (${name})`, async () => {
      const { ids, expected } = await onStage(async ({ environment, start, startSaga: begin }) => {
        const plan: CrashPlan = { chain: 'outcome', number, position, signal: 'SIGKILL', cancelAfter: null };
        const victim = startVictim({ ...environment, ARCADIA_CRASH_PLAN: JSON.stringify(plan) });
        await begin();
        await victim.struck;
        await victim.exited;
        await start();
      });
      expect(new Set(ids)).toEqual(new Set([expected]));
      expect(ids.length).toBeLessThanOrEqual(2);
    });
  }
});
