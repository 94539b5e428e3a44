import { Redis } from 'ioredis';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { withDeadline } from '../../src/platform/deadline.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { migrateQueues, openQueueConnection, queueStoreOf, QueueStoreError } from '../../src/queues/connection.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { runAsAdmin } from '../support/admin-connection.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { patience } from '../support/patience.ts';
import { waitFor } from '../support/wait-for.ts';

const prefix = '{test}';

describe('queueStoreOf', () => {
  test('takes Redis where it is configured, else Postgres', () => {
    const databaseUrl = 'postgres://db/arcadia';
    expect(queueStoreOf({ redisNodes: ['redis://one'], queuePrefix: '{x}', databaseUrl })).toEqual({ kind: 'redis', nodes: ['redis://one'], prefix: '{x}' });
    expect(queueStoreOf({ redisNodes: null, queuePrefix: '{x}', databaseUrl })).toEqual({ kind: 'postgres', databaseUrl });
    expect(() => queueStoreOf({ redisNodes: null, queuePrefix: '{x}', databaseUrl: null })).toThrow(QueueStoreError);
  });
});

describe('check', () => {
  test('accepts the Redis and the Postgres of the tests', async () => {
    await using database = await createEngineDatabase();
    for (const store of [{ kind: 'redis', nodes: createTestRedis().nodes, prefix }, { kind: 'postgres', databaseUrl: database.directUrl }] as const) {
      const connection = openQueueConnection(store, silentLog);
      await expect(connection.check('test')).resolves.toBeUndefined();
      await connection.close();
    }
  });

  test('refuses a Redis that may evict jobs, naming the policy and what to set', async () => {
    const redis = await startPrivateRedis({ 'maxmemory-policy': 'allkeys-lru' });
    const connection = openQueueConnection({ kind: 'redis', nodes: [redis.url], prefix }, silentLog);
    const admin = new Redis(redis.url);
    try {
      const refused = connection.check('test');
      await expect(refused).rejects.toThrow(ConfigError);
      await expect(refused).rejects.toThrow(/maxmemory-policy allkeys-lru.*Set it to noeviction/);
      await admin.config('SET', 'maxmemory-policy', 'volatile-ttl');
      await expect(connection.check('test')).rejects.toThrow('volatile-ttl');
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      await expect(connection.check('test')).resolves.toBeUndefined();
    } finally {
      admin.disconnect();
      await connection.close();
      await redis.stop();
    }
  });

  test.each([
    [{ kind: 'redis', nodes: ['redis://:hunter2@127.0.0.1:1'], prefix }, 'REDIS_URL'],
    [{ kind: 'postgres', databaseUrl: 'postgres://arcadia:hunter2@127.0.0.1:1/arcadia' }, 'DATABASE_URL'],
  ] as const)('says of a store that cannot be reached which variable names it, without its password: %j', async (store, variable) => {
    const connection = openQueueConnection(store, silentLog);
    try {
      const refused = connection.check('test');
      await expect(refused).rejects.toThrow(QueueStoreError);
      await expect(refused).rejects.toThrow(`cannot be reached (${variable})`);
      await expect(refused).rejects.not.toThrow('hunter2');
    } finally {
      await connection.close();
    }
  });
});

describe('a producer', () => {
  test('fails soon while Redis is away, and works again when it is back', async () => {
    const redis = await startPrivateRedis();
    const connection = openQueueConnection({ kind: 'redis', nodes: [redis.url], prefix }, silentLog);
    const queues = openStepQueues(connection, directIo);
    const job = { sagaId: 'a2b0a3a6-0b54-4f39-9a71-1f4a7f4ae1d5', revision: 0, direction: 'forward', step: 'one', position: 1, of: 1, attempt: 1, saga: { name: 'fake', input: {}, context: {} }, traceparent: null, delayMs: 0 } as const;
    try {
      await queues.enqueue(job);
      await redis.kill();
      const since = performance.now();
      await expect(queues.enqueue(job)).rejects.toThrow(/connect|max retries|closed|timed out/i);
      expect(performance.now() - since).toBeLessThan(8_000 * patience());
      await redis.restart();
      // The server came back empty.
      expect(await queues.ensure(job)).toBeNull();
      expect(await queues.ensure(job)).toEqual({});
    } finally {
      await queues.close();
      await connection.close();
      await redis.stop();
    }
  });

  test('does not hang on a Redis that has stopped answering', async () => {
    const redis = await startPrivateRedis();
    const connection = openQueueConnection({ kind: 'redis', nodes: [redis.url], prefix }, silentLog);
    try {
      await connection.check('test');
      redis.pause();
      await expect(connection.check('test')).rejects.toThrow(QueueStoreError);
    } finally {
      redis.resume();
      await connection.close();
      await redis.stop();
    }
  });
});

describe('a queue in Postgres with connections of its own', () => {
  test.each([
    ['is served while the workers of others use up the connections', { poolMax: 12, others: 12, held: 8 }],
    ['takes part in those of all, where there are few', { poolMax: 11, others: 8, held: 8 }],
  ])('%s, and the pool stays as small as it has to', async (_what, { poolMax, others, held }) => {
    await using database = await createEngineDatabase();
    const connection = openQueueConnection({ kind: 'postgres', databaseUrl: database.directUrl, poolMax }, silentLog, { apart: queueNames.outcomes });
    // Each keeps a connection for LISTEN, if it gets one.
    const workers = Array.from({ length: others }, (_, index) => connection.worker(`other-${index}`, () => Promise.resolve(), {}));
    const count = async () => (await runAsAdmin(database.directUrl, `select 1 from pg_stat_activity where application_name <> 'test' and datname = current_database()`)).length;
    try {
      await waitFor(async () => (await count()) >= held, { what: 'the others to hold connections' });
      await withDeadline(10_000 * patience(), connection.queue(queueNames.outcomes).add('one', {}), () => new Error('the queue was not served'));
      expect(await count()).toBeLessThanOrEqual(poolMax);
    } finally {
      await Promise.allSettled(workers.map((worker) => worker.close(true)));
      await connection.close();
    }
  });
});

describe('migrateQueues', () => {
  test('may be run twice, or by several processes at once', async () => {
    await using database = await createTestDatabase();
    const store = { kind: 'postgres', databaseUrl: database.directUrl } as const;
    await Promise.all(Array.from({ length: 4 }, () => migrateQueues(store)));
    await expect(migrateQueues(store)).resolves.toBeUndefined();
  });

  test('has nothing to do for Redis', async () => {
    await expect(migrateQueues({ kind: 'redis', nodes: ['redis://127.0.0.1:1'], prefix })).resolves.toBeUndefined();
  });
});
