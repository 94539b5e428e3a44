// Leaves a Redis server that is no longer the master. If a replica is promoted behind one address, existing connections
// stay on the demoted server, which still answers reads. Only a new connection reaches the new master.
import { Cluster } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { turnedAway } from '../platform/store-failure.ts';
import type { RedisClient } from './redis.ts';

// A failover behind one address takes about this long. It is shorter than the deadline of a producer's command, so that
// the command fails with Redis's error and not with a timeout.
const PATIENCE_MS = 3_000;

// Minimum interval between reconnecting all connections of the process.
const TOGETHER_EVERY_MS = 1_000;

/** The state that the connections of one process share. */
export type FailoverWatch = Readonly<{
  /** Pass this in the options of each connection. */
  reconnectOnError: NonNullable<RedisOptions['reconnectOnError']>;
  /** Reconnects this client together with the others. A connection that only reads never notices the failover itself. */
  include(client: RedisClient): void;
}>;

// Return values for ioredis: reconnect and resend the command, or reconnect and let it fail.
const RESEND = 2;
const FAIL = 1;

/** Watches the errors of a process's connections. A refused command had no effect, so it is safe to resend. */
export function watchForFailover(): FailoverWatch {
  const clients: RedisClient[] = [];
  let since = Number.NEGATIVE_INFINITY;
  let lastAt = Number.NEGATIVE_INFINITY;
  let togetherAt = Number.NEGATIVE_INFINITY;
  const reconnectAll = (now: number) => {
    if (now - togetherAt < TOGETHER_EVERY_MS) return;
    togetherAt = now;
    // A client that is not ready is already reconnecting. ioredis's Cluster follows its nodes by itself.
    for (const client of clients) if (!(client instanceof Cluster) && client.status === 'ready') client.disconnect(true);
  };
  return {
    reconnectOnError: ({ message }) => {
      if (!turnedAway.test(message)) return false;
      const now = performance.now();
      if (now - lastAt > PATIENCE_MS) since = now;
      lastAt = now;
      reconnectAll(now);
      return now - since < PATIENCE_MS ? RESEND : FAIL;
    },
    include: (client) => void clients.push(client),
  };
}
