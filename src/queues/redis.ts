// Connections to Redis (one server, a Redis Cluster, or Sentinels), and the checks that jobs are safe there.
import { Cluster, Redis } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { ConfigError } from '../platform/config-error.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { RedisAddress } from '../platform/redis-url.ts';
import { requireVersion } from '../platform/server-version.ts';
import type { StoreMemory } from './queue-connection.ts';
import { QueueStoreError } from './queue-store-error.ts';
import { describeRedisFailure } from './redis-failure.ts';

/** A connection to one server, or the connections to the nodes of a Redis Cluster. */
export type RedisClient = Redis | Cluster;

// A fixed, short backoff: a fleet should reconnect within a second once Redis is back.
const retryStrategy = (times: number) => Math.min(times * 100, 1_000);

// A silent node must not prevent other nodes from reporting the slots.
const SLOTS_TIMEOUT_MS = 2_000;
const SENTINEL_TIMEOUT_MS = 2_000;

/**
 * Connects to the server, the Redis Cluster or the Sentinels' master that REDIS_URL names. Retries forever.
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
    // A cluster node names the current master with MOVED.
    redisOptions: { ...options, reconnectOnError: null },
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: SLOTS_TIMEOUT_MS,
    // A certificate is valid for a name, so TLS must see the nodes' names and not their resolved addresses.
    ...(isSecure ? { dnsLookup: (address: string, found: (error: null, address: string) => void) => found(null, address) } : {}),
  });
}

// Longer than the deadline of one command. A cluster client waits for its first node without a limit.
const CHECK_WITHIN_MS = 6_000;

/**
 * Checks that jobs are safe in Redis: on every node of a cluster, because any of them may hold the queues later. Also
 * checks that it accepts writes, which a replica does not.
 *
 * @returns the server's name and version, such as `Redis 7.2.4`; for a cluster, those of one node
 * @throws {QueueStoreError} if Redis is unreachable or accepts no writes
 * @throws {ConfigError} if Redis is too old, may evict jobs, or is a cluster node that the URL does not declare as one
 */
export async function checkRedis(client: RedisClient, prefix: string): Promise<string> {
  const infos = await ask(client, CHECK_WITHIN_MS, () => askNodes(client, prefix));
  for (const info of infos) {
    requireVersion('Redis', /^redis_version:(\S{1,50})/m.exec(info)?.[1] ?? '');
    const policy = evictionPolicyOf(info);
    if (policy === null) continue;
    throw new ConfigError(
      `Redis runs with maxmemory-policy ${policy}, under which it may throw jobs away. Set it to noeviction ` +
        '(CONFIG SET maxmemory-policy noeviction, and in redis.conf, on every node), or use another Redis for the queues.',
    );
  }
  if (!(client instanceof Cluster) && infos.some((info) => /^cluster_enabled:1/m.test(info))) {
    throw new ConfigError('REDIS_URL names one node of a Redis Cluster: name several of its nodes, separated by commas (you may name one address twice if it leads to all of them).');
  }
  await requireWrites(client, prefix);
  return serverOf(infos[0] ?? '');
}

/** Null: it never evicts. */
function evictionPolicyOf(info: string): string | null {
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? 'noeviction';
  return policy === 'noeviction' ? null : policy;
}

/** Valkey reports its own version and that of the Redis it is compatible with. */
function serverOf(info: string): string {
  const valkey = /^valkey_version:(\S{1,50})/m.exec(info)?.[1];
  return valkey === undefined ? `Redis ${/^redis_version:(\S{1,50})/m.exec(info)?.[1] ?? 'of an unknown version'}` : `Valkey ${valkey}`;
}

/**
 * Checks that Redis accepts writes. A replica answers reads too, so a read proves nothing.
 *
 * @throws {QueueStoreError} if Redis is unreachable or accepts no writes
 */
export async function requireWrites(client: RedisClient, prefix: string): Promise<void> {
  // The key does not exist. A Redis that is merely full accepts this command, and recovers by itself.
  await ask(client, CHECK_WITHIN_MS, () => client.del(`${prefix}:check`));
}

/**
 * Reads whether Redis has no room for jobs, and whether it may evict them. When it is full, it still answers, and takes deletions.
 *
 * @throws {QueueStoreError} if Redis is unreachable or accepts no writes for another reason
 */
export async function readRedisMemory(client: RedisClient, prefix: string): Promise<StoreMemory> {
  return ask(client, CHECK_WITHIN_MS, async () => {
    const isFull = await refusesJobs(client, prefix);
    // Its policy can be changed while it runs.
    const policies = (await infosOf(client, 'memory')).map(evictionPolicyOf);
    return { isFull, evictionPolicy: policies.find((policy) => policy !== null) ?? null };
  });
}

async function refusesJobs(client: RedisClient, prefix: string): Promise<boolean> {
  try {
    await client.set(`${prefix}:check`, '', 'PX', 1);
    return false;
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('OOM')) return true;
    throw error;
  }
}

/**
 * Claims the queues for a database. The first process writes the database's name next to them.
 *
 * @param owner name of the database that the jobs belong to
 * @returns whether nobody had claimed them
 * @throws {QueueStoreError} if Redis is unreachable or does not accept the claim
 * @throws {ConfigError} if the queues belong to another database: its workers would take our requests, and ours would
 *   take its
 */
export async function claimQueues(client: RedisClient, prefix: string, owner: string): Promise<boolean> {
  const key = `${prefix}:owner`;
  // A full Redis accepts no claim, but a process whose database already has the claim need not write one.
  const { before, found } = await ask(client, CHECK_WITHIN_MS, async () => {
    const claimed = await client.get(key);
    return { before: claimed, found: claimed ?? (await claim(client, key, owner)) };
  });
  if (found === owner || found === null) return before === null;
  throw new ConfigError(
    `The queues at REDIS_URL under QUEUE_PREFIX ${prefix} belong to another database (${found}; this one is ${owner}). ` +
      `Give each database a QUEUE_PREFIX of its own. Where the other one is gone for good: DEL ${key}`,
  );
}

async function claim(client: RedisClient, key: string, owner: string): Promise<string | null> {
  await client.set(key, owner, 'NX');
  return client.get(key);
}

// The events with which connections, including those to Sentinels, report errors.
const REPORTS = ['error', 'sentinelError'] as const;
const KEPT_REPORTS = 20;

/** Runs a command. If it fails, the error includes what the connection reported. */
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
  if (client instanceof Cluster) {
    // Asks the node that holds the queues' slot. The nodes are known once it has answered.
    await client.exists(`${prefix}:check`);
  } else {
    const { db = 0 } = client.options;
    // ioredis silently stays on database 0 if the selected database does not exist.
    if (db > 0) await client.select(db);
  }
  return infosOf(client);
}

/** A cluster must have answered before: then its nodes are known. */
async function infosOf(client: RedisClient, section = 'default'): Promise<string[]> {
  if (!(client instanceof Cluster)) return [await client.info(section)];
  const answers = await Promise.allSettled(client.nodes('all').map((node) => node.info(section)));
  // A node that is down holds nothing now.
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

/** Drops a connection. All commands are done, and an unanswered QUIT would keep the process alive. */
export function endRedis(client: RedisClient): void {
  client.disconnect();
}
