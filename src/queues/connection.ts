// Opens the store for BullMQ's jobs: Redis, or Postgres if no Redis is configured. The rest of src/queues gets its queues
// and workers here and does not depend on the kind of store.
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

/** BullMQ's worker options, without the connection. */
type WorkerSettingsOfBullMq = Omit<WorkerOptions, 'connection' | 'prefix'>;

/** The current state of one queue's worker. */
export type JobLoop = Readonly<{
  queueName: string;
  concurrency: number;
  /** Number of jobs it was handed so far. */
  handed: number;
  /** Number of jobs it is running now. */
  running: number;
}>;

/** Queues on a worker's own connection. Jobs added here reach the store before anything the worker sends later. */
export type Lane = Readonly<{
  queue(name: string): Queue;
  /** Resolves once the jobs added so far have been sent. */
  sent(): Promise<void>;
}>;

/** Opens queues and workers on one store. */
export type QueueConnection = Readonly<{
  store: QueueStore;
  queue(name: string): Queue;
  worker(name: string, processor: Processor, options: WorkerSettingsOfBullMq): Worker;
  /** Returns the lane of a worker of this connection; null if the store does not keep two statements in order (Postgres). */
  laneOf(worker: Worker): Lane | null;
  /** Runs Lua scripts in the store; null unless it is Redis. */
  runScript: RunRedisScript | null;
  /** The workers created so far. */
  loops(): readonly JobLoop[];
  /**
   * Checks that jobs are safe in the store and that its queues belong to this database.
   *
   * @param owner name of the database that the jobs belong to
   * @throws {QueueStoreError} if the store is unreachable
   * @throws {ConfigError} if the store may evict jobs, or its queues belong to another database
   */
  check(owner: string): Promise<void>;
  /**
   * Checks that jobs are safe in the store, whatever database its queues belong to.
   *
   * @returns the server's name, with its version unless it is Postgres
   * @throws {QueueStoreError} {ConfigError} as {@link QueueConnection.check}
   */
  inspect(): Promise<string>;
  /**
   * Checks that the store currently accepts writes.
   *
   * @throws {QueueStoreError} if the store is unreachable or read-only
   */
  requireWrites(): Promise<void>;
  /** Closes the shared connections. Close all queues and workers first. */
  close(): Promise<void>;
}>;

export { queueStoreOf } from './queue-store.ts';
export type { QueueStore } from './queue-store.ts';
export { QueueStoreError } from './queue-store-error.ts';

const { Queue: PostgresQueue, Worker: PostgresWorker } = withBackend(createPostgresBackend);

const POOL_MAX = 20;

// Stops a statement once no caller waits for it any more.
const STATEMENT_TIMEOUT_MS = 10_000;

/** BullMQ's tables have their own schema, next to `arcadia`. */
const POSTGRES_SCHEMA = 'bullmq';

export type QueueConnectionOptions = Readonly<{
  /** How long a connection to Postgres may be idle before it is closed, in milliseconds. */
  idleMs?: number;
  /** A queue in Postgres that gets some of the connections for itself, so that it never waits behind the other queues. */
  apart?: string | null;
}>;

/**
 * Opens a connection to the store without checking that it is reachable: see {@link QueueConnection.check}.
 *
 * @throws {ConfigError} if the store cannot hold jobs
 */
export function openQueueConnection(given: QueueStore, log: Log, options: QueueConnectionOptions = {}): QueueConnection {
  const store = usable(given);
  return store.kind === 'redis' ? openRedis(store, log) : openPostgres(store, log, options);
}

/** The options of both pools that use BullMQ's tables. */
function queueOptions({ databaseUrl }: Extract<QueueStore, { kind: 'postgres' }>, applicationName: string, statementTimeoutMs: number) {
  return pgOptions(readDatabaseUrl(databaseUrl), { applicationName, statementTimeoutMs }, { search_path: POSTGRES_SCHEMA });
}

