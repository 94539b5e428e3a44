// The services of one run of the tests, started before the first test file and ended after the last: Postgres and Redis.
// TEST_DATABASE_URL and TEST_REDIS_URL come first; what they leave open is a private server of this run. A server that
// merely listens on a standard port is never used: it may be somebody's.
//
// TEST_PGBOUNCER=1 puts a private PgBouncer in transaction mode in front of Postgres, TEST_REDIS_CLUSTER=1 takes a private
// Redis Cluster in place of Redis: whatever test can run there does (script/test-topologies).

import { randomBytes } from 'node:crypto';
import postgres from 'postgres';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { measurePatience } from './patience.ts';
import { buildPrograms } from './programs.ts';
import { startPrivatePgBouncer } from './services-pgbouncer.ts';
import { startPrivateRedisCluster } from './services-redis-cluster.ts';
import { startPrivateRedis } from './services-redis-server.ts';

/** What the tests are told about the run's services. */
export type Services = {
  /** A database whose user may create databases. */
  readonly databaseUrl: string;
  /** The port of the PgBouncer in front of it; null: there is none. */
  readonly pgBouncerPort: number | null;
  /** Several nodes, separated by commas, where it is a Redis Cluster. */
  readonly redisUrl: string;
  /** Is in the name of every database that this run makes. */
  readonly runId: string;
};

declare module 'vitest' {
  interface ProvidedContext {
    services: Services;
  }
}

/** Settings of a Postgres whose data nobody will miss. */
export const disposableSettings = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' } as const;

type Service = { readonly url: string; readonly stop: () => Promise<void> };

/** Vitest's global set-up: starts the services, and returns what ends them. Throws where one can't be had. */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const runId = randomBytes(4).toString('hex');
  measurePatience();
  await buildPrograms();
  const [database, redis] = await startBoth(
    openDatabase(process.env['TEST_DATABASE_URL'], runId),
    openRedis(process.env['TEST_REDIS_URL']),
  );
  const pgBouncer = isOn('TEST_PGBOUNCER') ? await startPrivatePgBouncer(database.url) : null;
  project.provide('services', { databaseUrl: database.url, pgBouncerPort: pgBouncer?.port ?? null, redisUrl: redis.url, runId });
  return async () => {
    await pgBouncer?.stop();
    await Promise.all([database.stop(), redis.stop()]);
  };
}

function isOn(variable: string): boolean {
  return process.env[variable] === '1';
}

async function openDatabase(givenUrl: string | undefined, runId: string): Promise<Service> {
  if (givenUrl === undefined || givenUrl === '') return startEmbeddedPostgres({ settings: disposableSettings });
  return { url: givenUrl, stop: () => dropDatabases(givenUrl, runId) };
}

async function openRedis(givenUrl: string | undefined): Promise<Service> {
  if (isOn('TEST_REDIS_CLUSTER')) return startPrivateRedisCluster();
  if (givenUrl === undefined || givenUrl === '') return startPrivateRedis();
  return { url: givenUrl, stop: () => Promise.resolve() };
}

async function startBoth(...starting: [Promise<Service>, Promise<Service>]): Promise<[Service, Service]> {
  try {
    return await Promise.all(starting);
  } catch (error) {
    // The other one may stand already.
    await Promise.all(starting.map(async (service) => (await service.catch(() => undefined))?.stop()));
    throw error;
  }
}

/** A server that was given to us goes on after the run: it keeps nothing of ours. */
async function dropDatabases(url: string, runId: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  try {
    const names = await sql<{ datname: string }[]>`select datname from pg_database where starts_with(datname, ${`arcadia_test_${runId}_`})`;
    for (const { datname } of names) await sql`drop database if exists ${sql(datname)} with (force)`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}
