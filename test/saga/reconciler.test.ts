import { Redis } from 'ioredis';
import { describe, expect, test } from 'vitest';
import type { Log } from '../../src/platform/log.ts';
import { silentLog } from '../../src/platform/log.ts';
import { jobIdOf } from '../../src/queues/jobs.ts';
import { reconcile, runReconciler } from '../../src/saga/reconciler.ts';
import { nextJobOf } from '../../src/saga/saga.ts';
import type { NextJob } from '../../src/saga/saga.ts';
import { done, StepFailure, waiting } from '../../src/saga/step.ts';
import { createWakeup } from '../../src/saga/wakeup.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { catalogOf, claimOf, fakeStep, jobOf, openEngine } from '../support/engine.ts';
import type { Engine } from '../support/engine.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';
import { backends, countJobs, openQueueStage } from '../queues/stage.ts';
import type { Fleet } from '../queues/stage.ts';

/** As if the slack of all sagas had passed. */
async function makeOverdue(engine: Engine): Promise<void> {
  await engine.db.sql`update arcadia.sagas set wake_at = clock_timestamp() - interval '1 second' where wake_at is not null`;
}

describe('reconcile', () => {
  test('leaves sagas that are not due yet', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    await engine.start();
    const asked: NextJob[] = [];
    const result = await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 1_000 }), ensure: async (job) => Promise.resolve((asked.push(job), null)), log: silentLog });
    expect(result).toEqual({ overdue: 0, firstJobs: 0, remade: 0 });
    expect(asked).toEqual([]);
  });

  test('makes sure of the job of every overdue saga, however many, and counts those that were gone', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const jobs: NextJob[] = [];
    for (let batch = 0; batch < 23; batch += 1) jobs.push(...(await Promise.all(Array.from({ length: 10 }, () => engine.start()))));
    await makeOverdue(engine);
    const gone = new Set(jobs.slice(0, 100).map(({ sagaId }) => sagaId));
    const asked: NextJob[] = [];
    const ensure = async (job: NextJob) => {
      asked.push(job);
      return Promise.resolve(gone.has(job.sagaId) ? null : {});
    };
    expect(await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 60_000 }), ensure, log: silentLog })).toEqual({ overdue: 230, firstJobs: 100, remade: 0 });
    expect(asked.map(({ sagaId }) => sagaId).toSorted()).toEqual(jobs.map(({ sagaId }) => sagaId).toSorted());
    expect(await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 60_000 }), ensure, log: silentLog })).toEqual({ overdue: 0, firstJobs: 0, remade: 0 });
  });

  test('asks for the job that is due: the revision, step and direction of the row', async () => {
    const two = fakeStep('two', { execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'never', retryable: false })) });
    await using engine = await openEngine(catalogOf(fakeStep('one'), two));
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    await engine.run(claimOf(second));
    await makeOverdue(engine);
    const asked: NextJob[] = [];
    await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 60_000 }), ensure: async (job) => Promise.resolve((asked.push(job), null)), log: silentLog });
    expect(asked).toEqual([nextJobOf((await engine.load(first.sagaId)).saga)]);
    expect(asked).toMatchObject([{ revision: 3, step: 'two', direction: 'backward' }]);
  });

  test('saves the counters of jobs that wait, without moving their sagas', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    await makeOverdue(engine);
    await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 60_000 }), ensure: async () => Promise.resolve({ polls: 12 }), log: silentLog });
    expect(await engine.load(first.sagaId)).toMatchObject({ memo: { polls: 12 }, saga: { revision: 0 } });
  });

  test('goes on with the others if it fails for some sagas, logs each of these, and fails if it fails for all', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const [bad, good] = [await engine.start(), await engine.start()];
    await makeOverdue(engine);
    const warned: unknown[] = [];
    const log: Log = { ...silentLog, warn: (...line: unknown[]) => warned.push(line) };
    const broken = new SyntaxError('not JSON');
    const ensure = async ({ sagaId }: NextJob) => (sagaId === bad.sagaId ? Promise.reject(broken) : Promise.resolve({ polls: 12 }));
    const store = createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 60_000 });
    expect(await reconcile({ store, ensure, log })).toEqual({ overdue: 2, firstJobs: 0, remade: 0 });
    expect(warned).toEqual([[{ sagaId: bad.sagaId, err: broken }, 'reconciler could not make sure of a job: trying again later']]);
    expect(await engine.load(good.sagaId)).toMatchObject({ memo: { polls: 12 } });
    await makeOverdue(engine);
    await expect(reconcile({ store, ensure: async () => Promise.reject(broken), log })).rejects.toBe(broken);
    expect(warned).toHaveLength(1);
  });
});

