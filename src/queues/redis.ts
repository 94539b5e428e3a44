// Connections to Redis (one server, a Redis Cluster, or Sentinels), and whether it can be trusted with jobs.
import { Cluster, Redis } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { ConfigError } from '../platform/config.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { RedisAddress } from '../platform/redis-url.ts';
import { requireVersion } from '../platform/server-version.ts';
import { QueueStoreError } from './queue-store-error.ts';
import { describeRedisFailure } from './redis-failure.ts';

/** A connection to one server, or those to the nodes of a Redis Cluster. */
export type RedisClient = Redis | Cluster;

// A fixed, short back-off: a fleet should be back within a second of Redis's return.
const retryStrategy = (times: number) => Math.min(times * 100, 1_000);

// A node that is silent must not keep the others from saying where the slots are now.
const SLOTS_TIMEOUT_MS = 2_000;
const SENTINEL_TIMEOUT_MS = 2_000;

/**
 * Connects to what REDIS_URL names: one server, a Redis Cluster, or the master that Sentinels know. Tries again for ever.
 *
 * @param address from `readRedisNodes`
 */
export function connectRedis(address: RedisAddress, options: RedisOptions): RedisClient {
  const { kind, hosts, isSecure, sentinel } = address;
  const [first] = hosts;
  const common: RedisOptions = {
    ...options,
    retryStrategy,
    connectTimeout: 5_000,
    keepAlive: 10_000,
    family: address.family,
    ...(address.username === null ? {} : { username: address.username }),
    ...(address.password === null ? {} : { password: address.password }),
    ...(isSecure ? { tls: {} } : {}),
  };
  if (kind === 'cluster') return connectCluster(address, common);
  if (sentinel === null) return new Redis({ ...common, ...first, db: address.database });
  return new Redis({
    ...common,
    db: address.database,
    sentinels: hosts.map((host) => ({ ...host, family: address.family })),
    name: sentinel.master,
    sentinelRetryStrategy: retryStrategy,
    sentinelCommandTimeout: SENTINEL_TIMEOUT_MS,
    ...(sentinel.username === null ? {} : { sentinelUsername: sentinel.username }),
    ...(sentinel.password === null ? {} : { sentinelPassword: sentinel.password }),
    ...(isSecure ? { sentinelTLS: {}, enableTLSForSentinelMode: true } : {}),
  });
}

function connectCluster({ hosts, isSecure }: RedisAddress, options: RedisOptions): Cluster {
  return new Cluster([...hosts], {
    // A node of a cluster says by MOVED who is the master now.
    redisOptions: { ...options, reconnectOnError: null },
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: SLOTS_TIMEOUT_MS,
    // A certificate is for a name: the nodes' names must not be resolved before TLS sees them.
    ...(isSecure ? { dnsLookup: (address: string, found: (error: null, address: string) => void) => found(null, address) } : {}),
  });
}

// Longer than what one command may take. A cluster client waits without a limit for a first node to answer.
const CHECK_WITHIN_MS = 6_000;

/**
 * Checks that Redis can be trusted with jobs: every node of a cluster, as any of them may hold the queues tomorrow; and
 * that it takes writes, as a replica does not.
 *
 * @throws {QueueStoreError} when it can't be reached, or takes no writes
 * @throws {ConfigError} when it is too old, may evict jobs, or is a cluster's node and was not named as one
 */
export async function checkRedis(client: RedisClient, prefix: string): Promise<void> {
  const infos = await ask(client, CHECK_WITHIN_MS, () => askNodes(client, prefix));
  for (const info of infos) {
    requireVersion('Redis', /^redis_version:(\S{1,50})/m.exec(info)?.[1] ?? '');
    const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? 'noeviction';
    if (policy === 'noeviction') continue;
    throw new ConfigError(
      `Redis runs with maxmemory-policy ${policy}, under which it may throw jobs away. Set it to noeviction ` +
        '(CONFIG SET maxmemory-policy noeviction, and in redis.conf, on every node), or use another Redis for the queues.',
    );
  }
  if (!(client instanceof Cluster) && infos.some((info) => /^cluster_enabled:1/m.test(info))) {
    throw new ConfigError('REDIS_URL names one node of a Redis Cluster: name several of its nodes, separated by commas (an address that leads to all of them may stand there twice).');
  }
  await requireWrites(client, prefix);
}

/**
 * Checks that Redis takes writes. A replica answers reads just as well, so a read proves nothing.
 *
 * @throws {QueueStoreError} when it can't be reached, or takes no writes
 */
export async function requireWrites(client: RedisClient, prefix: string): Promise<void> {
  // Nothing is there to delete. A Redis that is merely full carries it out: it takes up work again by itself.
  await ask(client, CHECK_WITHIN_MS, () => client.del(`${prefix}:check`));
}

/**
 * Claims the queues for a database: whoever comes first writes its name beside them.
 *
 * @param owner name of the database that the jobs are about
 * @throws {QueueStoreError} when Redis can't be reached, or takes no claim
 * @throws {ConfigError} when they are another's: its workers would take our requests, and ours would take its
 */
export async function claimQueues(client: RedisClient, prefix: string, owner: string): Promise<void> {
  const key = `${prefix}:owner`;
  // A Redis that is full takes no claim: a process whose claim stands does not need to write one.
  const found = await ask(client, CHECK_WITHIN_MS, async () => (await client.get(key)) ?? claim(client, key, owner));
  if (found === owner || found === null) return;
  throw new ConfigError(
    `The queues at REDIS_URL under QUEUE_PREFIX ${prefix} belong to another database (${found}; this one is ${owner}). ` +
      `Give each database a QUEUE_PREFIX of its own. Where the other one is gone for good: DEL ${key}`,
  );
}

async function claim(client: RedisClient, key: string, owner: string): Promise<string | null> {
  await client.set(key, owner, 'NX');
  return client.get(key);
}

// Where connections, and those to Sentinels, say what is wrong.
const REPORTS = ['error', 'sentinelError'] as const;
const KEPT_REPORTS = 20;

/** Asks Redis, and says what its connection complained of where there is no answer. */
async function ask<T>(client: RedisClient, withinMs: number, question: () => Promise<T>): Promise<T> {
  const reported: unknown[] = [];
  const note = (error: unknown) => {
    reported.push(error);
    if (reported.length > KEPT_REPORTS) reported.shift();
  };
  for (const event of REPORTS) client.on(event, note);
  try {
    return await withDeadline(withinMs, question(), () => new Error(`no answer within ${withinMs} ms`));
  } catch (error) {
    throw new QueueStoreError(describeRedisFailure(error, reported));
  } finally {
    for (const event of REPORTS) client.off(event, note);
  }
}

async function askNodes(client: RedisClient, prefix: string): Promise<string[]> {
  if (!(client instanceof Cluster)) {
    const { db = 0 } = client.options;
    // ioredis goes on with database 0 where there is no other of this number.
    if (db > 0) await client.select(db);
    return [await client.info()];
  }
  // Asks the node that holds the queues' slot; the nodes are known once there is an answer.
  await client.exists(`${prefix}:check`);
  const answers = await Promise.allSettled(client.nodes('all').map((node) => node.info()));
  // A node that is down holds nothing now.
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

/** Drops a connection: a QUIT that nobody answers would hold the process, and all commands are done. */
export function endRedis(client: RedisClient): void {
  client.disconnect();
}
