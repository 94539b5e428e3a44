// Leaves a Redis server that is not the master any more. Where a replica was promoted behind one address, standing
// connections stay on the demoted server, which still answers reads: only a new connection leads to the new master.
import { Cluster } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { turnedAway } from '../platform/store-failure.ts';
import type { RedisClient } from './redis.ts';

// A failover of one address takes about as long. Shorter than the time limit of a producer's command, which then fails
// with what Redis said, and not for its time.
const PATIENCE_MS = 3_000;

// All connections of the process are made anew at most so often.
const TOGETHER_EVERY_MS = 1_000;

/** What the connections of one process share. */
export type FailoverWatch = Readonly<{
  /** For the options of each connection. */
  reconnectOnError: NonNullable<RedisOptions['reconnectOnError']>;
  /** Has a connection made anew together with the others: one that only reads never hears of the failover itself. */
  include(client: RedisClient): void;
}>;

// What ioredis takes for an answer: connect anew and send the command again, connect anew and let it fail.
const RESEND = 2;
const FAIL = 1;

/** Watches the errors of a process's connections. A refused command did nothing, so it is safe to send again. */
export function watchForFailover(): FailoverWatch {
  const clients: RedisClient[] = [];
  let since = Number.NEGATIVE_INFINITY;
  let lastAt = Number.NEGATIVE_INFINITY;
  let togetherAt = Number.NEGATIVE_INFINITY;
  const reconnectAll = (now: number) => {
    if (now - togetherAt < TOGETHER_EVERY_MS) return;
    togetherAt = now;
    // One that is not ready is on its way already. ioredis's own Cluster follows its nodes by itself.
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
