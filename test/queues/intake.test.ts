import { randomUUID } from 'node:crypto';
import type { Job, Queue, Worker } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { reserveConnection } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startIntakeWorker } from '../../src/queues/intake.ts';
import { directIo } from '../../src/platform/io.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { hastenMisdated, isMisdated } from '../../src/queues/misdated.ts';
import type { StartRequest } from '../../src/saga/start.ts';
import { startSaga } from '../../src/saga/start.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { fakeStep, reconcileGraceMs } from '../support/engine.ts';
import { keyRing } from '../support/keys.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Fleet } from './stage.ts';
import { backends, openQueueStage } from './stage.ts';

const catalog = {
  fake: { input: z.strictObject({ name: z.string('expected a host name'), user_data: z.string().optional() }), steps: [fakeStep('one')] },
};

const nothing = (): void => undefined;

type ForOthers = (times: number, isFresh: boolean) => 'unknown' | 'differs' | null;
const notForOthers: ForOthers = () => null;

const nested = (depth: number): string => `{"input":{"user_data":"hush","deep":${'['.repeat(depth)}${']'.repeat(depth)}}}`;

const sagaIdOf = (job: Job): string => z.object({ sagaId: z.uuid() }).parse(job.returnvalue).sagaId;

test('a request that was put off has the wrong time only if a wrong clock put it off', () => {
  const now = Date.now();
  const job = { data: { input: {} }, timestamp: now - 3_600_000, delay: 1_000 };
  expect(isMisdated({ ...job, processedOn: now - 500 }, now)).toBe(false);
  expect(isMisdated({ ...job, processedOn: now + 3_600_000 }, now)).toBe(true);
  expect(isMisdated({ ...job, timestamp: now + 3_600_000 }, now)).toBe(true);
});

