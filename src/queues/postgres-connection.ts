// Queues and workers in Postgres, on BullMQ's own tables.
import { createPostgresBackend, runMigrations, withBackend } from 'bullmq';
import type { Processor, Queue, Worker } from 'bullmq';
import { Pool } from 'pg';
import { SESSION_SQL, requireSession } from '../platform/check-session.ts';
import type { FoundSetting } from '../platform/check-session.ts';
import { ConfigError } from '../platform/config-error.ts';
import { createsSchema, ensureSchema } from '../platform/create-schema.ts';
import { explainConnectionError } from '../platform/database-tls.ts';
import { readDatabaseUrl } from '../platform/database-url.ts';
import { IDLE_MS } from '../platform/db.ts';
import type { Blocker, LockPatience } from '../platform/lock-retries.ts';
import { lockPatience, untilUnlocked } from '../platform/lock-retries.ts';
import type { Log } from '../platform/log.ts';
import { describePostgresFailure } from '../platform/postgres-failure.ts';
import { listening, troubleLog } from './connection-trouble.ts';
import { countLoops } from './job-loops.ts';
import { pgOptions } from './pg-options.ts';
import type { QueueConnection, QueueConnectionOptions, WorkerSettingsOfBullMq } from './queue-connection.ts';
import type { QueueStore } from './queue-store.ts';
import { QueueStoreError } from './queue-store-error.ts';
import { traced } from './telemetry.ts';

const { Queue: PostgresQueue, Worker: PostgresWorker } = withBackend(createPostgresBackend);

const POOL_MAX = 20;

// Stops a statement once no caller waits for it any more.
const STATEMENT_TIMEOUT_MS = 10_000;

/** BullMQ's tables have their own schema, next to `arcadia`. */
const POSTGRES_SCHEMA = 'bullmq';

// One for LISTEN, the others for statements. A pool with fewer than three times as many is not divided.
const APART_MAX = 4;

/** The options of both pools that use BullMQ's tables. */
function queueOptions({ databaseUrl }: Extract<QueueStore, { kind: 'postgres' }>, applicationName: string, statementTimeoutMs: number, more: Readonly<Record<string, string>> = {}) {
  return pgOptions(readDatabaseUrl(databaseUrl), { applicationName, statementTimeoutMs }, { search_path: POSTGRES_SCHEMA, ...more });
}

/**
 * Migrates BullMQ's own tables. Safe to run twice or concurrently. BullMQ locks one of them even if nothing is due, and workers
 * that start read it.
 */
export async function migratePostgresQueues(store: Extract<QueueStore, { kind: 'postgres' }>, patience: Partial<LockPatience>): Promise<void> {
  const waiting = { ...lockPatience, ...patience };
  // Migrations may take longer than an ordinary statement.
  const pool = new Pool({ ...queueOptions(store, 'arcadia-migrate', 0, { lock_timeout: String(waiting.lockWaitMs) }), max: 1 });
  // If the server goes away while the pool closes, both the pool and the client emit an error. Without a listener, that
  // would end the process. What matters is whether the migrations ran.
  pool.on('error', () => undefined);
  const client = await pool.connect().catch((error: unknown) => {
    throw explainConnectionError(error);
  });
  client.on('error', () => undefined);
  try {
    await ensureSchema(POSTGRES_SCHEMA, async (sql) => (await client.query(sql)).rows);
    const on = { schema: POSTGRES_SCHEMA, query: async (sql: string) => (await client.query<Blocker>(sql)).rows };
    const session = { query: (text: string, values?: readonly unknown[]) => (createsSchema(text) ? Promise.resolve({ rows: [] }) : client.query<never>(text, [...(values ?? [])])) };
    await untilUnlocked(waiting, on, async () => runMigrations(session, POSTGRES_SCHEMA));
  } finally {
    client.release();
    await pool.end();
  }
}

/** Opens queues and workers in Postgres: see `openQueueConnection`. */
export function openPostgresConnection(store: Extract<QueueStore, { kind: 'postgres' }>, log: Log, { idleMs = IDLE_MS, apart = null }: QueueConnectionOptions): QueueConnection {
  const warn = troubleLog(log, 'postgres queues: connection trouble');
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
  const requireTables = async (): Promise<void> => {
    if ((await readTables(pool)) === 'absent') throw new QueueStoreError('REDIS_URL is not set and Postgres has no tables of queues: run `arcadia migrate`, or set REDIS_URL');
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
    readOwner: null,
    readTables: () => readTables(pool),
    inspect: () => inspectPostgres().then(() => 'Postgres'),
    check: () => inspectPostgres().then(requireTables),
    claim: null,
    requireWrites: requireWritesOfPostgres,
    // A full disk makes it read-only, or refuse each write.
    memory: async () => Promise.resolve({ isFull: false, evictionPolicy: null }),
    close: async () => void (await Promise.all([...new Set([pool, poolApart])].map((one) => one.end()))),
  };
}

async function readTables(pool: Pool): Promise<'absent' | 'empty' | 'used'> {
  try {
    const { rows } = await pool.query<{ exists: boolean }>(`select to_regclass('${POSTGRES_SCHEMA}.job') is not null as exists`);
    if (rows[0]?.exists !== true) return 'absent';
    const found = await pool.query(`select from ${POSTGRES_SCHEMA}.job limit 1`);
    return found.rowCount === 0 ? 'empty' : 'used';
  } catch (error) {
    throw toStoreError(error);
  }
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
