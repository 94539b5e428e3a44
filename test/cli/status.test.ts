// `arcadia status` of a fleet whose queue store answers, but cannot be relied on.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { generateKey } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { claimQueues, openFleet, runCommand, web } from '../support/fleet.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';

test('a Redis that answers and takes no writes is a problem: it cannot save, or it became a replica', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'arcadia-redis-'));
  const redis = await startPrivateRedis({ dir: folder, save: '3600 1' });
  onTestFinished(() => redis.stop());
  const admin = connectTestRedis(redis.url);
  onTestFinished(() => admin.disconnect());
  await using fleet = await openFleet('redis');
  const environment = { REDIS_URL: redis.url };
  await fleet.startWorker(environment);
  const status = () => runCommand(['status'], fleet.environment(environment));
  expect(await status()).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No problems\./) });

  rmSync(folder, { recursive: true });
  await admin.bgsave();
  await waitFor(async () => /rdb_last_bgsave_status:err/.test(await admin.info('persistence')), { what: 'the save to fail' });
  const unsaved = await status();
  expect([unsaved.code, unsaved.stdout]).toEqual([1, expect.stringMatching(/^!! The queue store takes no writes\.[^\n]*\n {3}[^\n]*MISCONF[^\n]*Redis cannot save its data to disk/m)]);

  await admin.config('SET', 'save', '');
  await admin.call('REPLICAOF', '127.0.0.1', '1');
  const replica = await status();
  expect([replica.code, replica.stdout]).toEqual([1, expect.stringMatching(/^!! The queue store takes no writes\.[^\n]*\n {3}[^\n]*READONLY[^\n]*leads to a replica/m)]);
  expect(replica.stdout).not.toContain('No problems');
});

test('queues that are not those of this database are no sign that all is well; nothing is written there', async () => {
  await using fleet = await openFleet('redis');
  await fleet.startWorker();
  await using other = await openFleet('redis');
  const { REDIS_URL: url = '', QUEUE_PREFIX: prefix = '' } = other.environment();
  const status = (...more: string[]) => runCommand(['status', ...more], fleet.environment({ QUEUE_PREFIX: prefix }));
  const redis = connectTestRedis(url);
  onTestFinished(() => redis.disconnect());

  const unclaimed = await status();
  expect([unclaimed.code, unclaimed.stdout]).toEqual([1, expect.stringContaining(`!! The queues at REDIS_URL under QUEUE_PREFIX ${prefix} belong to no database`)]);
  expect(await redis.keys(`${prefix}*`)).toEqual([]);

  await claimQueues(other, 'another/database');
  const queue = openQueueConnection(other.queueStore, silentLog);
  await queue.queue(queueNames.steps).pause();
  await queue.close();
  const ofAnother = await status('--json');
  expect(ofAnother.code).toBe(1);
  expect(JSON.parse(ofAnother.stdout)).toMatchObject({ status: 'attention', pausedQueues: null, conditions: [{ title: expect.stringContaining(`under QUEUE_PREFIX ${prefix} belong to another database`) }, { name: 'queues_differ' }] });
});

test('a saga whose worker lacks the key of its secret is a problem, to doctor too, until a worker has the key', async () => {
  await using fleet = await openFleet('redis');
  const keyless = await fleet.startWorker({ ARCADIA_ENCRYPTION_KEYS: generateKey() });
  const { sagaId } = await fleet.client.provisionDroplet({ ...web, user_data: '#!/bin/sh\necho web' });
  const key = await waitFor(async () => {
    const missing = (await fleet.client.get(sagaId))?.context['missing_encryption_key'];
    return typeof missing === 'string' && missing;
  }, { what: 'the saga to wait for the key' });
  const [status, doctor] = [await runCommand(['status'], fleet.environment()), await runCommand(['doctor'], fleet.environment())];
  expect([status.code, status.stdout]).toEqual([1, expect.stringContaining(`!! 1 saga waits for the encryption key ${key}.`)]);
  expect([doctor.code, doctor.stdout]).toEqual([1, expect.stringContaining('1 saga waits for the encryption key')]);
  keyless.signal('SIGTERM');
  await keyless.ended;
  await fleet.startWorker();
  await fleet.atRest(sagaId);
  expect(await runCommand(['status'], fleet.environment())).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No problems\./) });
});

test('without REDIS_URL in the shell of a fleet with Redis: it says what is not set, not that the queue store is away', async () => {
  await using fleet = await openFleet('redis');
  await fleet.startWorker({ INVENTORY_SYNC_INTERVAL_MS: '1000' });
  await waitFor(async () => (await fleet.db.sql`select from arcadia.inventory_syncs where outcome = 'complete'`).length > 0, { what: 'a sync' });
  const status = () => runCommand(['status'], fleet.environment({ REDIS_URL: '', QUEUE_PREFIX: '' }));
  const empty = await status();
  expect([empty.code, empty.stdout]).toEqual([1, expect.stringMatching(/^!! REDIS_URL is not set here, and Postgres has none of the jobs that the workers work on\..*\n {3}Set REDIS_URL as the workers have it\.$/m)]);
  await fleet.db.sql`drop schema bullmq cascade`;
  const absent = await status();
  expect([absent.code, absent.stdout]).toEqual([1, expect.stringContaining('!! REDIS_URL is not set here, and Postgres has no tables of queues.')]);
  expect(absent.stdout).not.toContain('does not answer');
});

test('queues in Postgres of a fleet without Redis are its own', async () => {
  await using fleet = await openFleet('postgres');
  const status = () => runCommand(['status'], fleet.environment());
  await fleet.startWorker({ INVENTORY_SYNC_INTERVAL_MS: '1000' });
  expect(await status()).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No problems\./) });
  await waitFor(async () => (await fleet.db.sql`select from arcadia.inventory_syncs where outcome = 'complete'`).length > 0, { what: 'a sync' });
  expect(await status()).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No problems\./) });
});