/** Migrates BullMQ's own tables if the queues are in Postgres. Safe to run twice or concurrently. */
export async function migrateQueues(store: QueueStore): Promise<void> {
  if (store.kind !== 'postgres') return;
  // Migrations may take longer than an ordinary statement.
  const pool = new Pool({ ...queueOptions(store, 'arcadia-migrate', 0), max: 1 });
  // If the server goes away while the pool closes, both the pool and the client emit an error. Without a listener, that
  // would end the process. What matters is whether the migrations ran.
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
      const worker = listening(new Worker(name, loops.counted(name, processor, options), { ...options, connection: consumer, prefix: store.prefix, ...traced() }), warn);
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
    inspect: () => checkRedis(producer, store.prefix),
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

// If the other end of a connection disappears silently, TCP waits a quarter of an hour before it gives up. A worker's
// blocking command gets a reply within 10 s.
const CONSUMER_SILENCE_MS = 15_000;

// One for LISTEN, the others for statements. A pool with fewer than three times as many is not divided.
const APART_MAX = 4;

function openPostgres(store: Extract<QueueStore, { kind: 'postgres' }>, log: Log, { idleMs = IDLE_MS, apart = null }: QueueConnectionOptions): QueueConnection {
  const warn = onceInAWhile(QUIET_MS, (error: Error) => log[levelOf(error)]({ reason: error.message }, 'postgres queues: connection trouble'));
  // Each worker holds one connection of its pool for LISTEN.
  const openPool = (most: number): Pool => {
    const opened = new Pool({
      ...queueOptions(store, 'arcadia-queues', STATEMENT_TIMEOUT_MS),
      max: most,
      idleTimeoutMillis: idleMs,
      // A queue's statements take milliseconds. This timeout detects a connection whose other end disappeared silently.
      // Each dead connection costs one timeout, and a pool may hold several.
      query_timeout: 5_000,
    });
    opened.on('error', warn);
    // Each queue and each worker adds a listener. Above ten, Node warns of a leak.
    opened.setMaxListeners(50);
    opened.on('connect', (client) => client.on('error', warn));
    return opened;
  };
  const max = store.poolMax ?? POOL_MAX;
  const isDivided = apart !== null && max >= 3 * APART_MAX;
  const pool = openPool(isDivided ? max - APART_MAX : max);
  const poolApart = isDivided ? openPool(APART_MAX) : pool;
  const poolOf = (name: string): Pool => (name === apart ? poolApart : pool);
  const loops = countLoops();
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
  const inspectPostgres = async (): Promise<void> => {
    let found: readonly FoundSetting[];
    try {
      found = (await pool.query<FoundSetting>(SESSION_SQL)).rows;
    } catch (error) {
      throw toStoreError(error);
    }
    requireSession(found);
    await requireWritesOfPostgres();
  };
  return {
    store,
    queue: (name) => listening(queueOnPostgres(name, poolOf(name)), warn),
    worker: (name, processor, options) => {
      const worker = listening(workerOnPostgres(name, loops.counted(name, processor, options), { ...options, autorun: false }, poolOf(name)), warn);
      // If this backend could not start (for example, too many clients), BullMQ keeps that failure. A running worker
      // would then retry without a pause and starve everything else in the process, even timers.
      worker.waitUntilReady().then(() => worker.run()).catch(warn);
      return worker;
    },
    laneOf: () => null,
    runScript: null,
    loops: loops.all,
    inspect: () => inspectPostgres().then(() => 'Postgres'),
    check: inspectPostgres,
    requireWrites: requireWritesOfPostgres,
    close: async () => void (await Promise.all([...new Set([pool, poolApart])].map((one) => one.end()))),
  };
}

/** Keeps configuration errors as they are. Reports anything else as a failure of the store. */
function toStoreError(error: unknown): Error {
  const explained = explainConnectionError(error);
  if (explained instanceof ConfigError) return explained;
  const message = explained instanceof Error ? explained.message : String(explained);
  return new QueueStoreError(describePostgresFailure(explained) ?? `Postgres cannot be used (DATABASE_URL): ${message}`);
}

// BullMQ's class types depend on the backend, and it has its own declarations of pools. What we use is the same for both.
/* oxlint-disable typescript/no-unsafe-type-assertion */
function queueOnPostgres(name: string, pool: Pool): Queue {
  return new PostgresQueue(name, { connection: pool as never, ...traced() }) as unknown as Queue;
}

function workerOnPostgres(name: string, processor: Processor, options: WorkerSettingsOfBullMq, pool: Pool): Worker {
  return new PostgresWorker(name, processor, { ...options, connection: pool as never, ...traced() }) as unknown as Worker;
}
/* oxlint-enable typescript/no-unsafe-type-assertion */

function listening<T extends Queue | Worker>(emitter: T, warn: (error: Error) => void): T {
  // Without a listener, a connection error would end the process.
  EventEmitter.prototype.on.call(emitter, 'error', warn);
  return emitter;
}

/** Counts each worker's jobs on their way to its processor. */
function countLoops() {
  const loops: JobLoop[] = [];
  return {
    all: () => loops,
    counted: (queueName: string, processor: Processor, { concurrency = 1 }: WorkerSettingsOfBullMq): Processor => {
      const loop = { queueName, concurrency, handed: 0, running: 0 };
      loops.push(loop);
      // A third parameter would make BullMQ create an AbortController for each job, which nothing here uses.
      return async (job, token) => {
        loop.handed += 1;
        loop.running += 1;
        try {
          return await processor(job, token);
        } finally {
          loop.running -= 1;
        }
      };
    },
  };
}

/** Trouble on other machines passes by itself. Trouble on this machine needs a person. */
function levelOf(error: Error): 'warn' | 'error' {
  return isLocalTrouble(error) ? 'error' : 'warn';
}

const QUIET_MS = 5_000;
