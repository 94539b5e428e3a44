// Connections to Redis, one server or a Redis Cluster, and whether it can be trusted with jobs.
import { Cluster, Redis } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { ConfigError } from '../config.ts';
import { withDeadline } from '../deadline.ts';
import { QueueStoreError } from './queue-store-error.ts';

/** A connection to one server, or those to the nodes of a Redis Cluster. */
export type RedisClient = Redis | Cluster;

// A fixed, short back-off: a fleet should be back within a second of Redis's return.
const retryStrategy = (times: number) => Math.min(times * 100, 1_000);

// A node that is silent must not keep the others from saying where the slots are now.
const SLOTS_TIMEOUT_MS = 2_000;

/** Connects to one server, or to a Redis Cluster where several nodes are named. Tries again for ever. */
export function connectRedis(nodes: readonly string[], options: RedisOptions): RedisClient {
  const common: RedisOptions = { ...options, retryStrategy, connectTimeout: 5_000, keepAlive: 10_000 };
  const [first] = nodes;
  if (first === undefined) throw new QueueStoreError('REDIS_URL names no node');
  if (nodes.length === 1) return new Redis(first, common);
  const url = new URL(first);
  const isSecure = url.protocol === 'rediss:';
  const redisOptions: RedisOptions = {
    ...common,
    ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
    ...(isSecure ? { tls: {} } : {}),
  };
  return new Cluster([...nodes], {
    redisOptions,
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: SLOTS_TIMEOUT_MS,
    // A certificate is for a name: the nodes' names must not be resolved before TLS sees them.
    ...(isSecure ? { dnsLookup: (address: string, found: (error: null, address: string) => void) => found(null, address) } : {}),
  });
}

// Longer than what one command may take. A cluster client waits without a limit for a first node to answer.
const CHECK_WITHIN_MS = 6_000;

/**
 * Checks that Redis can be trusted with jobs: every node of a cluster, as any of them may hold the queues tomorrow.
 *
 * @throws {QueueStoreError} when it can't be reached
 * @throws {ConfigError} when it may evict jobs, or is a cluster's node and was not named as one
 */
export async function checkRedis(client: RedisClient, prefix: string): Promise<void> {
  const infos = await readInfos(client, prefix);
  for (const info of infos) {
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
  let found: string | null;
  try {
    // A Redis that is full, or read-only for a moment, lets nobody write: who has the claim need not.
    found = (await client.get(key)) ?? (await claim(client, key, owner));
  } catch (error) {
    throw new QueueStoreError(`Redis does not say whose its queues are (REDIS_URL): ${error instanceof Error ? error.message : String(error)}`);
  }
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

async function readInfos(client: RedisClient, prefix: string): Promise<string[]> {
  let last: unknown;
  const note = (error: unknown) => {
    last = error;
  };
  client.on('error', note);
  try {
    return await withDeadline(CHECK_WITHIN_MS, askNodes(client, prefix), () => new Error(`no answer within ${CHECK_WITHIN_MS} ms${reasonOf(last)}`));
  } catch (error) {
    throw new QueueStoreError(`Redis cannot be reached (REDIS_URL): ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    client.off('error', note);
  }
}

async function askNodes(client: RedisClient, prefix: string): Promise<string[]> {
  if (!(client instanceof Cluster)) return [await client.info()];
  // Asks the node that holds the queues' slot; the nodes are known once there is an answer.
  await client.exists(`${prefix}:check`);
  const answers = await Promise.allSettled(client.nodes('all').map((node) => node.info()));
  // A node that is down holds nothing now.
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

/** Why no node of a cluster could be used: ioredis's own error only says that it was so. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  const cause = 'lastNodeError' in error && error.lastNodeError instanceof Error ? error.lastNodeError : error;
  return `: ${cause.message}`;
}

/** Drops a connection: a QUIT that nobody answers would hold the process, and all commands are done. */
export function endRedis(client: RedisClient): void {
  client.disconnect();
}
