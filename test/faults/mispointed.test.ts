// Processes that are pointed at what is not theirs: the token of another account, the queues of another database. They
// stop before they touch anything.

import { expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';
import { runCommand } from '../support/fleet.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';

const path = '/v2/account';
const team = (uuid: string) => ({ status: 200, body: { account: { uuid: 'somebody', team: { uuid } } } });

/** A completed saga's droplet, on record with its account, and another saga that waits for a worker. */
async function setScene(settings: Record<string, string> = {}): Promise<Stage & { waiting: string }> {
  const stage = await openFaultStage({ settings });
  const first = await stage.provision('web-1');
  const worker = await stage.work();
  await stage.until(first, 'completed', ({ status }) => status === 'completed');
  await worker.close();
  const [resource] = await stage.db.sql<{ providerId: string }[]>`select provider_id from arcadia.cloud_resources`;
  const { sagaId } = await stage.client.destroyDroplet(Number(resource?.providerId));
  stage.sandbox.clearLedger();
  return { ...stage, waiting: sagaId };
}

const asked = ({ sandbox }: Stage) => sandbox.ledger().map(({ method, path: of }) => `${method} ${of}`);

test.each(['worker', 'sync'])('%s with the token of another account: exit code 78, and nothing is asked of it', async (command) => {
  await using stage = await setScene();
  stage.sandbox.setFaults({ rules: [{ match: { path }, effect: team('another') }] });
  const ended = await runCommand([command], { ...stage.env, DIGITALOCEAN_TOKEN: 'of-another' });
  expect(ended.code).toBe(78);
  expect(ended.stderr).toMatch(/DIGITALOCEAN_TOKEN is of the account another, but this database's droplets are in the account [0-9a-f]{40}/);
  expect(asked(stage)).toEqual(['GET /v2/account']);
  // With the right one again, all is as it was.
  stage.sandbox.setFaults({ rules: [] });
  await stage.work();
  await stage.until(stage.waiting, 'completed', ({ status }) => status === 'completed');
  expect(stage.sandbox.state({ alive: true })).toEqual([]);
});

test('where the account cannot be read at first, a worker works, asks again, and ends when it is another one', async () => {
  await using stage = await setScene({ RECONCILE_INTERVAL_MS: '300' });
  stage.sandbox.setFaults({ rules: [{ match: { path }, times: 2, effect: { status: 503 } }, { match: { path }, effect: team('another') }] });
  const worker = stage.fork({ DIGITALOCEAN_TOKEN: 'of-another' });
  await worker.ready();
  expect(await worker.exit()).toMatchObject({ code: 1 });
  expect(worker.log().find(({ level }) => level === 'fatal')).toMatchObject({ msg: 'worker cannot continue: exiting, so that its supervisor starts another one', why: expect.stringContaining('the account another') });
  expect(asked(stage).filter((request) => request.endsWith('account'))).toHaveLength(3);
});

test('a worker that was killed while it asked for the account holds up the next one for seconds, which says what it waits for', async () => {
  await using stage = await openFaultStage({ settings: { DIGITALOCEAN_TIMEOUT_MS: '30000', WORKER_LOCK_MS: '60000', ADOPTION_GRACE_MS: '90000' } });
  stage.sandbox.setFaults({ rules: [{ match: { path }, times: 1, effect: { hang: true } }] });
  const killed = stage.fork();
  await waitFor(() => asked(stage).length === 1, { what: 'its request' });
  killed.signal('SIGKILL');
  await killed.exit();
  const startedAt = performance.now();
  const next = stage.fork();
  await next.ready();
  expect(performance.now() - startedAt).toBeLessThan(28_000);
  expect(next.log().map(({ msg }) => msg)).toContain('waiting for DigitalOcean to say which account the token is of');
});

test('where the account cannot be read, sync does not sync: exit code 1, and it says so', async () => {
  await using stage = await setScene();
  stage.sandbox.setFaults({ rules: [{ match: { path }, effect: { status: 503 } }] });
  const ended = await runCommand(['sync'], stage.env);
  expect([ended.code, ended.stdout]).toEqual([1, '']);
  expect(ended.stderr).toContain('nothing was synced');
  expect(asked(stage)).toEqual(['GET /v2/account']);
});

test('a token that may not read its account is let pass, and the log says so', async () => {
  await using stage = await setScene();
  stage.sandbox.setFaults({ rules: [{ match: { path }, effect: { status: 403, body: { id: 'forbidden', message: 'You are not authorized to perform this operation' } } }] });
  const worker = await stage.work({ settings: { DIGITALOCEAN_TOKEN: 'anew' } });
  await stage.until(stage.waiting, 'completed', ({ status }) => status === 'completed');
  expect(worker.log.filter(({ level, msg }) => level === 'warn' && msg.includes('account:read'))).toHaveLength(1);
});

test('workers and web do not start on the queues of another database, until its claim is gone', async () => {
  await using first = await openFaultStage();
  await using second = await openFaultStage();
  const worker = await first.work();
  const prefix = first.env['QUEUE_PREFIX'] ?? '';
  for (const command of ['worker', 'web']) {
    const ended = await runCommand([command], { ...second.env, QUEUE_PREFIX: prefix, PORT: '0' });
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain(`under QUEUE_PREFIX ${prefix} belong to another database`);
  }
  await first.until(await first.provision('web-1'), 'completed', ({ status }) => status === 'completed');
  const redis = connectTestRedis(first.env['REDIS_URL'] ?? '');
  onTestFinished(() => redis.disconnect());
  await worker.close();
  await redis.del(`${prefix}:owner`);
  await second.fork({ QUEUE_PREFIX: prefix }).ready();
});

test('a claim that was lost with everything in Redis is made again; where another database has claimed the queues by then, a worker ends', async () => {
  await using stage = await openFaultStage();
  const worker = await stage.work();
  const key = `${stage.env['QUEUE_PREFIX']}:owner`;
  const redis = connectTestRedis(stage.env['REDIS_URL'] ?? '');
  onTestFinished(() => redis.disconnect());
  const owner = await redis.get(key);
  await redis.del(key);
  await waitFor(async () => (await redis.get(key)) === owner, { what: 'the claim to be made again' });
  expect(worker.log.filter(({ level, msg }) => level === 'warn' && msg.startsWith('the claim on the queues was gone'))).toHaveLength(1);
  await redis.set(key, 'another/database');
  expect(await worker.cannotGoOn).toContain('belong to another database (another/database');
  expect(await redis.get(key)).toBe('another/database');
});

test('a web without a worker claims the queues again, too, and ends where another database has them', async () => {
  await using stage = await openFaultStage();
  const web = await startWeb(loadConfig({ ...stage.env, PORT: '0', RECONCILE_INTERVAL_MS: '200' }), silentLog);
  onTestFinished(() => web.close());
  const key = `${stage.env['QUEUE_PREFIX']}:owner`;
  const redis = connectTestRedis(stage.env['REDIS_URL'] ?? '');
  onTestFinished(() => redis.disconnect());
  const owner = await redis.get(key);
  await redis.del(key);
  await waitFor(async () => (await redis.get(key)) === owner, { what: 'the claim to be made again' });
  await redis.set(key, 'another/database');
  expect(await web.cannotGoOn).toContain('belong to another database (another/database');
});

test('a Redis that is full, or may throw jobs away, is named until it is set right', async () => {
  const redis = await startPrivateRedis();
  onTestFinished(() => redis.stop());
  await using stage = await openFaultStage({ redisUrl: redis.url });
  const admin = connectTestRedis(redis.url);
  onTestFinished(() => admin.disconnect());
  const told = async () => (await runCommand(['status', '--json'], { PATH: process.env['PATH'], ...stage.env })).stdout;
  await stage.fork().ready();
  expect(await told()).toContain('"status":"ok"');
  await admin.config('SET', 'maxmemory', '1');
  expect(await told()).toContain('"name":"queue_store_full"');
  await admin.config('SET', 'maxmemory', '0');
  await admin.config('SET', 'maxmemory-policy', 'allkeys-lru');
  expect(await told()).toContain('"name":"queue_store_evicts"');
  await admin.config('SET', 'maxmemory-policy', 'noeviction');
  expect(await told()).toContain('"status":"ok"');
});

test('workers start where the claim stands, though Redis takes no writes', async () => {
  const redis = await startPrivateRedis();
  onTestFinished(() => redis.stop());
  await using stage = await openFaultStage({ redisUrl: redis.url });
  await (await stage.work()).close();
  const admin = connectTestRedis(redis.url);
  onTestFinished(() => admin.disconnect());
  await admin.config('SET', 'maxmemory', '1');
  await expect(admin.set('full', '1')).rejects.toThrow(/^OOM/);
  await stage.fork().ready();
  await admin.config('SET', 'maxmemory', '0');
});
