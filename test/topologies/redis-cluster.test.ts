// A Redis Cluster for the queues: what is checked before a worker trusts it, and what is said where it is not one.

import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { silentLog } from '../../src/platform/log.ts';
import { QueueStoreError, openQueueConnection } from '../../src/queues/connection.ts';
import type { QueueConnection } from '../../src/queues/connection.ts';
import { startPrivateRedisCluster } from '../support/services-redis-cluster.ts';
import type { PrivateRedisCluster } from '../support/services-redis-cluster.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';

const prefix = '{test}';
let cluster: PrivateRedisCluster;
beforeAll(async () => {
  cluster = await startPrivateRedisCluster();
});
afterAll(() => cluster.stop());

function connect(urls: string, keyPrefix = prefix): QueueConnection {
  const connection = openQueueConnection({ kind: 'redis', nodes: urls.split(','), prefix: keyPrefix }, silentLog);
  onTestFinished(() => connection.close());
  return connection;
}

test('is refused while any of its nodes may evict jobs', async () => {
  const connection = connect(cluster.url);
  await expect(connection.check('test')).resolves.toBeUndefined();
  for (const server of cluster.servers) {
    const admin = new Redis(server.url);
    onTestFinished(() => admin.disconnect());
    await admin.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await expect(connection.check('test')).rejects.toThrow(/maxmemory-policy allkeys-lru.*on every node/);
    expect(await connection.memory()).toEqual({ isFull: false, evictionPolicy: 'allkeys-lru' });
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
  }
  await expect(connection.check('test')).resolves.toBeUndefined();
  expect(await connection.memory()).toEqual({ isFull: false, evictionPolicy: null });
});

test('has to be named by several nodes; the same one twice will do', async () => {
  const [node = ''] = cluster.url.split(',');
  await expect(connect(node).check('test')).rejects.toThrow(/^REDIS_URL names one node of a Redis Cluster: name several/);
  await expect(connect(`${node},${node}`).check('test')).resolves.toBeUndefined();
});

test('needs a prefix that keeps the keys of a queue together', () => {
  expect(() => connect(cluster.url, 'arcadia')).toThrow(ConfigError);
  expect(() => connect(cluster.url, 'arcadia')).toThrow('QUEUE_PREFIX: expected a part in braces, such as {arcadia}');
});

test('that cannot be reached, or is none, is an error that says so, soon', async () => {
  const single = await startPrivateRedis();
  onTestFinished(single.stop);
  await Promise.all(
    [
      ['redis://127.0.0.1:1,redis://127.0.0.1:2', 'no node of the cluster answers'],
      [`${single.url},${single.url}`, 'cluster support disabled'],
    ].map(async ([urls = '', reason = '']) => {
      const refused = connect(urls).check('test');
      await expect(refused).rejects.toThrow(QueueStoreError);
      await expect(refused).rejects.toThrow(/^Redis cannot be reached \(REDIS_URL\)/);
      await expect(refused).rejects.toThrow(reason);
    }),
  );
});