describe.each(backends)('the intake on %s', (backend) => {
  let fleet: Fleet;
  let intake: Queue;
  let worker: Worker;
  let requests: StartRequest[] = [];
  /** Runs after each start, and may lose its result. */
  let afterStart = nothing;
  /** Runs before each look for a saga, and may be an outage. */
  let beforeLook = nothing;
  /** Whether a request is for another version, by the number of times that it was asked and whether it would be refused. */
  let forOthers = notForOthers;
  let asked = 0;

  beforeAll(async () => {
    fleet = await openQueueStage(backend, catalog);
    intake = fleet.connection.queue(queueNames.intake);
    worker = startIntakeWorker(fleet.connection, {
      settings: { concurrency: 10, lockMs: 10_000 },
      start: async (request) => {
        requests.push(request);
        const started = await startSaga(fleet.engine.db, catalog, request, reconcileGraceMs, keyRing);
        afterStart();
        return started;
      },
      exists: async (sagaId) => {
        beforeLook();
        return (await loadSaga(fleet.engine.db, sagaId)) !== null;
      },
      isForOthers: async (_name, how) => Promise.resolve(forOthers((asked += 1), how?.fresh === true)),
      io: directIo,
      log: silentLog,
    });
    await worker.waitUntilReady();
  });

  afterEach(() => {
    requests = [];
    afterStart = nothing;
    beforeLook = nothing;
    forOthers = notForOthers;
    asked = 0;
  });

  afterAll(async () => {
    await worker.close();
    await intake.close();
    await fleet[Symbol.asyncDispose]();
  });

  /** The job, once it is completed or failed. */
  function finished(job: Job): Promise<Job> {
    return waitFor(
      async () => {
        const state = await intake.getJobState(job.id ?? '');
        if (state !== 'completed' && state !== 'failed') return undefined;
        // Read after its state: what was read before is how the job was while it ran.
        const found: Job | undefined = await intake.getJob(job.id ?? '');
        return found;
      },
      { what: `request ${job.id} to be answered` },
    );
  }

  const request = async (name: string, data: unknown): Promise<Job> => finished(await intake.add(name, data, { attempts: 5 }));

  test('answers with the id of the saga, and keeps nothing of the input', async () => {
    const job = await request('fake', { input: { name: 'web', user_data: 'hush' }, requestedBy: 'billing', priority: 'high' });
    const { saga } = await fleet.engine.load(sagaIdOf(job));
    expect(saga).toMatchObject({ name: 'fake', status: 'pending', input: { name: 'web', user_data: '[sealed, 4 bytes]' }, requestedBy: 'billing', priority: 'high' });
    expect(job.data).toEqual({ sagaId: saga.id });
    expect(JSON.stringify(job.toJSON())).not.toContain('hush');
  });

  test.each<[string, unknown, RegExp]>([
    ['null', null, /^expected \{input, idempotencyKey\?, requestedBy\?, priority\?\}: /],
    ['a number', 7, /data: /],
    ['a list', [], /data: /],
    ['a field that is not of the contract', { input: { name: 'web' }, Input: 1 }, /Input/],
    ['a key that is no text', { input: { name: 'web' }, idempotencyKey: 7 }, /idempotencyKey: /],
    ['an empty key', { input: { name: 'web' }, idempotencyKey: '' }, /^idempotencyKey: expected 1 to 255 characters$/],
    ['a requester that is no text', { input: { name: 'web' }, requestedBy: {} }, /requestedBy: /],
    ['a priority that is none', { input: { name: 'web' }, priority: 'urgent' }, /^expected .*priority: expected high, normal, low$/],
    ['no input', {}, /^expected \{input, idempotencyKey\?, requestedBy\?, priority\?\}: input: /],
    ['a wrong field in the input', { input: { name: 7 } }, /^name: expected a host name$/],
    ['an unknown field in the input', { input: { name: 'web', colour: 'red' } }, /^colour: unknown field/],
  ])('refuses %s at once and for good, naming what is wrong', async (_what, data, reason) => {
    const job = await request('fake', data);
    expect(await job.getState()).toBe('failed');
    expect(job.failedReason).toMatch(reason);
    expect(job.attemptsMade).toBe(1);
  });

  test.each<[string, unknown, RegExp]>([
    ['a wrong field beside it', { input: { name: 7, user_data: 'hush' } }, /^name: expected a host name$/],
    ['a field too many around it', { input: { name: 'web', user_data: 'hush' }, Input: 1 }, /Input/],
    ['the wrong type', { input: { name: 'web', user_data: { text: ['hush'] } } }, /user_data: /],
    ['the wrong place', { user_data: 'hush', input: { name: 'web' } }, /user_data/],
    ['another name', { input: { name: 'web', userData: 'hush' } }, /^userData: unknown field$/],
    ['the whole request as one text', JSON.stringify({ input: { user_data: 'hush' } }), /data: /],
  ])('keeps no user data of a refused job, with %s; run again, it says the same', async (_what, data, reason) => {
    const job = await request('fake', data);
    const { failedReason } = job;
    expect(failedReason).toMatch(reason);
    expect(JSON.stringify(job.toJSON())).not.toContain('hush');
    await job.retry('failed');
    const again = await finished(job);
    expect(again.failedReason).toBe(`already refused, and its values were removed: send a new request (${failedReason})`);
    expect(JSON.stringify(again.toJSON())).not.toContain('hush');
  });

  test('blames no clock for a request that waits for the end of an outage', async () => {
    const warnings: string[] = [];
    const stopping = new AbortController();
    const log = { ...silentLog, warn: (_fields: unknown, message?: string) => void warnings.push(message ?? '') };
    const hastening = hastenMisdated(fleet.connection.queue(queueNames.intake), { everyMs: 50, signal: stopping.signal, log });
    let isAway = true;
    afterStart = () => {
      if (isAway) throw new Error('Postgres does not answer');
    };
    // As if it had waited for that long already.
    const job = await intake.add('fake', { input: { name: 'web' } }, { timestamp: Date.now() - 20_000 });
    await waitFor(() => requests.length >= 3, { what: 'the request to be tried three times' });
    // Not more often than it was put off.
    expect(requests.length).toBeLessThan(10);
    isAway = false;
    await finished(job);
    stopping.abort();
    await hastening;
    expect(warnings).toEqual([]);
  });

  test('keeps the names of a refused request and none of its values; given anew, it runs', async () => {
    const job = await request('fake', { input: { name: ['hush'], port: 7, on: true, nothing: null, deep: { user: 'hush' } }, requestedBy: 'billing' });
    const refused = { input: { name: '[a list of 1]', port: '[a number]', on: '[a boolean]', nothing: '[null]', deep: '[an object]' }, requestedBy: '[a string]' };
    const left = { refused, reason: job.failedReason };
    expect(job.data).toEqual(left);
    await job.retry('failed');
    expect((await finished(job)).data).toEqual(left);
    await job.updateData({ input: { name: 'mended' } });
    await job.retry('failed');
    expect((await fleet.engine.load(sagaIdOf(await finished(job)))).saga.input).toEqual({ name: 'mended' });
  });

  test.each<[string, unknown, RegExp]>([
    ['2,000 lists in each other', { input: { user_data: 'hush', deep: JSON.parse('['.repeat(2_000) + ']'.repeat(2_000)) as unknown } }, /^input: expected at most 32 levels of nesting$/],
    ['2,000 objects in each other', JSON.parse('{"input":'.repeat(2_000) + '{"user_data":"hush"}' + '}'.repeat(2_000)), /^input: expected at most 32 levels of nesting$/],
    ['a text of a megabyte', { input: { name: 'web', note: 'x'.repeat(1_000_000), user_data: 'hush' } }, /^input: expected at most 512 KiB$/],
    ['a hundred thousand fields', { input: Object.fromEntries(Array.from({ length: 100_000 }, (_, index) => [`f${index}`, 'hush'])) }, /^input: expected at most 20000 fields and entries$/],
    ['a hundred thousand fields around it', Object.fromEntries(Array.from({ length: 100_000 }, (_, index) => [`f${index}`, 'hush'])), /and \d+ more problems$/],
    ['a field with a name of a megabyte', { input: { name: 'web', user_data: 'hush' }, ['x'.repeat(1_000_000)]: 1 }, /x…: unknown field$/],
    ['what looks like a refused request', { refused: { input: { user_data: 'hush' } }, reason: 'because' }, /^already refused, .*\(because\)$/],
  ])('refuses %s at once, and keeps nothing of it but a few names', async (_what, data, reason) => {
    const job = await request('fake', data);
    expect(await job.getState()).toBe('failed');
    expect(job.failedReason).toMatch(reason);
    expect(job.attemptsMade).toBe(1);
    const kept = JSON.stringify(job.toJSON());
    expect(kept).not.toContain('hush');
    expect(kept.length).toBeLessThan(20_000);
  });

  /** As if it had been taken so many times. */
  async function setAttemptsStarted(job: Job, times: number): Promise<void> {
    if (backend !== 'redis') {
      await fleet.engine.db.sql`update bullmq.job set attempts_started = ${times} where id = ${job.id ?? ''} and queue = ${queueNames.intake}`;
      return;
    }
    const redis = connectTestRedis(inject('services').redisUrl);
    onTestFinished(() => redis.disconnect());
    await redis.hset(intake.toKey(job.id ?? ''), 'ats', times);
  }

  /** Only producers in other languages write what is 20,000 deep: JSON.stringify runs out of stack. */
  async function addDeep(): Promise<Job> {
    if (backend !== 'redis') return intake.add('fake', JSON.parse(nested(2_000)));
    const redis = connectTestRedis(inject('services').redisUrl);
    onTestFinished(() => redis.disconnect());
    await intake.pause();
    const job = await intake.add('fake', {});
    await redis.hset(intake.toKey(job.id ?? ''), { data: nested(20_000) });
    await intake.resume();
    return job;
  }

  test('refuses what is nested without bounds, and keeps nothing of it but a few names', async () => {
    const refused = await finished(await addDeep());
    expect(refused.failedReason).toBe('input: expected at most 32 levels of nesting');
    expect(refused.data).toEqual({ refused: { input: { user_data: '[a string]', deep: '[a list of 1]' } }, reason: refused.failedReason });
    expect(refused.attemptsMade).toBe(1);
  });

  test.each(['nothing', '__proto__', 'constructor', 'x'.repeat(10_000)])('refuses a saga of another name, and says which there are: %#', async (name) => {
    const job = await request(name, { input: { name: 'web' } });
    expect(job.failedReason).toMatch(/^name: no saga is called .*; expected one of fake$/);
    expect(job.attemptsMade).toBe(1);
  });

  test('gives the same saga for the same idempotency key, at once or later', async () => {
    const data = { input: { name: 'web' }, idempotencyKey: randomUUID() };
    const jobs = await Promise.all(Array.from({ length: 5 }, () => request('fake', data)));
    jobs.push(await request('fake', data));
    expect(new Set(jobs.map(sagaIdOf)).size).toBe(1);
  });

  test('refuses the same idempotency key with another input', async () => {
    const idempotencyKey = randomUUID();
    const first = await request('fake', { input: { name: 'web' }, idempotencyKey });
    const second = await request('fake', { input: { name: 'db' }, idempotencyKey });
    expect(await second.getState()).toBe('failed');
    expect(second.failedReason).toContain(`was used before with another input, by saga ${sagaIdOf(first)}`);
    expect(second.attemptsMade).toBe(1);
  });

  test('gives two sagas for two jobs without a key', async () => {
    const [one, two] = [await request('fake', { input: { name: 'web' } }), await request('fake', { input: { name: 'web' } })];
    expect(sagaIdOf(one)).not.toBe(sagaIdOf(two));
  });

  test('gives the same saga when a job without a key is delivered again before its answer was noted', async () => {
    let deliveries = 0;
    afterStart = () => {
      deliveries += 1;
      if (deliveries === 1) throw new Error('the worker lost its links');
    };
    const job = await request('fake', { input: { name: 'once' } });
    expect(deliveries).toBe(2);
    expect(requests[0]?.idempotencyKey).toBe(requests[1]?.idempotencyKey);
    const rows = await fleet.engine.db.sql<{ id: string }[]>`select id from arcadia.sagas where input->>'name' = 'once'`;
    expect([...rows]).toEqual([{ id: sagaIdOf(job) }]);
  });

  test('gives the same saga when a finished job is run again on the dashboard', async () => {
    const job = await request('fake', { input: { name: 'web' } });
    const sagaId = sagaIdOf(job);
    await job.retry('completed');
    expect(sagaIdOf(await finished(job))).toBe(sagaId);
  });

  test('does not take a new job for an old one that had its number, as happens after the queue was emptied', async () => {
    const add = async (name: string) => finished(await intake.add('fake', { input: { name } }, { jobId: 'number-1', timestamp: name === 'old' ? 1_000 : 2_000 }));
    const old = sagaIdOf(await add('old'));
    await intake.obliterate({ force: true });
    await intake.resume();
    const { saga } = await fleet.engine.load(sagaIdOf(await add('new')));
    expect(saga.id).not.toBe(old);
    expect(saga.input).toEqual({ name: 'new' });
  });

  test('puts jobs back whose key a transaction holds, takes others meanwhile, and finds the saga after the commit', async () => {
    const { db } = fleet.engine;
    const connection = await reserveConnection(db);
    await connection`begin`;
    const { sagaId } = await startSaga({ run: async (_name, statement) => statement(connection) }, catalog, { name: 'fake', input: { name: 'held' }, idempotencyKey: 'held' }, reconcileGraceMs, keyRing);
    const held = await Promise.all(Array.from({ length: 40 }, () => intake.add('fake', { input: { name: 'held' }, idempotencyKey: 'held' })));
    const began = performance.now();
    await request('fake', { input: { name: 'other' } });
    expect(performance.now() - began).toBeLessThan(10_000);
    await waitFor(async () => ((await intake.getDelayedCount()) === held.length ? true : undefined), { what: 'the jobs to be put back' });
    await connection`commit`;
    connection.release();
    const answered = await Promise.all(held.map(finished));
    expect(new Set(answered.map(sagaIdOf))).toEqual(new Set([sagaId]));
    expect(new Set(answered.map(({ attemptsMade }) => attemptsMade))).toEqual(new Set([1]));
  });

  test('leaves a request of another version to others, and takes it once it is none', async () => {
    forOthers = (times) => (times <= 2 ? 'unknown' : null);
    const job = await request('fake', { input: { name: 'web' } });
    expect([asked, requests.length, job.attemptsMade]).toEqual([3, 1, 1]);
    expect((await fleet.engine.load(sagaIdOf(job))).saga.input).toEqual({ name: 'web' });
  });

  test('leaves what it would refuse, with all its values, if another version may take it', async () => {
    forOthers = (_times, isFresh) => (isFresh ? 'differs' : null);
    const job = await intake.add('fake', { input: { name: 'web', owner: 'ann' } });
    await waitFor(() => asked >= 4, { what: 'the request to be tried twice' });
    const found: Job | undefined = await intake.getJob(job.id ?? '');
    expect(found?.data).toEqual({ input: { name: 'web', owner: 'ann' } });
    forOthers = notForOthers;
    expect((await finished(job)).failedReason).toBe('owner: unknown field');
  });

  test('decides over a request of another version by itself after some thirty times', async () => {
    forOthers = () => 'differs';
    const job = await intake.add('fake', { input: { name: 'web' } });
    await waitFor(() => asked >= 2, { what: 'the request to be left' });
    expect(requests).toEqual([]);
    await setAttemptsStarted(job, 40);
    expect((await fleet.engine.load(sagaIdOf(await finished(job)))).saga.status).toBe('pending');
  });

  test('completes a job whose saga exists, and fails one whose saga does not', async () => {
    const sagaId = sagaIdOf(await request('fake', { input: { name: 'web' } }));
    expect(sagaIdOf(await request('fake', { sagaId }))).toBe(sagaId);
    const unknown = randomUUID();
    const job = await request('fake', { sagaId: unknown });
    expect(await job.getState()).toBe('failed');
    expect(job.failedReason).toBe(`no saga ${unknown} exists: to start one, send a new job with {input, idempotencyKey?, requestedBy?, priority?}`);
    expect([job.attemptsMade, job.data]).toEqual([1, { refused: { sagaId: '[a string]' }, reason: job.failedReason }]);
  });

  test('looks again for the saga of a job after an outage', async () => {
    const sagaId = sagaIdOf(await request('fake', { input: { name: 'web' } }));
    let looks = 0;
    beforeLook = () => {
      looks += 1;
      if (looks === 1) throw new Error('Postgres is out of reach');
    };
    expect(sagaIdOf(await request('fake', { sagaId }))).toBe(sagaId);
    expect(looks).toBe(2);
  });

  test('takes keys and requesters of 255 characters of any kind', async () => {
    const longest = '🚀'.repeat(255);
    const job = await request('fake', { input: { name: 'web' }, idempotencyKey: longest, requestedBy: longest });
    expect((await fleet.engine.load(sagaIdOf(job))).saga).toMatchObject({ idempotencyKey: longest, requestedBy: longest });
  });

  test('takes a job whose own id is very long', async () => {
    const job = await finished(await intake.add('fake', { input: { name: 'web' } }, { jobId: `order-${'7'.repeat(300)}` }));
    expect(job.failedReason).toBeUndefined();
    expect((await fleet.engine.load(sagaIdOf(job))).saga.status).toBe('pending');
  });
});
