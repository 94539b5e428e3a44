// Jobs whose hash in Redis is not what BullMQ writes. Postgres's columns refuse such values.
import type { Cluster, Redis } from 'ioredis';
import type { Queue, Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { directIo } from '../../src/platform/io.ts';
import type { Log } from '../../src/platform/log.ts';
import { silentLog } from '../../src/platform/log.ts';
import { workerTroubleLog } from '../../src/queues/connection-trouble.ts';
import { jobIdOf, queueNames } from '../../src/queues/jobs.ts';
import { startPeriodicWorker } from '../../src/queues/periodic-queue.ts';
import { removeUnreadableJobs, tellUnreadable } from '../../src/queues/remove-unreadable.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import type { UnreadableJob } from '../../src/queues/unreadable.ts';
import { mayBeUnreadable, removeUnreadable, whyUnreadable } from '../../src/queues/unreadable.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Fleet } from './stage.ts';
import { backends, openQueueStage } from './stage.ts';

const BROKEN = [
  ['data', '{"user_data":"hush', 'its data are not JSON'],
  ['opts', '{bad', 'its opts are not JSON'],
  ['opts', 'null', 'its opts are null'],
  ['progress', 'half', 'its progress is not JSON'],
  ['parent', '{', 'its parent is not JSON'],
] as const;

test('the error of a job that cannot be read is logged without what it quotes, and not as trouble with the connection', () => {
  const said: unknown[] = [];
  const log: Log = { ...silentLog, warn: (...line: unknown[]) => said.push(line) };
  const trouble: Error[] = [];
  const tell = workerTroubleLog(log, 'sagas', (error) => trouble.push(error));
  tell(new SyntaxError('Unexpected token h in "hush"'));
  const lost = new Error('read ECONNRESET');
  tell(lost);
  expect(said).toEqual([[{ queue: 'sagas' }, 'a job cannot be read: looking for it']]);
  expect(trouble).toEqual([lost]);
});

describe.skipIf(!backends.includes('redis'))('jobs that cannot be read', () => {
  let fleet: Fleet;
  let redis: Redis | Cluster;

  beforeAll(async () => {
    fleet = await openQueueStage('redis', catalogOf(fakeStep('one')));
    redis = connectTestRedis(inject('services').redisUrl);
  });

  afterAll(async () => {
    redis.disconnect();
    await fleet[Symbol.asyncDispose]();
  });

  const makeOverdue = async (): Promise<void> => {
    await fleet.engine.db.sql`update arcadia.sagas set wake_at = clock_timestamp() - interval '1 second' where wake_at is not null`;
  };

  /** As somebody who writes to Redis by hand. */
  const plant = async (queue: Queue, jobId: string, [field, value]: readonly [string, string, ...unknown[]]): Promise<void> => {
    await redis.hset(queue.toKey(jobId), { name: 'one', data: '{}', opts: '{}', timestamp: String(Date.now()), [field]: value });
    await redis.lpush(queue.toKey('wait'), jobId);
    await redis.zadd(queue.toKey('marker'), 0, '0');
  };

  /** Watches a worker's queue as a worker process does. */
  const watch = (worker: Worker, everyMs?: number): UnreadableJob[] => {
    const told: UnreadableJob[] = [];
    const stopping = new AbortController();
    const record = tellUnreadable({ db: fleet.engine.db, actor: 'host:1', log: silentLog });
    const watching = removeUnreadableJobs(fleet.connection, [worker], {
      onUnreadable: async (job) => {
        await record(job);
        told.push(job);
      },
      signal: stopping.signal, log: silentLog, ...(everyMs === undefined ? {} : { everyMs }),
    });
    onTestFinished(async () => {
      stopping.abort();
      await watching;
      await worker.close();
    });
    return told;
  };

  const isGone = async (queue: Queue, jobId: string): Promise<boolean> => (await redis.exists(queue.toKey(jobId))) === 0 && (await queue.getJobState(jobId)) === 'unknown';

  test.each(BROKEN)('are those that BullMQ cannot read: %s %s', async (field, value, why) => {
    const queue = fleet.connection.queue('shapes');
    onTestFinished(async () => queue.close());
    await plant(queue, 'broken', [field, value]);
    const thrown: unknown = await queue.getJob('broken').catch((error: unknown) => error);
    expect(mayBeUnreadable(thrown)).toBe(true);
    expect(await whyUnreadable(queue, 'broken')).toBe(why);
    expect(await whyUnreadable(queue, 'none')).toBeNull();
    await queue.obliterate({ force: true });
  });

  test.each(BROKEN)('neither keep a saga from its job nor others from theirs: %s %s', async (field, value, why) => {
    const [one, broken, three] = [await fleet.start(), await fleet.start(), await fleet.start()];
    await redis.hset(fleet.forward.toKey(jobIdOf(broken)), field, value);
    await makeOverdue();
    const told: UnreadableJob[] = [];
    const queues = openStepQueues(fleet.connection, directIo, { onUnreadable: async (job) => Promise.resolve(void told.push(job)) });
    onTestFinished(async () => queues.close());
    expect(await queues.peek(broken)).toBeNull();
    expect(await queues.inspect(broken)).toBeNull();
    expect([await queues.ensure(one), await queues.ensure(broken), await queues.ensure(three)]).toEqual([{}, null, {}]);
    expect(told).toEqual([{ queue: queueNames.steps, jobId: jobIdOf(broken), why }]);
    const workers = await fleet.work();
    expect(await fleet.settled([one, broken, three])).toEqual(['completed', 'completed', 'completed']);
    await Promise.all(workers.map(async (worker) => worker.close()));
  });

  test('are replaced in a pass of the reconciler, which does its work for the others, and when a saga is woken', async () => {
    const [one, broken, woken] = [await fleet.start(), await fleet.start(), await fleet.start()];
    for (const job of [broken, woken]) await redis.hset(fleet.forward.toKey(jobIdOf(job)), 'data', '{bad');
    expect(await fleet.queues.wake(woken)).toBe('woken');
    await makeOverdue();
    expect(await fleet.reconcile()).toEqual({ overdue: 3, firstJobs: 1, remade: 0 });
    const workers = await fleet.work();
    expect(await fleet.settled([one, broken, woken])).toEqual(['completed', 'completed', 'completed']);
    await Promise.all(workers.map(async (worker) => worker.close()));
  });

  test('are removed as soon as a worker takes them, with the reason in the audit trail; the other jobs run', async () => {
    const queue = fleet.connection.queue('poisoned');
    onTestFinished(async () => queue.close());
    const ran: string[] = [];
    const worker = startPeriodicWorker(fleet.connection, 'poisoned', { settings: { concurrency: 1, lockMs: 600_000 }, run: async () => Promise.resolve(`${ran.push('x')}`), log: silentLog });
    const told = watch(worker);
    for (const [index, broken] of BROKEN.entries()) await plant(queue, `broken${index}`, broken);
    await queue.add('good', {});
    await waitFor(() => told.length >= BROKEN.length && ran.length === 1, { what: 'the broken jobs to be removed' });
    expect(told.toSorted((a, b) => a.jobId.localeCompare(b.jobId))).toEqual(BROKEN.map(([, , why], index) => ({ queue: 'poisoned', jobId: `broken${index}`, why })));
    for (const index of BROKEN.keys()) expect(await isGone(queue, `broken${index}`)).toBe(true);
    expect(await queue.getJobs()).toHaveLength(1);
    const rows = await fleet.engine.db.sql`select actor, saga_id, detail from arcadia.audit where action = 'job_removed' and detail->>'jobId' = 'broken0'`;
    expect(rows).toEqual([{ actor: 'host:1', sagaId: null, detail: { queue: 'poisoned', jobId: 'broken0', reason: 'the job could not be read: its data are not JSON' } }]);
  });

  test('are removed alone, whatever children and schedule they name', async () => {
    const queue = fleet.connection.queue('forged');
    onTestFinished(async () => queue.close());
    const job = await fleet.engine.start();
    await fleet.queues.enqueue(job);
    const forged = 'repeat:mine:1';
    await plant(queue, forged, ['data', '{bad']);
    await redis.hset(queue.toKey(forged), 'rjk', 'mine');
    await redis.zadd(queue.toKey('repeat'), 1, 'mine');
    await redis.sadd(`${queue.toKey(forged)}:dependencies`, fleet.forward.toKey(jobIdOf(job)));
    await redis.set(`${queue.toKey(forged)}:lock`, 'held');
    expect(await removeUnreadable(queue, forged)).toBe(true);
    expect(await isGone(queue, forged)).toBe(true);
    expect(await fleet.queues.peek(job)).not.toBeNull();
    await fleet.forward.obliterate({ force: true });
    await queue.obliterate({ force: true });
  });

  test('are removed from a queue that nobody takes from, too, and belong to their saga in the audit trail', async () => {
    const job = await fleet.engine.start();
    await fleet.forward.pause();
    await fleet.queues.enqueue(job);
    const [worker] = await fleet.work();
    if (worker === undefined) throw new Error('no worker');
    await redis.hset(fleet.forward.toKey(jobIdOf(job)), 'opts', '{bad');
    const told = watch(worker, 50);
    await waitFor(() => told.length > 0, { what: 'the job to be removed' });
    expect(await isGone(fleet.forward, jobIdOf(job))).toBe(true);
    await fleet.forward.resume();
    const rows = await fleet.engine.db.sql`select 1 from arcadia.audit where action = 'job_removed' and saga_id = ${job.sagaId}`;
    expect(rows).toHaveLength(1);
  });
});
