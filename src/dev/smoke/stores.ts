// The stores of a run: an embedded Postgres in the smoke test's folder, whose data outlives the process, or the servers
// of DATABASE_URL and REDIS_URL.
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openClient } from '../../client/open-client.ts';
import type { Client } from '../../client/client.ts';
import { dropletApp } from '../../droplets/app.ts';
import { readFleetFacts } from '../../fleet/facts.ts';
import type { Config } from '../../platform/config.ts';
import { openDatabase } from '../../platform/db.ts';
import type { Database } from '../../platform/db.ts';
import { unlessAborted } from '../../platform/deadline.ts';
import { requireMigrated } from '../../processes/due-migrations.ts';
import { checkEnvironment } from '../../processes/environment.ts';
import { migrate } from '../../processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../../queues/connection.ts';
import { startEmbeddedPostgres } from '../embedded-postgres/start-embedded-postgres.ts';
import type { EmbeddedPostgres } from '../embedded-postgres/start-embedded-postgres.ts';
import { findOthersWork } from './others.ts';

export const EMBEDDED = 'embedded';

export type Stores = Readonly<{
  /** {@link EMBEDDED}, or the id of the database. */
  identity: string;
  db: Database;
  client: Client;
  /** The environment variables for workers on these stores. */
  environment: NodeJS.ProcessEnv;
  /** Counts the live workers of others on these stores. */
  otherWorkers(): Promise<number>;
  /** Describes the work on these stores that is not of this run, as {@link findOthersWork}. */
  othersWork(run: string): Promise<string[]>;
  close(): Promise<void>;
}>;

const DATA = 'arcadia-smoke-postgres-';

// The Postgres of a smoke test that was just killed ends by itself within this time.
const LEAVING_MS = 40_000;

/**
 * Opens the stores.
 *
 * @param options.run the run that the embedded database belongs to
 * @throws {EnvironmentMismatchError} if DATABASE_URL's database is not migrated or belongs to another environment
 */
export async function openStores(config: Config, options: { folder: string; run: string; stop: AbortSignal }): Promise<Stores> {
  return config.databaseUrl === null ? openEmbedded(config, options) : openGiven(config, config.databaseUrl);
}

async function openGiven(config: Config, databaseUrl: string): Promise<Stores> {
  const db = openDatabase(databaseUrl, { max: 2 });
  try {
    const { deployment } = await checkEnvironment(db, config.environment);
    await requireMigrated(db);
    return storesOf(db, config, { identity: deployment, databaseUrl, environment: { DATABASE_URL: databaseUrl } });
  } catch (error) {
    await db.close();
    throw error;
  }
}

async function openEmbedded(config: Config, { folder, run, stop }: { folder: string; run: string; stop: AbortSignal }): Promise<Stores> {
  const postgres = await startPatiently(join(folder, `${DATA}${run}`), stop);
  const db = openDatabase(postgres.url, { max: 2 });
  try {
    await unlessAborted(stop, migrate(db, 'smoke', dropletApp.catalog));
    await unlessAborted(stop, migrateQueues({ kind: 'postgres', databaseUrl: postgres.url }));
    const environment = { DATABASE_URL: postgres.url, REDIS_URL: '', ARCADIA_ENV: 'smoke', ARCADIA_ENCRYPTION_KEYS: '' };
    return storesOf(db, { ...config, databaseUrl: postgres.url, redisNodes: null }, { identity: EMBEDDED, databaseUrl: postgres.url, environment, postgres });
  } catch (error) {
    await db.close();
    await postgres.stop();
    throw error;
  }
}

async function startPatiently(dataDir: string, stop: AbortSignal): Promise<EmbeddedPostgres> {
  const giveUpAt = performance.now() + LEAVING_MS;
  for (;;) {
    try {
      return await startEmbeddedPostgres({ dataDir, signal: stop });
    } catch (error) {
      const isStillThere = error instanceof Error && /postmaster\.pid|pre-existing shared memory/.test(error.message);
      if (!isStillThere || performance.now() > giveUpAt || stop.aborted) throw error;
      await delay(250);
    }
  }
}

/** Removes the databases of finished runs. `keep`: the current run; null: none. */
export async function removeDatabases(folder: string, keep: string | null): Promise<void> {
  const names = await readdir(folder);
  for (const name of names.filter((one) => one.startsWith(DATA) && one !== `${DATA}${keep ?? ''}`)) {
    await rm(join(folder, name), { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

function storesOf(db: Database, config: Config, { identity, databaseUrl, environment, postgres }: { identity: string; databaseUrl: string; environment: NodeJS.ProcessEnv; postgres?: EmbeddedPostgres }): Stores {
  const queueStore = queueStoreOf({ ...config, databaseUrl });
  const client = openClient({ databaseUrl, queueStore });
  return {
    identity,
    db,
    client,
    environment,
    otherWorkers: async () => (await readFleetFacts(db)).workers.filter(({ isAlive }) => isAlive).length,
    othersWork: (run) => findOthersWork(db, queueStore, run),
    close: async () => {
      await client.close();
      await db.close();
      await postgres?.stop();
    },
  };
}
