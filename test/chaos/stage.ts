// The stage of a chaos run: a Postgres that is durable, a Redis, the sandbox, a client, and a fleet of workers.
import { randomBytes } from 'node:crypto';
import { openClient } from '../../src/client/open-client.ts';
import type { Client } from '../../src/client/client.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { generateKey, parseKeyRing } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import type { QueueStore } from '../../src/queues/connection.ts';
import { migrateQueues, openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import type { PrivateRedis } from '../support/services-redis-server.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import type { Fleet } from './fleet.ts';
import { startFleet } from './fleet.ts';
import { USER_DATA_SECRET } from './requests.ts';
import type { ChaosOptions } from './settings.ts';
import { ACTIVATION_MS, faultsOf, workerSettings } from './settings.ts';

/** What the queues are asked: who holds which saga, and what is left. */
export type Queues = Readonly<{
  /** Sagas whose job is in the hands of this worker right now. */
  inHandsOf(worker: string): Promise<string[]>;
  /** Jobs that are still going to run, and jobs that failed. */
  counts(): Promise<{ live: number; failed: number }>;
  close(): Promise<void>;
}>;

export type Stage = Readonly<{
  postgres: EmbeddedPostgres;
  /** Null: the queues are on Postgres. */
  redis: PrivateRedis | null;
  sandbox: Sandbox;
  db: Database;
  client: Client;
  queues: Queues;
  fleet: Fleet;
  close(): Promise<void>;
}>;

/** Sets the stage. Everything on it ends with this process, however that ends. */
export async function openChaosStage(options: ChaosOptions): Promise<Stage> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).toReversed()) await closer().catch(() => undefined);
  };
  try {
    // With its own settings: it is crashed again and again, and must not lose a commit.
    const postgres = await startEmbeddedPostgres();
    closers.push(postgres.stop);
    const redis = options.backend === 'redis' ? await startPrivateRedis() : null;
    if (redis !== null) closers.push(redis.stop);
    const sandbox = await startSandbox({ activateAfterMs: ACTIVATION_MS, ratePerMinute: null, ratePerHour: null, faults: faultsOf(options.seed) });
    closers.push(() => sandbox.close());
    const db = openDatabase(postgres.url, { max: 3, applicationName: 'arcadia-chaos' });
    closers.push(db.close);
    const queueStore: QueueStore =
      redis === null ? { kind: 'postgres', databaseUrl: postgres.url } : { kind: 'redis', nodes: [redis.url], prefix: '{chaos}' };
    await migrate(db, 'default');
    await migrateQueues(queueStore);
    const encryptionKey = generateKey();
    const client = openClient({ databaseUrl: postgres.url, queueStore, keyRing: parseKeyRing(encryptionKey) });
    closers.push(client.close);
    const queues = openQueues(queueStore);
    closers.push(queues.close);
    const token = `chaos-token-${randomBytes(12).toString('hex')}`;
    const where = { DATABASE_URL: postgres.url, DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_TOKEN: token, ARCADIA_ENCRYPTION_KEYS: encryptionKey };
    const queuesAt = redis === null ? {} : { REDIS_URL: redis.url, QUEUE_PREFIX: '{chaos}' };
    const fleet = startFleet(options.workers, { ...inherited(), ...workerSettings, ...where, ...queuesAt }, [token, encryptionKey, USER_DATA_SECRET, passwordOf(postgres.url)]);
    closers.push(fleet.close);
    return { postgres, redis, sandbox, db, client, queues, fleet, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Nothing of the caller's own configuration: a token in the environment must not make chaos of real droplets. */
function inherited(): NodeJS.ProcessEnv {
  const { PATH, HOME, TMPDIR, LANG } = process.env;
  return { PATH, HOME, TMPDIR, LANG };
}

function passwordOf(url: string): string {
  return new URL(url).password;
}

const liveStates = ['waiting', 'active', 'delayed', 'prioritized'] as const;

function openQueues(queueStore: QueueStore): Queues {
  const connection = openQueueConnection(queueStore, silentLog);
  const opened = [queueNames.steps, queueNames.compensations].map((name) => connection.queue(name));
  return {
    inHandsOf: async (worker) => {
      const active = (await Promise.all(opened.map((queue) => queue.getActive()))).flat();
      return active.filter((job) => job.processedBy === worker).map((job) => String(job.id).split('_')[0] ?? '');
    },
    counts: async () => {
      const all = await Promise.all(opened.map((queue) => queue.getJobCounts(...liveStates, 'failed')));
      const sum = (states: readonly string[]) => all.flatMap((counts) => states.map((state) => counts[state] ?? 0)).reduce((a, b) => a + b, 0);
      return { live: sum(liveStates), failed: sum(['failed']) };
    },
    close: async () => {
      await Promise.all(opened.map((queue) => queue.close()));
      await connection.close();
    },
  };
}
