// A private Redis Cluster: three servers that share the slots, each with a replica if the test needs a failover. It ends with the
// process that started it.

import { Redis } from 'ioredis';
import { z } from 'zod';
import { findFreePort, tryThrice } from './services-guarded.ts';
import { startPrivateRedis } from './services-redis-server.ts';
import type { PrivateRedis } from './services-redis-server.ts';
import { waitFor } from './wait-for.ts';

export type PrivateRedisCluster = {
  /** For REDIS_URL: the three masters, separated by commas. */
  readonly url: string;
  /** All servers; the first three were the masters at the start. */
  readonly servers: readonly PrivateRedis[];
  /** The server that holds the slot of a key now. */
  readonly holderOf: (key: string) => Promise<PrivateRedis>;
  /** Moves the slot of a key, with all that is in it, to another server, while clients use it: they meet ASK, then MOVED. */
  readonly moveSlot: (key: string, to: PrivateRedis) => Promise<void>;
  readonly stop: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

const textsSchema = z.array(z.string());

const MASTERS = 3;
const SLOTS = 16_384;
// Silence of a node, in milliseconds, after which it counts as dead.
const NODE_TIMEOUT_MS = 1_500;

/** Starts a cluster and returns when all of its nodes agree on it. */
export async function startPrivateRedisCluster(options: { withReplicas?: boolean } = {}): Promise<PrivateRedisCluster> {
  const servers = await Promise.all(Array.from({ length: options.withReplicas === true ? 2 * MASTERS : MASTERS }, startNode));
  const clients = servers.map(({ url }) => new Redis(url, { retryStrategy: () => 100, maxRetriesPerRequest: null }));
  for (const client of clients) client.on('error', () => undefined);
  const stop = async (): Promise<void> => {
    for (const client of clients) client.disconnect();
    await Promise.all(servers.map((server) => server.stop()));
  };
  const clientOf = (server: PrivateRedis): Redis => {
    const client = clients[servers.indexOf(server)];
    if (client === undefined) throw new Error('this server is not of this cluster');
    return client;
  };
  const holderOf = async (key: string): Promise<PrivateRedis> => {
    const slot = Number(await ask(clientOf(alive()), 'KEYSLOT', key));
    const nodes = String(await ask(clientOf(alive()), 'NODES')).split('\n');
    const held = nodes.find((line) => / (?:myself,)?master /.test(line) && holds(line, slot));
    const port = Number(/:(\d+)@/.exec(held ?? '')?.[1]);
    const found = servers.find((server) => server.port === port);
    if (found === undefined) throw new Error(`no node holds the slot of ${key}`);
    return found;
  };
  const alive = (): PrivateRedis => {
    const at = clients.findIndex(({ status }) => status === 'ready');
    const server = servers[at];
    if (server === undefined) throw new Error('no node of the cluster answers');
    return server;
  };
  try {
    await form(clients, servers);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: servers.slice(0, MASTERS).map(({ url }) => url).join(','),
    servers,
    holderOf,
    moveSlot: async (key, to) => {
      const from = await holderOf(key);
      const slot = Number(await ask(clientOf(from), 'KEYSLOT', key));
      await moveSlot(slot, { from: clientOf(from), to: clientOf(to), toPort: to.port, others: clients });
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function startNode(): Promise<PrivateRedis> {
  return tryThrice(async () =>
    startPrivateRedis({
      'cluster-enabled': 'yes',
      'cluster-config-file': 'nodes.conf',
      'cluster-node-timeout': String(NODE_TIMEOUT_MS),
      // The usual one, 10,000 above the port, may be beyond the last port.
      'cluster-port': String(await findFreePort()),
      // A replica takes over at once, and starts from what it has.
      'cluster-replica-validity-factor': '0',
      'repl-diskless-sync-delay': '0',
    }),
  );
}

function ask(client: Redis, ...command: readonly (string | number)[]): Promise<unknown> {
  return client.call('CLUSTER', ...command);
}

async function form(clients: readonly Redis[], servers: readonly PrivateRedis[]): Promise<void> {
  const masters = clients.slice(0, MASTERS);
  const [first] = clients;
  if (first === undefined) throw new Error('a cluster needs nodes');
  for (const [at, client] of clients.entries()) {
    await ask(client, 'SET-CONFIG-EPOCH', at + 1);
    if (at < MASTERS) await ask(client, 'ADDSLOTSRANGE', Math.floor((at * SLOTS) / MASTERS), Math.floor(((at + 1) * SLOTS) / MASTERS) - 1);
  }
  for (const [at, client] of clients.entries()) {
    const [, busPort = ''] = textsSchema.parse(await client.config('GET', 'cluster-port'));
    await ask(first, 'MEET', '127.0.0.1', servers[at]?.port ?? 0, busPort);
  }
  await untilAll(clients, `cluster_known_nodes:${clients.length}`);
  for (const [at, replica] of clients.slice(MASTERS).entries()) {
    const master = masters[at];
    if (master !== undefined) await ask(replica, 'REPLICATE', String(await ask(master, 'MYID')));
  }
  await untilAll(clients, 'cluster_state:ok');
  await waitFor(async () => (await Promise.all(clients.slice(MASTERS).map((replica) => replica.info('replication')))).every((info) => info.includes('master_link_status:up')), {
    what: 'the replicas to follow their masters',
  });
}

async function untilAll(clients: readonly Redis[], text: string): Promise<void> {
  await waitFor(async () => (await Promise.all(clients.map((client) => ask(client, 'INFO')))).every((info) => String(info).includes(text)), {
    what: `all nodes of the cluster to say ${text}`,
    everyMs: 50,
  });
}

/** Whether a line of CLUSTER NODES says that its node holds the slot. */
function holds(line: string, slot: number): boolean {
  const ranges = line.split(' ').slice(8);
  return ranges.some((range) => {
    const [from, to = from] = range.split('-').map(Number);
    return from !== undefined && to !== undefined && from <= slot && slot <= to;
  });
}

type Move = { readonly from: Redis; readonly to: Redis; readonly toPort: number; readonly others: readonly Redis[] };

async function moveSlot(slot: number, { from, to, toPort, others }: Move): Promise<void> {
  const fromId = String(await ask(from, 'MYID'));
  const toId = String(await ask(to, 'MYID'));
  await ask(to, 'SETSLOT', slot, 'IMPORTING', fromId);
  await ask(from, 'SETSLOT', slot, 'MIGRATING', toId);
  for (;;) {
    const keys = textsSchema.parse(await ask(from, 'GETKEYSINSLOT', slot, 5));
    if (keys.length === 0) break;
    await from.call('MIGRATE', '127.0.0.1', toPort, '', 0, 5_000, 'KEYS', ...keys);
  }
  for (const client of [to, from, ...others]) await ask(client, 'SETSLOT', slot, 'NODE', toId).catch(() => undefined);
}