describe('runReconciler', () => {
  test('takes many overdue sagas in passes that follow one another at once, each of which is reported', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    await writeSagas(engine.db, { count: 2_500, status: 'running', daysAgo: 0 });
    const [written] = await engine.db.sql<{ count: number }[]>`select count(*)::int as count from arcadia.sagas`;
    await makeOverdue(engine);
    const passes: number[] = [];
    const asked = new Set<string>();
    const stopping = new AbortController();
    const running = runReconciler({
      store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 600_000 }),
      ensure: async ({ sagaId }) => Promise.resolve((asked.add(sagaId), {})),
      // Only a pass that left nothing waits as long.
      intervalMs: 600_000, wakeup: createWakeup(), signal: stopping.signal, log: silentLog, onPass: (pass) => passes.push(pass?.overdue ?? -1),
    });
    await waitFor(() => passes.length >= 3, { what: 'three passes' });
    stopping.abort();
    await running;
    expect(passes).toEqual([1_000, 1_000, (written?.count ?? 0) - 2_000]);
    expect(asked.size).toBe(written?.count);
  });

  test('goes on after a pass that failed, and ends when it is told to', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    await makeOverdue(engine);
    const asked: string[] = [];
    const stopping = new AbortController();
    const ensure = async ({ sagaId }: NextJob) => {
      asked.push(sagaId);
      return asked.length === 1 ? Promise.reject(new Error('the queue is away')) : Promise.resolve(null);
    };
    const running = runReconciler({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 10 }), ensure, intervalMs: 20, wakeup: createWakeup(), signal: stopping.signal, log: silentLog });
    await waitFor(() => asked.length >= 3, { what: 'three passes' });
    stopping.abort();
    await running;
    expect(new Set(asked)).toEqual(new Set([first.sagaId]));
  });

  test('ends at once in the middle of a long wait', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const stopping = new AbortController();
    const running = runReconciler({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 10 }), ensure: async () => Promise.resolve(null), intervalMs: 600_000, wakeup: createWakeup(), signal: stopping.signal, log: silentLog });
    stopping.abort();
    await expect(running).resolves.toBeUndefined();
  });
});

const fails = (sagaId: string): boolean => sagaId.charCodeAt(0) % 2 === 0;

/** Sagas that wait at their second step until the gate is open; the last step of about half of them fails. */
function mixedSagas() {
  const gate = { isOpen: false };
  const two = fakeStep('two', {
    execute: async (run, ledger) => {
      if (!gate.isOpen) return Promise.resolve(waiting(600_000, 'the gate is closed', { memo: { polls: (run.memo['polls'] ?? 0) + 1 } }));
      ledger.make(run, 'two');
      return Promise.resolve(done());
    },
  });
  const three = fakeStep('three', {
    execute: async (run, ledger) => {
      ledger.make(run, 'three');
      if (fails(run.saga.id)) return Promise.reject(new StepFailure({ code: 'bad', message: 'never', retryable: false }));
      return Promise.resolve(done());
    },
  });
  return { gate, catalog: catalogOf(fakeStep('one'), two, three) };
}

