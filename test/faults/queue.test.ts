// Redis in trouble: gone, silent, set back to an old snapshot, or about to throw jobs away. The queues hold nothing that
// Postgres does not know, so that whatever happens to them, no saga is lost and nothing is done twice.

import { Redis } from 'ioredis';
import { describe, expect, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import { jobIdOf, queueNames } from '../../src/queues/jobs.ts';
import { quickSettings, openFaultStage } from '../support/fault-stage.ts';
import type { Stage, StageOptions } from '../support/fault-stage.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import type { PrivateRedis } from '../support/services-redis-server.ts';
import { startTcpProxy, throughProxy } from '../support/fault-proxy.ts';
import { waitFor } from '../support/wait-for.ts';
import { patience } from '../support/patience.ts';

const SAGAS = 8;

async function setStageOnOwnRedis(stack: AsyncDisposableStack, options: StageOptions = {}): Promise<{ redis: PrivateRedis; stage: Stage }> {
  const redis = await startPrivateRedis();
  stack.defer(() => redis.stop());
  return { redis, stage: stack.use(await openFaultStage({ redisUrl: redis.url, ...options })) };
}

async function provisionUntilUnderWay(stage: Stage): Promise<void> {
  await Promise.all(Array.from({ length: SAGAS }, (_, at) => stage.provision(`web-${at}`)));
  await waitFor(() => stage.sandbox.state().length >= 2, { what: 'the first droplets', everyMs: 5 });
}

/** Ends well: all completed, and no create was sent twice. */
async function outcomes(stage: Stage, deadlineMs = 40_000): Promise<{ completed: number; creates: number }> {
  const sagas = await stage.atRest(deadlineMs);
  await stage.expectLawful();
  const creates = stage.sandbox.ledger().filter(({ method }) => method === 'POST').length;
  return { completed: sagas.filter(({ status }) => status === 'completed').length, creates };
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
// Longer than the lock, the stalled check and two passes of the reconciler together.
const LONGER_THAN_ALL_LOCKS_MS = 400 + 3 * Number(quickSettings.WORKER_LOCK_MS);

describe.concurrent('Redis', () => {
  test('gone for longer than all locks, and back empty: sagas that were accepted meanwhile are done too', async () => {
    await using stack = new AsyncDisposableStack();
    const { redis, stage } = await setStageOnOwnRedis(stack);
    await stage.work();
    await provisionUntilUnderWay(stage);
    await redis.kill();
    const gone = sleep(LONGER_THAN_ALL_LOCKS_MS);
    const late = openClient({ databaseUrl: stage.env['DATABASE_URL'] ?? '', queueStore: { kind: 'redis', nodes: [redis.url], prefix: stage.env['QUEUE_PREFIX'] ?? '' } });
    stack.defer(() => late.close());
    const from = performance.now();
    await Promise.all([
      stage.provision('meanwhile-1'),
      late.provisionDroplet({ name: 'meanwhile-2', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' }),
    ]);
    expect(performance.now() - from).toBeLessThan(8_000 * patience());
    await gone;
    await redis.restart();
    expect(await outcomes(stage)).toEqual({ completed: SAGAS + 2, creates: SAGAS + 2 });
  });

  test('frozen for longer than all locks', async () => {
    await using stack = new AsyncDisposableStack();
    const { redis, stage } = await setStageOnOwnRedis(stack);
    await stage.work();
    await provisionUntilUnderWay(stage);
    redis.pause();
    await sleep(LONGER_THAN_ALL_LOCKS_MS);
    redis.resume();
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
  });

  test('half open: connections that went silent for good are given up, and the same worker goes on', async () => {
    await using stack = new AsyncDisposableStack();
    const redis = await startPrivateRedis();
    stack.defer(() => redis.stop());
    const proxy = stack.use(await startTcpProxy(redis.port));
    const stage = stack.use(await openFaultStage({ redisUrl: redis.url, workersRedisUrl: throughProxy(redis.url, proxy) }));
    await stage.work();
    await provisionUntilUnderWay(stage);
    proxy.freeze();
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
  });

  test('set back to a snapshot from the beginning: the jobs that rise from it do nothing again', async () => {
    await using stack = new AsyncDisposableStack();
    const { redis, stage } = await setStageOnOwnRedis(stack);
    const [first] = await Promise.all(Array.from({ length: SAGAS }, (_, at) => stage.provision(`web-${at}`)));
    const admin = new Redis(redis.url, { retryStrategy: () => 100, maxRetriesPerRequest: null });
    admin.on('error', () => undefined);
    stack.defer(() => admin.disconnect());
    await admin.save();
    await stage.work();
    await waitFor(() => stage.sandbox.state().length === SAGAS, { what: 'all droplets', everyMs: 5 });
    await redis.kill();
    await redis.restart();
    expect(await admin.exists(`${stage.env['QUEUE_PREFIX']}:${queueNames.steps}:${jobIdOf({ sagaId: first ?? '', revision: 0 })}`)).toBe(1);
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
    // And once more, when everything is over.
    await redis.kill();
    await redis.restart();
    await waitFor(async () => (await stage.queue(queueNames.steps).getJobCountByTypes('waiting', 'active', 'delayed')) === 0, { what: 'the old jobs to be through' });
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
  });

  test.for(['allkeys-lru', 'volatile-ttl'])('that may throw jobs away (%s) is refused at start: exit 78, saying why', async (policy) => {
    await using stack = new AsyncDisposableStack();
    const redis = await startPrivateRedis({ 'maxmemory-policy': policy, maxmemory: '64mb' });
    stack.defer(() => redis.stop());
    const stage = stack.use(await openFaultStage({ redisUrl: redis.url }));
    const worker = stage.fork();
    expect(await worker.exit()).toMatchObject({ code: 78 });
    expect(worker.output()).toContain(`maxmemory-policy ${policy}`);
    expect(worker.output()).toContain('Set it to noeviction');
  });

  test('out of memory for a while: adds are refused, and nothing is lost', async () => {
    await using stack = new AsyncDisposableStack();
    const { redis, stage } = await setStageOnOwnRedis(stack);
    const admin = new Redis(redis.url);
    stack.defer(() => admin.disconnect());
    await stage.work();
    await provisionUntilUnderWay(stage);
    await admin.config('SET', 'maxmemory', '1');
    await stage.provision('meanwhile');
    await sleep(LONGER_THAN_ALL_LOCKS_MS);
    await admin.config('SET', 'maxmemory', '0');
    expect(await outcomes(stage)).toEqual({ completed: SAGAS + 1, creates: SAGAS + 1 });
  });

  test('the stall after which BullMQ fails a job without calling us costs the saga nothing', async () => {
    await using stack = new AsyncDisposableStack();
    const { redis, stage } = await setStageOnOwnRedis(stack, {
      settings: { DIGITALOCEAN_TIMEOUT_MS: '3000', WORKER_LOCK_MS: '3500', ADOPTION_GRACE_MS: '4000' },
    });
    const admin = new Redis(redis.url);
    stack.defer(() => admin.disconnect());
    stage.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, times: 1, effect: { holdAnswerMs: 60_000 } }] });
    const doomed = stage.fork();
    const sagaId = await stage.provision('web-1');
    await waitFor(() => stage.sandbox.state().length === 1, { what: 'the create to be accepted', everyMs: 5 });
    doomed.signal('SIGKILL');
    await doomed.exit();
    const [jobId] = await admin.lrange(`${stage.env['QUEUE_PREFIX']}:${queueNames.steps}:active`, 0, -1);
    expect(jobId).toContain(sagaId);
    await admin.hset(`${stage.env['QUEUE_PREFIX']}:${queueNames.steps}:${jobId}`, 'stc', '10');
    await stage.work();
    const failed = await waitFor(async () => (await stage.queue(queueNames.steps).getFailed())[0], { what: 'the stalled job to fail' });
    expect(failed).toMatchObject({ id: jobId, failedReason: expect.stringContaining('stalled') });
    expect(await outcomes(stage)).toEqual({ completed: 1, creates: 1 });
  });
});

