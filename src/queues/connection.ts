// Where BullMQ keeps its jobs: Redis, or Postgres where no Redis is configured. The rest of src/queues asks this for
// queues and workers, and does not care which it is.
import { EventEmitter } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { Queue, Worker, createPostgresBackend, runMigrations, withBackend } from 'bullmq';
import type { Processor, WorkerOptions } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import { Pool } from 'pg';
import { SESSION_SQL, requireSession } from '../platform/check-session.ts';
import type { FoundSetting } from '../platform/check-session.ts';
import { ConfigError } from '../platform/config-error.ts';
import { createsSchema, ensureSchema } from '../platform/create-schema.ts';
import { explainConnectionError } from '../platform/database-tls.ts';
import { readDatabaseUrl } from '../platform/database-url.ts';
import { IDLE_MS } from '../platform/db.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { Log } from '../platform/log.ts';
import { describePostgresFailure } from '../platform/postgres-failure.ts';
import type { RunRedisScript } from '../platform/redis-script.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import { pgOptions } from './pg-options.ts';
import { addressOf, usable } from './queue-store.ts';
import type { QueueStore } from './queue-store.ts';
import { QueueStoreError } from './queue-store-error.ts';
import type { RedisClient } from './redis.ts';
import { checkRedis, claimQueues, connectRedis, endRedis, requireWrites } from './redis.ts';
import { watchForFailover } from './redis-failover.ts';
import { createScriptRunner } from './redis-scripts.ts';
import { traced } from './telemetry.ts';

/** BullMQ's options of a worker, but for where its jobs are. */
type WorkerSettingsOfBullMq = Omit<WorkerOptions, 'connection' | 'prefix'>;

/** What the worker of one queue is at. */
export type JobLoop = Readonly<{
  queueName: string;
  concurrency: number;
  /** Jobs that it was handed so far. */
  handed: number;
  /** Jobs that it is running now. */
  running: number;
}>;

/** Queues on a worker's own connection: what is added there reaches the store ahead of what the worker says afterwards. */
export type Lane = Readonly<{
  queue(name: string): Queue;
  /** Resolves when what was added so far is on its way. */
  sent(): Promise<void>;
}>;

/** Makes queues and workers on one store. */
export type QueueConnection = Readonly<{
  store: QueueStore;
  queue(name: string): Queue;
  worker(name: string, processor: Processor, options: WorkerSettingsOfBullMq): Worker;
  /** The lane of a worker that was made here; null where the store keeps no order between two statements (Postgres). */
  laneOf(worker: Worker): Lane | null;
  /** Runs Lua scripts in the store; null where it is not Redis. */
  runScript: RunRedisScript | null;
  /** The workers made so far. */
  loops(): readonly JobLoop[];
  /**
   * Checks that the store can be trusted with jobs, and that the queues in it are this database's.
   *
   * @param owner name of the database that the jobs are about
   * @throws {QueueStoreError} when it can't be reached
   * @throws {ConfigError} when it may evict jobs, or the queues are another's
   */
  check(owner: string): Promise<void>;
  /**
   * Checks that the store takes writes now.
   *
   * @throws {QueueStoreError} when it can't be reached, or can only be read
   */
  requireWrites(): Promise<void>;
  /** Closes the shared connections; the queues and workers must have been closed before. */
  close(): Promise<void>;
}>;

export { queueStoreOf } from './queue-store.ts';
export type { QueueStore } from './queue-store.ts';
export { QueueStoreError } from './queue-store-error.ts';

const { Queue: PostgresQueue, Worker: PostgresWorker } = withBackend(createPostgresBackend);

const POOL_MAX = 20;

// A statement that nobody waits for any more need not go on.
const STATEMENT_TIMEOUT_MS = 10_000;

/** BullMQ's tables live in their own schema, beside `arcadia`. */
const POSTGRES_SCHEMA = 'bullmq';

/**
 * Opens a connection to the store. Whether it can be reached is not checked yet: see {@link QueueConnection.check}.
 *
 * @param options.idleMs how long a connection to Postgres may be idle before it is closed, in milliseconds
 * @throws {ConfigError} when jobs cannot be kept there
 */
