// Where the queues are: which store, and whether jobs can be kept there. It loads no BullMQ.
import { ConfigError } from '../platform/config-error.ts';
import { readDatabaseUrl } from '../platform/database-url.ts';
import type { RedisAddress } from '../platform/redis-url.ts';
import { RedisUrlError, readRedisNodes } from '../platform/redis-url.ts';
import { QueueStoreError } from './queue-store-error.ts';

/** How to reach the queues. */
export type QueueStore =
  /** `nodes`: URLs of one server, of the nodes of a Redis Cluster, or one URL of Sentinels. */
  | Readonly<{ kind: 'redis'; nodes: readonly string[]; prefix: string }>
  | Readonly<{
      kind: 'postgres';
      databaseUrl: string;
      /** Connections that a process may hold for its queues; 20 when left out. A worker holds one of them for each queue. */
      poolMax?: number;
    }>;

/**
 * Chooses the store from the configuration: Redis where it is configured, else Postgres.
 *
 * @throws {ConfigError} when jobs cannot be kept there
 */
export function queueStoreOf(config: { redisNodes: readonly string[] | null; queuePrefix: string; databaseUrl: string | null; databasePoolMax?: number }): QueueStore {
  if (config.redisNodes !== null) return usable({ kind: 'redis', nodes: config.redisNodes, prefix: config.queuePrefix });
  if (config.databaseUrl === null) throw new QueueStoreError('neither REDIS_URL nor DATABASE_URL is set');
  const { databaseUrl, databasePoolMax: poolMax } = config;
  return usable({ kind: 'postgres', databaseUrl, ...(poolMax === undefined ? {} : { poolMax }) });
}

/**
 * Checks what can be checked of a store without reaching it, and returns it.
 *
 * @throws {ConfigError} when jobs cannot be kept there
 */
export function usable(store: QueueStore): QueueStore {
  if (store.kind === 'postgres' && readDatabaseUrl(store.databaseUrl).isPooled === true) {
    throw new ConfigError(
      'DATABASE_URL: queues in Postgres need LISTEN, which a pooler in transaction mode does not pass on; ' +
        'set REDIS_URL, or a DATABASE_URL that leads to Postgres itself, without pgbouncer=true',
    );
  }
  // A script that moves a job between the lists of its queue can run on one node only.
  if (store.kind === 'redis' && addressOf(store).kind === 'cluster' && !/\{[^}]+\}/.test(store.prefix)) {
    throw new ConfigError('QUEUE_PREFIX: expected a part in braces, such as {arcadia}: it keeps the keys of a queue on one node of the Redis Cluster');
  }
  return store;
}

/** @throws {ConfigError} naming what is wrong with REDIS_URL */
export function addressOf({ nodes }: Extract<QueueStore, { kind: 'redis' }>): RedisAddress {
  try {
    return readRedisNodes(nodes);
  } catch (error) {
    if (error instanceof RedisUrlError) throw new ConfigError(`REDIS_URL: ${error.message}`);
    throw error;
  }
}
