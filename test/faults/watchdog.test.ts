// A worker whose job loop stands still although its store answers notices it; one that merely has nothing to do, or may
// do nothing, does not.

import type { Job, Worker } from 'bullmq';
import { describe, expect, test } from 'vitest';
import { silentLog } from '../../src/platform/log.ts';
import { migrateQueues, openQueueConnection } from '../../src/queues/connection.ts';
import type { QueueConnection, QueueStore } from '../../src/queues/connection.ts';
import { watchJobLoops } from '../../src/queues/watchdog.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { startTcpProxy, throughProxy } from '../support/fault-proxy.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';

const LOOK_MS = 150;
// Three looks and one more, and some patience with a slow machine.
const LONG_ENOUGH_MS = LOOK_MS * 12;

type Bench = { readonly connection: QueueConnection; readonly worker: Worker; readonly watch: (signal?: AbortSignal) => Promise<string | null> };

async function setUp(stack: AsyncDisposableStack, store: QueueStore, processor: (job: Job) => Promise<unknown>): Promise<Bench> {
  await migrateQueues(store);
  const connection = openQueueConnection(store, silentLog);
  stack.defer(() => connection.close());
  const worker = connection.worker('bench', processor, { concurrency: 2, drainDelay: 1 });
  stack.defer(() => worker.close(true));
  await worker.waitUntilReady();
  return { connection, worker, watch: (signal = AbortSignal.timeout(20_000)) => watchJobLoops(connection, { everyMs: LOOK_MS, signal }) };
}

async function onRedis(stack: AsyncDisposableStack, processor: (job: Job) => Promise<unknown>): Promise<Bench> {
  const place = stack.use(createTestRedis());
  return setUp(stack, { kind: 'redis', nodes: place.nodes, prefix: place.prefix }, processor);
}

async function addTo(stack: AsyncDisposableStack, connection: QueueConnection, jobs: number, options: { data?: object; delay?: number } = {}) {
  const queue = connection.queue('bench');
  stack.defer(() => queue.close());
  for (let at = 0; at < jobs; at += 1) await queue.add('work', options.data ?? {}, { delay: options.delay ?? 0 });
  return queue;
}

const nothing = () => Promise.resolve();

