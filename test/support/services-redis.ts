// Redis for one test: its own key prefix on the run's server or Redis Cluster. A test that flushes, kills or pauses Redis starts
// its own server: startPrivateRedis in services-redis-server.ts.

import { randomBytes } from 'node:crypto';
import { Cluster, Redis } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { inject } from 'vitest';

export type TestRedis = {
  /** As REDIS_URL. */
  readonly url: string;
  /** The same, node by node. */
  readonly nodes: readonly string[];
  /** For QUEUE_PREFIX: a hash tag that no other test has. */
  readonly prefix: string;
  /** Deletes all keys under the prefix. */
  readonly drop: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Makes a place of one's own on the run's Redis. */
export function createTestRedis(): TestRedis {
  const { redisUrl } = inject('services');
  const prefix = `{test-${randomBytes(6).toString('hex')}}`;
  const drop = (): Promise<void> => deleteKeys(redisUrl, prefix);
  return { url: redisUrl, nodes: redisUrl.split(','), prefix, drop, [Symbol.asyncDispose]: drop };
}

/** Connects to what a REDIS_URL names, as anybody else would. */
export function connectTestRedis(url: string, options: RedisOptions = {}): Redis | Cluster {
  const nodes = url.split(',');
  return nodes.length > 1 ? new Cluster(nodes, { redisOptions: options }) : new Redis(url, options);
}

async function deleteKeys(url: string, prefix: string): Promise<void> {
  await Promise.all(url.split(',').map((node) => deleteKeysOf(node, prefix)));
}

async function deleteKeysOf(node: string, prefix: string): Promise<void> {
  const redis = new Redis(node);
  try {
    let cursor = '0';
    do {
      const [next, keys] = await redis.scan(cursor, 'MATCH', `${prefix}*`, 'COUNT', 1000);
      cursor = next;
      if (keys.length > 0) await redis.unlink(...keys);
    } while (cursor !== '0');
  } finally {
    redis.disconnect();
  }
}