export function openQueueConnection(given: QueueStore, log: Log, { idleMs = IDLE_MS } = {}): QueueConnection {
  const store = usable(given);
  return store.kind === 'redis' ? openRedis(store, log) : openPostgres(store, log, idleMs);
}

/** Both kinds of pool that reach BullMQ's tables. */
function queueOptions({ databaseUrl }: Extract<QueueStore, { kind: 'postgres' }>, applicationName: string, statementTimeoutMs: number) {
  return pgOptions(readDatabaseUrl(databaseUrl), { applicationName, statementTimeoutMs }, { search_path: POSTGRES_SCHEMA });
}

/** Brings BullMQ's own tables up to date, where it runs on Postgres. Safe to run twice or at once. */
export async function migrateQueues(store: QueueStore): Promise<void> {
  if (store.kind !== 'postgres') return;
  // Migrations may take longer than an ordinary statement.
  const pool = new Pool({ ...queueOptions(store, 'arcadia-migrate', 0), max: 1 });
  // A server that goes away while the pool closes reports it on the pool and on the client, and without a listener that
  // would end the process. What matters is whether the migrations were run.
  pool.on('error', () => undefined);
  const client = await pool.connect().catch((error: unknown) => {
    throw explainConnectionError(error);
  });
  client.on('error', () => undefined);
  try {
    await ensureSchema(POSTGRES_SCHEMA, async (sql) => (await client.query(sql)).rows);
    await runMigrations({ query: (text, values) => (createsSchema(text) ? Promise.resolve({ rows: [] }) : client.query<never>(text, [...(values ?? [])])) }, POSTGRES_SCHEMA);
  } finally {
    client.release();
    await pool.end();
  }
}

function openRedis(store: Extract<QueueStore, { kind: 'redis' }>, log: Log): QueueConnection {
  const warn = onceInAWhile(QUIET_MS, (error: Error) => log[levelOf(error)]({ reason: error.message }, 'redis: connection trouble'));
  // Producers fail fast, so that nothing hangs on an `add` while Redis is away; workers retry for ever, as BullMQ asks.
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
      const worker = listening(new Worker(name, loops.counted(name, processor, options), { ...options, connection: consumer, prefix: store.prefix, ...traced() }), warn);
      consumers.set(worker, consumer);
      return worker;
    },
    laneOf: (worker) => {
      const consumer = consumers.get(worker);
      if (consumer === undefined) return null;
      return {
        queue: (name) => listening(new Queue(name, { connection: consumer, prefix: store.prefix, ...traced() }), warn),
        // BullMQ has written a command by the end of the turn in which it was asked to, where the connection stands.
        sent: () => setImmediate(),
      };
    },
    runScript: createScriptRunner(producer),
    loops: loops.all,
    check: async (owner) => {
      await checkRedis(producer, store.prefix);
      await claimQueues(producer, store.prefix, owner);
    },
    requireWrites: () => requireWrites(producer, store.prefix),
    close: () => {
      for (const client of [producer, ...consumers.values()]) endRedis(client);
      return Promise.resolve();
    },
  };
}

// A connection of which the other end is gone without a word would be waited on until TCP gives up, a quarter of an hour
// later. A worker's blocking command is answered after 10 s at the latest.
const CONSUMER_SILENCE_MS = 15_000;

