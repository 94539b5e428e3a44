import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import { jobIdOf } from '../../src/queues/jobs.ts';
import { done, StepFailure, waiting } from '../../src/saga/step.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { catalogOf, fakeStep, reconcileGraceMs } from '../support/engine.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';
import { backends, openQueueStage } from './stage.ts';

const fatal = () => new StepFailure({ code: 'bad', message: 'never', retryable: false });

describe.each(backends)('the step workers on %s', (backend) => {
  test('drive sagas to their end, each step once and in order, with two workers at it', async () => {
    const third = fakeStep('three', {
      execute: async (run, ledger) => {
        ledger.make(run, 'three');
        // Every third saga fails at its last step.
        if (failing.has(run.saga.id)) return Promise.reject(fatal());
        return Promise.resolve(done());
      },
    });
    const failing = new Set<string>();
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), fakeStep('two'), third));
    const jobs = await Promise.all(Array.from({ length: 12 }, () => fleet.engine.start()));
    for (const [index, { sagaId }] of jobs.entries()) if (index % 3 === 0) failing.add(sagaId);
    await Promise.all(jobs.map((job) => fleet.queues.enqueue(job)));
    await fleet.work();
    await fleet.work();
    const statuses = await fleet.settled(jobs);
    expect(statuses).toEqual(jobs.map(({ sagaId }) => (failing.has(sagaId) ? 'compensated' : 'completed')));
    for (const { sagaId } of jobs) {
      const forth = ['one', 'two', 'three'];
      expect(fleet.engine.ledger.historyOf(sagaId)).toEqual(failing.has(sagaId) ? [...forth, '-three', '-two', '-one'] : forth);
    }
    expect(fleet.engine.ledger.violations).toEqual([]);
    // Finished jobs stay to be looked at, with what came of them.
    const kept = await waitFor(async () => (await fleet.backward.getCompleted()).length === 12 && fleet.backward.getCompleted(), { what: 'the jobs to be kept' });
    expect(new Set(kept.map(({ returnvalue }) => String(returnvalue)))).toEqual(new Set(['three undone', 'two undone', 'one undone']));
  });

  test('let rollbacks flow while creation is paused', async () => {
    let isBroken = false;
    const two = fakeStep('two', {
      execute: async () => (isBroken ? Promise.reject(fatal()) : Promise.resolve(waiting(50, 'not yet'))),
    });
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), two));
    const job = await fleet.start();
    await fleet.work();
    await waitFor(() => fleet.engine.ledger.count(job.sagaId, 'one') === 1, { what: 'the first step' });
    isBroken = true;
    await waitFor(async () => (await fleet.engine.load(job.sagaId)).saga.status !== 'running', { what: 'the rollback to begin' });
    await fleet.forward.pause();
    const held = await fleet.start();
    expect(await fleet.settled([job])).toEqual(['compensated']);
    expect((await fleet.engine.load(held.sagaId)).saga.status).toBe('pending');
    await fleet.forward.resume();
    expect(await fleet.settled([held])).toEqual(['compensated']);
  });

  test('postpone the same job, with its counters', async () => {
    const two = fakeStep('two', {
      execute: async ({ memo }) => Promise.resolve(waiting(memo['polls'] === 2 ? 600_000 : 20, 'not yet', { memo: { polls: (memo['polls'] ?? 0) + 1 } })),
    });
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), two));
    const first = await fleet.start();
    await fleet.work();
    const id = jobIdOf({ sagaId: first.sagaId, revision: 2 });
    const stored = await waitFor(
      async () => {
        const job = await fleet.forward.getJob(id);
        return job?.data.memo?.polls === 3 && (await job.getState()) === 'delayed' && job;
      },
      { what: 'the third postponement' },
    );
    expect(stored.data).toEqual({ sagaId: first.sagaId, revision: 2, step: 'two', position: '2 of 2', attempt: 1, memo: { polls: 3 }, dueAt: expect.any(Number), reason: 'not yet' });
    // Three polls, one reason: one line.
    expect((await fleet.forward.getJobLogs(id)).logs).toEqual([expect.stringMatching(/^\d{4}-\S+Z not yet$/)]);
    expect((await fleet.engine.load(first.sagaId)).saga).toMatchObject({ revision: 2, attempt: 0 });
    const dueInMs = (await fleet.queues.peek({ ...first, revision: 2 }))?.dueInMs;
    expect(dueInMs).toBeGreaterThan(590_000);
    expect(dueInMs).toBeLessThanOrEqual(600_000);
  });

  test('postpone a job by its delay, also if the clock is set right in the middle of it', { timeout: 60_000 }, async () => {
    const { now } = Date;
    onTestFinished(() => {
      Date.now = now;
    });
    const isRightAgain = Promise.withResolvers<void>();
    const io: Io = async (kind, name, operation) => {
      const result = await directIo(kind, name, operation);
      if (name === 'update data') {
        Date.now = now;
        isRightAgain.resolve();
      }
      return result;
    };
    // An hour ahead while the step decides, and right again before the job is put off.
    const two = fakeStep('two', {
      execute: () => {
        Date.now = () => now() + 3_600_000;
        return Promise.resolve(waiting(300_000, 'not yet'));
      },
    });
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), two), { io });
    const first = await fleet.start();
    await fleet.work();
    // A wait below goes by the clock.
    await isRightAgain.promise;
    const stored = await waitFor(
      async () => {
        const id = jobIdOf({ sagaId: first.sagaId, revision: 2 });
        return (await fleet.forward.getJobState(id)) === 'delayed' && (await fleet.forward.getJob(id));
      },
      { what: 'the postponement' },
    );
    expect(stored.delay).toBeGreaterThan(200_000);
    expect(stored.delay).toBeLessThanOrEqual(300_000);
  });

  test('hold no slot for a saga that waits: with one slot and fifty waiting, the next runs at once', async () => {
    const patient = new Set<string>();
    const one = fakeStep('one', {
      execute: async (run, ledger) => {
        if (patient.has(run.saga.id)) return Promise.resolve(waiting(600_000, 'not yet', { outputs: { waits: true } }));
        ledger.make(run, 'one');
        return Promise.resolve(done());
      },
    });
    await using fleet = await openQueueStage(backend, catalogOf(one));
    const waitingJobs = await Promise.all(Array.from({ length: 50 }, () => fleet.engine.start()));
    for (const { sagaId } of waitingJobs) patient.add(sagaId);
    await Promise.all(waitingJobs.map((job) => fleet.queues.enqueue(job)));
    await fleet.work({ concurrency: 1 });
    await waitFor(async () => (await fleet.forward.getJobCounts('delayed'))['delayed'] === 50, { what: 'fifty to wait' });
    const job = await fleet.start();
    expect(await fleet.settled([job])).toEqual(['completed']);
    expect((await fleet.forward.getJobCounts('delayed'))['delayed']).toBe(50);
  });

  test('fail what is not a job of a saga at once, without a retry and without harm to others', async () => {
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), fakeStep('two')));
    const good = await fleet.engine.start();
    const { sagaId } = good;
    const poison: unknown[] = [
      null, 42, 'text', true, [], {}, { sagaId }, { revision: 0 },
      { sagaId: 'not-a-uuid', revision: 0 }, { sagaId: [sagaId], revision: 0 }, { sagaId: `${sagaId}'; drop schema arcadia; --`, revision: 0 },
      { sagaId, revision: -1 }, { sagaId, revision: 1.5 }, { sagaId, revision: 1e20 }, { sagaId, revision: '0' }, { sagaId, revision: null },
      { sagaId, revision: 0, memo: { polls: 'many' } }, { sagaId, revision: 0, memo: { ['k'.repeat(51)]: 1 } }, { sagaId, revision: 0, memo: { polls: null } },
      JSON.parse(`{"__proto__": {"sagaId": "${sagaId}", "revision": 0}}`), { constructor: { prototype: {} } },
      { sagaId: 'x'.repeat(1_000_000), revision: 0 }, 'y'.repeat(1_000_000),
    ];
    const bad = await Promise.all(poison.map((data) => fleet.forward.add('one', data, { attempts: 5, backoff: 1 })));
    const unknown = await fleet.forward.add('one', { sagaId: randomUUID(), revision: 0 });
    await fleet.queues.enqueue(good);
    await fleet.work();
    expect(await fleet.settled([good])).toEqual(['completed']);
    const failed = await waitFor(
      async () => {
        const found = await fleet.forward.getFailed();
        return found.length === bad.length && found;
      },
      { what: `${bad.length} jobs to fail` },
    );
    expect(new Set(failed.map(({ id }) => id))).toEqual(new Set(bad.map(({ id }) => id)));
    for (const job of failed) {
      expect(job.failedReason).toMatch(/^not a job of a saga: /);
      expect(job.failedReason.length).toBeLessThan(1_000);
      expect(job.attemptsMade).toBe(1);
    }
    await waitFor(async () => (await fleet.forward.getJob(unknown.id ?? ''))?.returnvalue !== null, { what: 'the unknown saga\'s job' });
    expect((await fleet.forward.getJob(unknown.id ?? ''))?.returnvalue).toMatch(/^saga \S+ not found$/);
    expect(fleet.engine.ledger.historyOf(sagaId)).toEqual(['one', 'two']);
  });

  test('repeat nothing when finished jobs are retried on the dashboard', async () => {
    await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one'), fakeStep('two')));
    const first = await fleet.start();
    await fleet.work();
    await fleet.settled([first]);
    const completed = await waitFor(
      async () => {
        const found = await fleet.forward.getCompleted();
        return found.length === 2 && found;
      },
      { what: 'both jobs to be kept' },
    );
    for (const job of completed) await job.retry('completed');
    await waitFor(async () => (await fleet.forward.getCompletedCount()) === 2, { what: 'both jobs to be done again' });
    await waitFor(
      async () => {
        const again = await Promise.all(completed.map(({ id }) => fleet.forward.getJob(id ?? '')));
        return again.every((job) => String(job?.returnvalue).includes('completed') && String(job?.returnvalue).includes('is outdated'));
      },
      { what: 'both jobs to say that they are past' },
    );
    expect(fleet.engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two']);
  });

  test('lose nothing and use no attempt when Postgres goes away in the middle of steps, and go on when it is back', async () => {
    let isOpen = false;
    const one = fakeStep('one', {
      execute: async () => {
        running += 1;
        await waitFor(() => isOpen, { what: 'the gate', everyMs: 10 });
        return done();
      },
    });
    let running = 0;
    await using fleet = await openQueueStage(backend, catalogOf(one, fakeStep('two')));
    await using proxy = await startTcpProxy(fleet.engine.url);
    const far = openDatabase(proxy.through(fleet.engine.url), { timeoutMs: 1_000 });
    try {
      const jobs = await Promise.all(Array.from({ length: 5 }, () => fleet.start()));
      const workers = await fleet.work({}, { store: createSagaStore(far, { worker: 'test:1', reconcileGraceMs }) });
      await waitFor(() => running === 5, { what: 'five steps to run' });
      proxy.down();
      isOpen = true;
      await waitFor(
        async () => {
          const stored = await Promise.all(jobs.map((job) => fleet.forward.getJob(jobIdOf(job))));
          // Taken up again, the same job under the same id, and still of no avail.
          return stored.every((job) => job !== undefined && job.attemptsStarted >= 2);
        },
        { what: 'the jobs to be left for later, and taken up again' },
      );
      expect([await fleet.forward.getFailedCount(), await fleet.forward.getCompletedCount()]).toEqual([0, 0]);
      const stored = await Promise.all(jobs.map(({ sagaId }) => fleet.engine.load(sagaId)));
      expect(stored.map(({ saga }) => [saga.status, saga.revision])).toEqual(Array.from({ length: 5 }, () => ['running', 1]));
      proxy.up();
      expect(await fleet.settled(jobs)).toEqual(Array.from({ length: 5 }, () => 'completed'));
      for (const { sagaId } of jobs) {
        expect((await fleet.engine.events(sagaId)).map(({ kind }) => kind)).toEqual(['saga_created', 'saga_started', 'step_completed', 'step_completed']);
      }
      // Before the pool that they use is closed.
      await Promise.all(workers.map((worker) => worker.close()));
    } finally {
      await far.close();
    }
  });
});

// Queues in Postgres know no order between an add and the end of the job before it.
test('workers on redis bring a saga that was begun to its end before they begin another, in the order in which they were enqueued', async () => {
  const order: string[] = [];
  const step = (name: string) => fakeStep(name, { execute: async ({ saga }) => (order.push(`${saga.id} ${name}`), Promise.resolve(done())) });
  await using fleet = await openQueueStage('redis', catalogOf(step('one'), step('two'), step('three')));
  const jobs = [await fleet.start(), await fleet.start(), await fleet.start(), await fleet.start()];
  await fleet.work({ concurrency: 1 });
  expect(await fleet.settled(jobs)).toEqual(jobs.map(() => 'completed'));
  expect(order).toEqual(jobs.flatMap(({ sagaId }) => [`${sagaId} one`, `${sagaId} two`, `${sagaId} three`]));
});
