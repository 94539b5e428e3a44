import { UnrecoverableError } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../src/platform/log.ts';
import { jobIdOf, queueNames } from '../../src/queues/jobs.ts';
import { hastenMisdated } from '../../src/queues/misdated.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Fleet } from './stage.ts';
import { backends, countJobs, openQueueStage } from './stage.ts';

describe.each(backends)('the step queues on %s', (backend) => {
  let fleet: Fleet;

  beforeAll(async () => {
    fleet = await openQueueStage(backend, catalogOf(fakeStep('one')));
  });

  afterEach(async () => {
    await fleet.forward.resume();
    await fleet.forward.obliterate({ force: true });
  });

  afterAll(async () => {
    await fleet[Symbol.asyncDispose]();
  });

  test('enqueueing twice is enqueueing once, at once or one after the other', async () => {
    const job = await fleet.engine.start();
    await Promise.all(Array.from({ length: 10 }, () => fleet.queues.enqueue(job)));
    await fleet.queues.enqueue(job);
    expect(await countJobs(fleet.forward)).toBe(1);
  });

  test('what follows the job that ends is the next to be taken; what else is added goes to the end, whatever its revision', async () => {
    const [first, cancelled, following, delayed] = [await fleet.engine.start(), await fleet.engine.start(), await fleet.engine.start(), await fleet.engine.start()];
    await fleet.queues.enqueue(first);
    await fleet.queues.ensure({ ...cancelled, revision: 3 });
    await fleet.queues.follow({ ...following, revision: 2 });
    await fleet.queues.follow({ ...delayed, revision: 1, delayMs: 60_000 });
    const waiting = await fleet.forward.getJobs(['waiting'], 0, -1, true);
    expect(waiting.map(({ id }) => id)).toEqual([`${following.sagaId}_2`, `${first.sagaId}_0`, `${cancelled.sagaId}_3`]);
    expect(await fleet.forward.getDelayedCount()).toBe(1);
  });

  test('a job says which saga at which revision, and nothing of its input', async () => {
    const job = await fleet.engine.start({ secret: 'hush' });
    await fleet.queues.enqueue(job);
    const stored = await fleet.forward.getJob(jobIdOf(job));
    expect(stored?.name).toBe('one');
    expect(stored?.data).toEqual({ sagaId: job.sagaId, revision: 0, step: 'one', position: '1 of 1', attempt: 1 });
    // No trace where nobody registered an SDK.
    expect(stored?.opts.telemetry).toBeUndefined();
  });

  test('a compensation has a queue of its own', async () => {
    const job = await fleet.engine.start();
    await fleet.queues.enqueue({ ...job, direction: 'backward' });
    expect([await countJobs(fleet.forward), await countJobs(fleet.backward)]).toEqual([0, 1]);
    await fleet.backward.obliterate({ force: true });
  });

  test('ensure leaves a job that waits, and one that waits in a paused queue', async () => {
    const job = await fleet.engine.start();
    await fleet.queues.enqueue(job);
    expect(await fleet.queues.ensure(job)).toEqual({});
    await fleet.forward.pause();
    expect(await fleet.queues.ensure(job)).toEqual({});
    const later = await fleet.engine.start();
    await fleet.queues.enqueue(later);
    expect(await fleet.queues.ensure(later)).toEqual({});
    await fleet.forward.resume();
    expect(await countJobs(fleet.forward)).toBe(2);
  });

  test('ensure leaves a job that is delayed, with its delay, and tells its counters', async () => {
    const job = { ...(await fleet.engine.start()), delayMs: 600_000 };
    await fleet.queues.enqueue(job);
    const stored = await fleet.forward.getJob(jobIdOf(job));
    await stored?.updateData({ ...stored.data, memo: { polls: 3 } });
    expect(await fleet.queues.ensure({ ...job, delayMs: 0 })).toEqual({ polls: 3 });
    expect(await stored?.getState()).toBe('delayed');
    expect(await countJobs(fleet.forward)).toBe(1);
    expect(await fleet.queues.peek(job)).toEqual({ memo: { polls: 3 }, dueInMs: expect.any(Number) });
    const dueInMs = (await fleet.queues.peek(job))?.dueInMs;
    expect(dueInMs).toBeGreaterThan(590_000);
    expect(dueInMs).toBeLessThanOrEqual(600_000);
  });

  test.each([
    ['later than its whole delay from now, as a clock that was ahead set it', 3_600_000],
    ['long ago, as clocks that are behind do not see', -3_600_000],
  ])('ensure makes a delayed job due now that was due %s', async (_, offMs) => {
    const job = { ...(await fleet.engine.start()), delayMs: 5_000 };
    const realNow = Date.now;
    Date.now = () => realNow() + offMs;
    try {
      await fleet.queues.enqueue(job);
    } finally {
      Date.now = realNow;
    }
    expect(await fleet.queues.ensure(job, new Date())).toEqual({});
    expect(await (await fleet.forward.getJob(jobIdOf(job)))?.getState()).toBe('waiting');
    // Its time is told by nobody any more.
    expect(await fleet.queues.ensure(job, new Date())).toEqual({});
    expect(await countJobs(fleet.forward)).toBe(1);
  });

  test('a delayed job that no saga knows of, due later than its whole delay, is due that delay after it was first seen', async () => {
    const stopping = new AbortController();
    const warnings: unknown[] = [];
    const log = { ...silentLog, warn: (fields: unknown) => void warnings.push(fields) };
    const [soon, late] = [{ jobId: 'a', delay: 300 }, { jobId: 'b', delay: 60_000 }];
    await fleet.forward.add('x', {}, { ...soon, timestamp: Date.now() + 3_600_000 });
    await fleet.forward.add('x', {}, late);
    const hastening = hastenMisdated(fleet.connection.queue(fleet.forward.name), { everyMs: 50, signal: stopping.signal, log });
    await waitFor(async () => (await fleet.forward.getJobState('a')) === 'waiting', { what: 'the job to be due' });
    expect(await fleet.forward.getJobState('b')).toBe('delayed');
    stopping.abort();
    await hastening;
    expect(warnings).toEqual([{ queue: fleet.forward.name, jobId: 'a' }]);
  });

  test('ensure leaves a job that is running', async () => {
    let isOpen = false;
    const job = await fleet.engine.start();
    await fleet.queues.enqueue(job);
    const worker = fleet.connection.worker(queueNames.steps, () => waitFor(() => isOpen, { what: 'the gate', everyMs: 10 }), {});
    try {
      await waitFor(async () => (await fleet.forward.getJobCounts('active'))['active'] === 1, { what: 'the job to run' });
      expect(await fleet.queues.ensure(job)).toEqual({});
      expect(await countJobs(fleet.forward)).toBe(1);
    } finally {
      isOpen = true;
      await worker.close();
    }
  });

  test.each([
    ['completed', () => Promise.resolve('done')],
    ['failed', () => Promise.reject(new UnrecoverableError('no'))],
  ])('ensure makes a job that has %s anew', async (state, processor) => {
    const job = await fleet.engine.start();
    await fleet.queues.enqueue(job);
    const worker = fleet.connection.worker(queueNames.steps, processor, {});
    try {
      await waitFor(async () => (await (await fleet.forward.getJob(jobIdOf(job)))?.getState()) === state, { what: `the job to be ${state}` });
    } finally {
      await worker.close();
    }
    // It is kept for people to look at, and would swallow one that is merely added.
    await fleet.queues.enqueue(job);
    expect(await (await fleet.forward.getJob(jobIdOf(job)))?.getState()).toBe(state);
    expect(await fleet.queues.ensure(job)).toBeNull();
    expect(await (await fleet.forward.getJob(jobIdOf(job)))?.getState()).toBe('waiting');
    expect(await countJobs(fleet.forward)).toBe(1);
  });

  test('ensure makes a job anew that was removed, or obliterated with all others, or never was', async () => {
    const job = await fleet.engine.start();
    expect(await fleet.queues.ensure(job)).toBeNull();
    await (await fleet.forward.getJob(jobIdOf(job)))?.remove();
    expect(await fleet.queues.peek(job)).toBeNull();
    expect(await fleet.queues.ensure(job)).toBeNull();
    await fleet.forward.obliterate({ force: true });
    expect(await fleet.queues.ensure(job)).toBeNull();
    expect(await countJobs(fleet.forward)).toBe(1);
  });

  test('ensure makes one job, however many reconcilers ask at once', async () => {
    const job = await fleet.engine.start();
    await Promise.all(Array.from({ length: 8 }, () => fleet.queues.ensure(job)));
    expect(await countJobs(fleet.forward)).toBe(1);
  });

  test('ensure bears a job whose data somebody has spoilt', async () => {
    const job = await fleet.engine.start();
    await fleet.queues.enqueue(job);
    await (await fleet.forward.getJob(jobIdOf(job)))?.updateData({ sagaId: 7, memo: 'x' });
    expect(await fleet.queues.ensure(job)).toEqual({});
  });
});