/** Runs sagas to where they wait, has the queue emptied, and checks that all come to their ends. Returns what was repeated, or undone out of order. */
async function survive(fleet: Fleet, sagas: ReturnType<typeof mixedSagas>, empty: () => Promise<unknown>): Promise<string[]> {
  const jobs = await Promise.all(Array.from({ length: 20 }, () => fleet.start()));
  const [firstWorker] = await fleet.work();
  await waitFor(async () => (await fleet.forward.getJobCounts('delayed'))['delayed'] === 20, { what: 'all sagas to wait' });
  // Two that nobody has looked at yet.
  await firstWorker?.pause();
  jobs.push(await fleet.start(), await fleet.start());
  await empty();
  expect([await countJobs(fleet.forward), await countJobs(fleet.backward)]).toEqual([0, 0]);
  await firstWorker?.resume();
  sagas.gate.isOpen = true;
  await makeOverdue(fleet.engine);
  expect(await fleet.reconcile()).toEqual({ overdue: 22, firstJobs: 2, remade: 20 });
  expect(await fleet.settled(jobs)).toEqual(jobs.map(({ sagaId }) => (fails(sagaId) ? 'compensated' : 'completed')));
  for (const { sagaId } of jobs) {
    const forth = ['one', 'two', 'three'];
    expect(fleet.engine.ledger.historyOf(sagaId)).toEqual(fails(sagaId) ? [...forth, '-three', '-two', '-one'] : forth);
    const events = await fleet.engine.events(sagaId);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index));
  }
  return fleet.engine.ledger.violations;
}

describe('sagas whose queue was emptied', () => {
  test('come to their ends after Redis was flushed, and repeat nothing', async () => {
    const redis = await startPrivateRedis();
    const admin = new Redis(redis.url);
    try {
      const sagas = mixedSagas();
      await using fleet = await openQueueStage('redis', sagas.catalog, { store: { kind: 'redis', nodes: [redis.url], prefix: '{flushed}' } });
      expect(await survive(fleet, sagas, () => admin.flushall())).toEqual([]);
    } finally {
      admin.disconnect();
      await redis.stop();
    }
  });

  test.each(backends)('come to their ends after the queues were obliterated on %s, and repeat nothing', async (backend) => {
    const sagas = mixedSagas();
    await using fleet = await openQueueStage(backend, sagas.catalog);
    const obliterate = async (): Promise<void> => {
      await fleet.forward.obliterate({ force: true });
      await fleet.backward.obliterate({ force: true });
      await fleet.forward.resume();
      await fleet.backward.resume();
    };
    expect(await survive(fleet, sagas, obliterate)).toEqual([]);
  });
});

describe.each(backends)('the reconciler and the queues on %s', (backend) => {
  test('start a saga that nobody enqueued', async () => {
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one')));
    const job = await fleet.engine.start();
    await fleet.work();
    await makeOverdue(fleet.engine);
    expect(await fleet.reconcile()).toEqual({ overdue: 1, firstJobs: 1, remade: 0 });
    expect(await fleet.settled([job])).toEqual(['completed']);
  });

  test('leave a saga alone that waits in the queue, and know its counters when the queue is lost later', async () => {
    const sagas = mixedSagas();
    await using fleet = await openQueueStage(backend, sagas.catalog);
    const first = await fleet.start();
    const workers = await fleet.work();
    const id = jobIdOf({ sagaId: first.sagaId, revision: 2 });
    await waitFor(async () => (await (await fleet.forward.getJob(id))?.getState()) === 'delayed', { what: 'the saga to wait' });
    await makeOverdue(fleet.engine);
    expect(await fleet.reconcile()).toEqual({ overdue: 1, firstJobs: 0, remade: 0 });
    expect((await fleet.engine.load(first.sagaId)).memo).toEqual({ polls: 1 });
    await (await fleet.forward.getJob(id))?.remove();
    await makeOverdue(fleet.engine);
    expect(await fleet.reconcile()).toEqual({ overdue: 1, firstJobs: 0, remade: 1 });
    await waitFor(async () => (await fleet.forward.getJob(id))?.data.memo?.polls === 2, { what: 'the wait to go on counting' });
    await Promise.all(workers.map((worker) => worker.close()));
  });

  test('take up a saga whose job failed', async () => {
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one')));
    const job = await fleet.start();
    const stored = await fleet.forward.getJob(jobIdOf(job));
    await stored?.updateData({ spoilt: true });
    await fleet.work();
    await waitFor(async () => (await (await fleet.forward.getJob(jobIdOf(job)))?.getState()) === 'failed', { what: 'the job to fail' });
    expect((await fleet.engine.load(job.sagaId)).saga.status).toBe('pending');
    await makeOverdue(fleet.engine);
    expect(await fleet.reconcile()).toEqual({ overdue: 1, firstJobs: 1, remade: 0 });
    expect(await fleet.settled([job])).toEqual(['completed']);
  });
});