describe.concurrent('a worker that stands still', () => {
  test.for(queueStoreKinds())('says so while a job waits (%s)', async (kind) => {
    await using stack = new AsyncDisposableStack();
    const { connection, worker, watch } =
      kind === 'redis'
        ? await onRedis(stack, nothing)
        : await setUp(stack, { kind, databaseUrl: stack.use(await createTestDatabase()).url }, nothing);
    await worker.pause(true);
    // On Postgres a fetch that was under way may still take one.
    await addTo(stack, connection, 3);
    expect(await watch()).toMatch(/^the worker of bench takes no jobs: job \S+ stayed ready for 3 looks/);
  });

  test('says so while a delayed job is long due', async () => {
    await using stack = new AsyncDisposableStack();
    const { connection, worker, watch } = await onRedis(stack, nothing);
    await worker.pause(true);
    const data = { sagaId: '0c4d2c9e-6c2f-4b51-9a52-6a2f0a6f2f00', revision: 1, dueAt: Date.now() - 60_000 };
    await addTo(stack, connection, 1, { data, delay: 600_000 });
    expect(await watch()).toContain('takes no jobs');
  });

  test('is no worker that waits for a delayed job', async () => {
    await using stack = new AsyncDisposableStack();
    const { connection, watch } = await onRedis(stack, nothing);
    await addTo(stack, connection, 1, { delay: 600_000 });
    expect(await watch(AbortSignal.timeout(LONG_ENOUGH_MS))).toBeNull();
  });

  test.for(queueStoreKinds())('is no worker whose queue an operator has paused (%s)', async (kind) => {
    await using stack = new AsyncDisposableStack();
    const { connection, watch } =
      kind === 'redis'
        ? await onRedis(stack, nothing)
        : await setUp(stack, { kind, databaseUrl: stack.use(await createTestDatabase()).url }, nothing);
    const queue = connection.queue('bench');
    stack.defer(() => queue.close());
    await queue.pause();
    await addTo(stack, connection, 3);
    expect(await watch(AbortSignal.timeout(LONG_ENOUGH_MS))).toBeNull();
    expect(await queue.getRanges(['waiting'], 0, -1)).toHaveLength(3);
  });

  test('is no worker whose queue an operator has limited', async () => {
    await using stack = new AsyncDisposableStack();
    const { connection, worker, watch } = await onRedis(stack, nothing);
    await worker.pause(true);
    const queue = await addTo(stack, connection, 3);
    await queue.setGlobalConcurrency(1);
    expect(await watch(AbortSignal.timeout(LONG_ENOUGH_MS))).toBeNull();
    await queue.removeGlobalConcurrency();
    expect(await watch()).toContain('takes no jobs');
  });

  test('is no worker that is busy up to its limit, however long', async () => {
    await using stack = new AsyncDisposableStack();
    const ending = Promise.withResolvers<void>();
    const { connection, watch } = await onRedis(stack, () => ending.promise);
    const queue = await addTo(stack, connection, 5);
    await waitFor(async () => (await queue.getActiveCount()) === 2, { what: 'both slots to be taken' });
    expect(await watch(AbortSignal.timeout(LONG_ENOUGH_MS))).toBeNull();
    ending.resolve();
  });

  test('is no worker of a fleet that has more to do than it can', async () => {
    await using stack = new AsyncDisposableStack();
    const { connection, watch } = await onRedis(stack, () => new Promise((resolve) => setTimeout(resolve, LOOK_MS * 1.5)));
    const queue = await addTo(stack, connection, 60);
    expect(await watch(AbortSignal.timeout(LONG_ENOUGH_MS))).toBeNull();
    expect(await queue.getWaitingCount()).toBeGreaterThan(0);
  });

  test('is no worker whose Redis is away, nor when it is back', async () => {
    await using stack = new AsyncDisposableStack();
    const redis = await startPrivateRedis();
    stack.defer(() => redis.stop());
    const { connection, worker, watch } = await setUp(stack, { kind: 'redis', nodes: [redis.url], prefix: '{bench}' }, nothing);
    const stop = new AbortController();
    const watching = watch(stop.signal);
    redis.pause();
    const adding = addTo(stack, connection, 3);
    await new Promise((resolve) => setTimeout(resolve, LONG_ENOUGH_MS));
    redis.resume();
    await adding;
    await waitFor(async () => (await (await addTo(stack, connection, 0)).getCompletedCount()) === 3, { what: 'the jobs to be done' });
    stop.abort();
    expect(await watching).toBeNull();
    expect(worker.isRunning()).toBe(true);
  });
});

test('a worker process that is handed no jobs any more ends with an error, saying why, and its successor does the work', async () => {
  await using stack = new AsyncDisposableStack();
  const redis = await startPrivateRedis();
  stack.defer(() => redis.stop());
  const proxy = stack.use(await startTcpProxy(redis.port));
  const stage = stack.use(await openFaultStage({ redisUrl: redis.url }));
  const worker = stage.fork({ REDIS_URL: throughProxy(redis.url, proxy) });
  const before = await stage.provision('web-1');
  await stage.until(before, 'completed', ({ status }) => status === 'completed');
  // Only fetching a job says how long it is to be locked: whatever fetches goes silent, everything else gets its answers.
  proxy.freezeOn('lockDuration');
  await stage.provision('web-2');
  expect(await worker.exit()).toMatchObject({ code: 1, signal: null });
  const last = worker.log().find(({ level }) => level === 'fatal');
  expect(last).toMatchObject({ msg: 'worker cannot continue: exiting, so that its supervisor starts another one', why: expect.stringContaining('takes no jobs') });
  await stage.work();
  expect((await stage.atRest()).map(({ status }) => status)).toEqual(['completed', 'completed']);
  await stage.expectLawful();
});
