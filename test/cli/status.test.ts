// `arcadia status` of a fleet whose queue store answers, but cannot be relied on.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openFleet, runCommand } from '../support/fleet.ts';
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
