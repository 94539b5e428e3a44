// Queues and workers in Redis.
import { setImmediate } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import type { Log } from '../platform/log.ts';
import { listening, troubleLog, workerTroubleLog } from './connection-trouble.ts';
import { countLoops } from './job-loops.ts';
import type { QueueConnection } from './queue-connection.ts';
import { addressOf } from './queue-store.ts';
import type { QueueStore } from './queue-store.ts';
import type { RedisClient } from './redis.ts';
import { checkRedis, claimQueues, connectRedis, endRedis, readRedisMemory, requireWrites } from './redis.ts';
import { watchForFailover } from './redis-failover.ts';
import { createScriptRunner } from './redis-scripts.ts';
import { traced } from './telemetry.ts';
import { withTimeLimit } from './time-limit.ts';

// If the other end of a connection disappears silently, TCP waits a quarter of an hour before it gives up. A worker's
// blocking command gets a reply within 10 s.
const CONSUMER_SILENCE_MS = 15_000;

/** Opens queues and workers in Redis: see `openQueueConnection`. */
export function openRedisConnection(store: Extract<QueueStore, { kind: 'redis' }>, log: Log): QueueConnection {
  const warn = troubleLog(log, 'redis: connection trouble');
  // Producers fail fast, so that no `add` hangs while Redis is unreachable. Workers retry forever, as BullMQ requires.
  const failover = watchForFailover();
  const connect = (options: RedisOptions): RedisClient => {
    const client = connectRedis(addressOf(store), { ...options, reconnectOnError: failover.reconnectOnError });
    failover.include(client);
    client.on('error', warn);
    return client;
  };
  const producer = connect({ maxRetriesPerRequest: 1, enableOfflineQueue: true, commandTimeout: 5_000, socketTimeout: 5_000 });
  const consumers = new Map<Worker, RedisClient>();
  const loops = countLoops();
  return {
    store,
    queue: (name) => listening(new Queue(name, { connection: producer, prefix: store.prefix, ...traced() }), warn),
    worker: (name, processor, options) => {
      const consumer = connect({ maxRetriesPerRequest: null, socketTimeout: CONSUMER_SILENCE_MS });
      const worker = listening(new Worker(name, loops.counted(name, processor, options), { ...options, connection: consumer, prefix: store.prefix, ...traced() }), workerTroubleLog(log, name, warn));
      consumers.set(worker, consumer);
      return worker;
    },
    laneOf: (worker) => {
      const consumer = consumers.get(worker);
      if (consumer === undefined) return null;
      return {
        queue: (name) => listening(new Queue(name, { connection: consumer, prefix: store.prefix, ...traced() }), warn),
        // On a live connection, BullMQ has written a command by the end of the event-loop turn that issued it.
        sent: () => setImmediate(),
      };
    },
    runScript: createScriptRunner(producer),
    loops: loops.all,
    readTables: null,
    readOwner: () => withTimeLimit('owner of the queues', () => producer.get(`${store.prefix}:owner`)),
    inspect: () => checkRedis(producer, store.prefix),
    check: async (owner) => {
      await checkRedis(producer, store.prefix);
      await claimQueues(producer, store.prefix, owner);
    },
    claim: (owner) => claimQueues(producer, store.prefix, owner),
    requireWrites: () => requireWrites(producer, store.prefix),
    memory: () => readRedisMemory(producer, store.prefix),
    close: () => {
      for (const client of [producer, ...consumers.values()]) endRedis(client);
      return Promise.resolve();
    },
  };
}