describe.concurrent('an operator on the dashboard', () => {
  test('removes jobs, retries finished ones and obliterates the queues with what runs in them: every saga goes on', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 1_500 } });
    await stage.work();
    await provisionUntilUnderWay(stage);
    const queues = [stage.queue(queueNames.steps), stage.queue(queueNames.compensations), stage.queue(queueNames.intake)];
    const [steps] = queues;
    let retried = 0;
    for (let round = 0; round < 12; round += 1) {
      for (const job of (await steps?.getJobs(['waiting', 'delayed'])) ?? []) await job.remove().catch(() => undefined);
      for (const job of (await steps?.getJobs(['completed'])) ?? []) await job.retry('completed').then(() => (retried += 1)).catch(() => undefined);
      if (round % 4 === 3) for (const queue of queues) await queue.obliterate({ force: true }).catch(() => undefined);
      // Obliterating leaves a queue paused.
      for (const queue of queues) await queue.resume();
      await sleep(100);
    }
    expect(retried).toBeGreaterThan(10);
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
  });

  test('promotes a wait a hundred times: it looks more often, and gives up no earlier', async () => {
    await using stage = await openFaultStage({
      settings: { WAIT_POLL_INTERVAL_MS: '1000', WAIT_MAX_POLLS: '60' },
      sandbox: { faults: { neverActive: true } },
    });
    await stage.work();
    const sagaId = await stage.provision('web-1');
    await stage.until(sagaId, 'waiting', ({ cursor }) => cursor === 1);
    const queue = stage.queue(queueNames.steps);
    let promoted = 0;
    await waitFor(
      async () => {
        for (const job of await queue.getDelayed()) await job.promote().then(() => (promoted += 1)).catch(() => undefined);
        return promoted >= 100;
      },
      { what: 'a hundred promotions', everyMs: 0, deadlineMs: 40_000 },
    );
    const polls = stage.sandbox.ledger().filter(({ route }) => route === 'GET /v2/droplets/:id').length;
    expect(polls).toBeGreaterThan(60);
    expect((await stage.client.get(sagaId))?.status).toBe('running');
    stage.sandbox.setFaults({ neverActive: false });
    expect(await outcomes(stage)).toEqual({ completed: 1, creates: 1 });
  });

  test('edits a job to name another saga: neither saga is the worse for it', async () => {
    await using stage = await openFaultStage({
      settings: { WAIT_POLL_INTERVAL_MS: '400', WAIT_MAX_POLLS: '100' },
      sandbox: { activateAfterMs: 500, faults: { neverActive: true } },
    });
    const { log } = await stage.work();
    const [mine, slow] = await Promise.all([stage.provision('mine'), stage.provision('slow')]);
    const other = await stage.until(slow, 'waiting', ({ cursor }) => cursor === 1);
    const own = await stage.until(mine, 'waiting', ({ cursor }) => cursor === 1);
    const queue = stage.queue(queueNames.steps);
    // While no worker has the job: it would write its own over the edit.
    await queue.pause();
    const job = await waitFor(
      async () => {
        const found = await queue.getJob(jobIdOf({ sagaId: mine, revision: own.revision }));
        return found !== undefined && !(await found.isActive()) && found;
      },
      { what: 'the job of the wait', everyMs: 10 },
    );
    await job.updateData({ sagaId: slow, revision: other.revision });
    await queue.resume();
    stage.sandbox.setFaults({ neverActive: 'slow' });
    await stage.until(mine, 'completed', ({ status }) => status === 'completed', 8_000);
    expect(log.find(({ msg }) => msg === 'job failed')?.['reason']).toContain('edited');
    stage.sandbox.setFaults({ neverActive: false });
    expect(await outcomes(stage)).toEqual({ completed: 2, creates: 2 });
  });

  test('pauses the queues for longer than the wait may take: droplets that became active meanwhile are kept', async () => {
    await using stage = await openFaultStage({ settings: { WAIT_MAX_POLLS: '5' }, sandbox: { activateAfterMs: 600 } });
    await stage.work();
    await provisionUntilUnderWay(stage);
    const queue = stage.queue(queueNames.steps);
    await queue.pause();
    await sleep(3_000);
    await queue.resume();
    expect(await outcomes(stage)).toEqual({ completed: SAGAS, creates: SAGAS });
  });
});