function openPostgres(store: Extract<QueueStore, { kind: 'postgres' }>, log: Log, idleMs: number): QueueConnection {
  const warn = onceInAWhile(QUIET_MS, (error: Error) => log[levelOf(error)]({ reason: error.message }, 'postgres queues: connection trouble'));
  // Every worker holds one of the pool's connections to LISTEN on.
  const pool = new Pool({
    ...queueOptions(store, 'arcadia-queues', STATEMENT_TIMEOUT_MS),
    max: store.poolMax ?? POOL_MAX,
    idleTimeoutMillis: idleMs,
    // What a queue asks takes milliseconds. A connection of which the other end is gone without a word is found so; each costs
    // that long, and a pool may hold several.
    query_timeout: 5_000,
  });
  pool.on('error', warn);
  // Each queue and each worker listens on it; Node takes more than ten for a leak.
  pool.setMaxListeners(50);
  const loops = countLoops();
  pool.on('connect', (client) => client.on('error', warn));
  const requireWritesOfPostgres = async (): Promise<void> => {
    let isReadOnly: boolean;
    try {
      const { rows } = await pool.query<{ isReadOnly: boolean }>(`select current_setting('transaction_read_only')::bool as "isReadOnly"`);
      isReadOnly = rows.some((row) => row.isReadOnly);
    } catch (error) {
      throw toStoreError(error);
    }
    if (isReadOnly) throw new QueueStoreError('Postgres takes no writes (DATABASE_URL): it is a standby, or read-only. Name the primary, or end its read-only mode.');
  };
  return {
    store,
    queue: (name) => listening(queueOnPostgres(name, pool), warn),
    worker: (name, processor, options) => {
      const worker = listening(workerOnPostgres(name, loops.counted(name, processor, options), { ...options, autorun: false }, pool), warn);
      // BullMQ remembers for good that this backend could not start (too many clients, say), and a worker that runs asks
      // it again and again without a pause: nothing else in the process would get a turn any more, not even a timer.
      worker.waitUntilReady().then(() => worker.run()).catch(warn);
      return worker;
    },
    laneOf: () => null,
    runScript: null,
    loops: loops.all,
    check: async () => {
      let found: readonly FoundSetting[];
      try {
        found = (await pool.query<FoundSetting>(SESSION_SQL)).rows;
      } catch (error) {
        throw toStoreError(error);
      }
      requireSession(found);
      await requireWritesOfPostgres();
    },
    requireWrites: requireWritesOfPostgres,
    close: () => pool.end(),
  };
}

/** A configuration that cannot be used stays what it is; anything else is said of the store. */
function toStoreError(error: unknown): Error {
  const explained = explainConnectionError(error);
  if (explained instanceof ConfigError) return explained;
  const message = explained instanceof Error ? explained.message : String(explained);
  return new QueueStoreError(describePostgresFailure(explained) ?? `Postgres cannot be used (DATABASE_URL): ${message}`);
}

// BullMQ types its classes by their backend, and pools against its own declarations. What we use is the same on both.
/* oxlint-disable typescript/no-unsafe-type-assertion */
function queueOnPostgres(name: string, pool: Pool): Queue {
  return new PostgresQueue(name, { connection: pool as never, ...traced() }) as unknown as Queue;
}

function workerOnPostgres(name: string, processor: Processor, options: WorkerSettingsOfBullMq, pool: Pool): Worker {
  return new PostgresWorker(name, processor, { ...options, connection: pool as never, ...traced() }) as unknown as Worker;
}
/* oxlint-enable typescript/no-unsafe-type-assertion */

function listening<T extends Queue | Worker>(emitter: T, warn: (error: Error) => void): T {
  // Without a listener, an error of the connection would end the process.
  EventEmitter.prototype.on.call(emitter, 'error', warn);
  return emitter;
}

/** Counts the jobs of each worker, on their way to its processor. */
function countLoops() {
  const loops: JobLoop[] = [];
  return {
    all: () => loops,
    counted: (queueName: string, processor: Processor, { concurrency = 1 }: WorkerSettingsOfBullMq): Processor => {
      const loop = { queueName, concurrency, handed: 0, running: 0 };
      loops.push(loop);
      return async (job, token, signal) => {
        loop.handed += 1;
        loop.running += 1;
        try {
          return await processor(job, token, signal);
        } finally {
          loop.running -= 1;
        }
      };
    },
  };
}

/** What other machines do passes by itself; somebody has to see to this one. */
function levelOf(error: Error): 'warn' | 'error' {
  return isLocalTrouble(error) ? 'error' : 'warn';
}

const QUIET_MS = 5_000;
