// The access list that docs/explanation/security.md gives to producers of other programs: enough to ask for sagas, and no more.
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { expect, onTestFinished, test } from 'vitest';
import { queueNames } from '../../src/queues/jobs.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';

const PREFIX = '{arcadia}';
const RULES = ['on', '>producer-password', `~${PREFIX}:${queueNames.intake}:*`, '&*', '+@all', '-@admin', '-@dangerous', '+info'];

test('a producer with the documented rights adds requests, and reaches nothing else of the fleet', async () => {
  const server = await startPrivateRedis();
  onTestFinished(() => server.stop());
  const admin = new Redis(server.url);
  onTestFinished(() => admin.disconnect());
  await admin.call('ACL', 'SETUSER', 'producer', ...RULES);
  const connection = new Redis(server.url, { username: 'producer', password: 'producer-password', maxRetriesPerRequest: 1 });
  onTestFinished(() => connection.disconnect());

  const intake = new Queue(queueNames.intake, { connection, prefix: PREFIX });
  const job = await intake.add('provision_droplet', { input: { name: 'web-1' } });
  expect(await job.getState()).toBe('waiting');

  await expect(connection.set(`${PREFIX}:seen:any:7`, 'planted')).rejects.toThrow(/NOPERM/);
  await expect(connection.del(`${PREFIX}:owner`)).rejects.toThrow(/NOPERM/);
  await expect(new Queue(queueNames.steps, { connection, prefix: PREFIX }).add('create_droplet', {})).rejects.toThrow(/NOPERM|permission/i);
  await expect(connection.flushall()).rejects.toThrow(/NOPERM/);
  await intake.close();
});
