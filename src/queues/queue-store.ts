// Selects the queue store and checks that it can hold jobs. Loads no BullMQ.
import { ConfigError } from '../platform/config-error.ts';
import { readDatabaseUrl } from '../platform/database-url.ts';
import type { RedisAddress } from '../platform/redis-url.ts';
import { RedisUrlError, readRedisNodes } from '../platform/redis-url.ts';
import { QueueStoreError } from './queue-store-error.ts';

/** The address of the queues. */
export type QueueStore =
  /** `nodes`: the URL of one server, the URLs of a Redis Cluster's nodes, or one URL of Sentinels. */
  | Readonly<{ kind: 'redis'; nodes: readonly string[]; prefix: string }>
  | Readonly<{
      kind: 'postgres';
      databaseUrl: string;
      /** Maximum number of connections per process for its queues; default 20. A worker holds one of them per queue. */
      poolMax?: number;
    }>;

/** Where a process has its queues, without an address. `prefix` null: in Postgres. */
export type QueuePlace = Readonly<{ kind: QueueStore['kind']; prefix: string | null }>;

/** Describes the store, without anything secret. */
export function placeOf(store: QueueStore): QueuePlace {
  return { kind: store.kind, prefix: store.kind === 'redis' ? store.prefix : null };
}

/**
 * Selects the store from the configuration: Redis if configured, else Postgres.
 *
 * @throws {ConfigError} if the store cannot hold jobs
 */
export function queueStoreOf(config: { redisNodes: readonly string[] | null; queuePrefix: string; databaseUrl: string | null; databasePoolMax?: number }): QueueStore {
  if (config.redisNodes !== null) return usable({ kind: 'redis', nodes: config.redisNodes, prefix: config.queuePrefix });
  if (config.databaseUrl === null) throw new QueueStoreError('neither REDIS_URL nor DATABASE_URL is set');
  const { databaseUrl, databasePoolMax: poolMax } = config;
  return usable({ kind: 'postgres', databaseUrl, ...(poolMax === undefined ? {} : { poolMax }) });
}

/**
 * Checks a store as far as possible without connecting, and returns it.
 *
 * @throws {ConfigError} if the store cannot hold jobs
 */
export function usable(store: QueueStore): QueueStore {
  if (store.kind === 'postgres' && readDatabaseUrl(store.databaseUrl).isPooled === true) {
    throw new ConfigError(
      'DATABASE_URL: queues in Postgres need LISTEN, which a pooler in transaction mode does not pass on; ' +
        'set REDIS_URL, or a DATABASE_URL that leads to Postgres itself, without pgbouncer=true',
    );
  }
  // A script that moves a job between a queue's lists can only run on one node.
  if (store.kind === 'redis' && addressOf(store).kind === 'cluster' && !/\{[^}]+\}/.test(store.prefix)) {
    throw new ConfigError('QUEUE_PREFIX: expected a part in braces, such as {arcadia}: it keeps the keys of a queue on one node of the Redis Cluster');
  }
  return store;
}

/**
 * @throws {ConfigError} naming the problem with REDIS_URL
 */
export function addressOf({ nodes }: Extract<QueueStore, { kind: 'redis' }>): RedisAddress {
  try {
    return readRedisNodes(nodes);
  } catch (error) {
    if (error instanceof RedisUrlError) throw new ConfigError(`REDIS_URL: ${error.message}`);
    throw error;
  }
}
