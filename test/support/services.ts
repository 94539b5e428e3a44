// The services of one run of the tests, started before the first test file and ended after the last: Postgres and Redis.
// TEST_DATABASE_URL and TEST_REDIS_URL take precedence. Without them, a service is a container if a Docker engine responds, or else
// a private server from the npm packages and the PATH (decision 46). A server that happens to listen on a standard port is never
// used: it may belong to somebody.
//
// TEST_PGBOUNCER=1 puts a private PgBouncer in transaction mode in front of Postgres, TEST_REDIS_CLUSTER=1 takes a private
// Redis Cluster in place of Redis, for the tests that can run there (script/test-topologies).

import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { measurePatience } from './patience.ts';
import { buildPrograms } from './programs.ts';
import { hasEngine, startPostgresContainer, startRedisContainer } from './services-containers.ts';
import { startPrivatePgBouncer } from './services-pgbouncer.ts';
import { startPrivateRedisCluster } from './services-redis-cluster.ts';
import { startPrivateRedis } from './services-redis-server.ts';
import { openAdmin } from './admin-connection.ts';

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

/** Where the files of a run keep the crash matrix's recordings for each other. */
export function recordingsFolder(runId: string): string {
  return join(tmpdir(), `arcadia-test-recordings-${runId}`);
}

/** Settings of a Postgres whose data nobody will miss. */
export const disposableSettings = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' } as const;

// Several files at once, and a worker with its queues on Postgres takes some fifteen. Statistics that come when the server sees
// fit would give a test other query plans than the run before.
const sharedSettings = { ...disposableSettings, max_connections: '400', autovacuum: 'off' } as const;

type Service = { readonly url: string; readonly stop: () => Promise<void> };

/** Vitest's global set-up: starts the services, and returns what ends them. Throws where one can't be had. */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const runId = randomBytes(4).toString('hex');
  measurePatience();
  await buildPrograms();
  const [database, redis] = await startBoth(
    openDatabase(runId),
    openRedis(),
  );
  const pgBouncer = isOn('TEST_PGBOUNCER') ? await startPrivatePgBouncer(database.url) : null;
  project.provide('services', { databaseUrl: database.url, pgBouncerPort: pgBouncer?.port ?? null, redisUrl: redis.url, runId });
  return async () => {
    await pgBouncer?.stop();
    rmSync(recordingsFolder(runId), { recursive: true, force: true });
    await Promise.all([database.stop(), redis.stop()]);
  };
}

function isOn(variable: string): boolean {
  return process.env[variable] === '1';
}

async function openDatabase(runId: string): Promise<Service> {
  const givenUrl = valueOf('TEST_DATABASE_URL');
  if (givenUrl !== undefined) return { url: givenUrl, stop: () => dropDatabases(givenUrl, runId) };
  const database = await containerOr({
    chosenBy: 'TEST_POSTGRES_VERSION',
    usual: '17-alpine',
    container: (version) => startPostgresContainer(version, sharedSettings),
    local: () => startEmbeddedPostgres({ settings: sharedSettings }),
  });
  await weakenPassword(database.url);
  return database;
}

/**
 * Stores the password anew, hashed once instead of 4,096 times: whoever connects has to do the same, which takes a
 * millisecond of CPU time for each of thousands of connections. Postgres before 16 has no such setting.
 */
async function weakenPassword(url: string): Promise<void> {
  const sql = openAdmin(url);
  try {
    await sql`select set_config(name, '1', false) from pg_settings where name = 'scram_iterations'`;
    await sql.unsafe(`alter role current_user password '${decodeURIComponent(new URL(url).password)}'`);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function openRedis(): Promise<Service> {
  if (isOn('TEST_REDIS_CLUSTER')) return startPrivateRedisCluster();
  const givenUrl = valueOf('TEST_REDIS_URL');
  if (givenUrl !== undefined) return { url: givenUrl, stop: () => Promise.resolve() };
  return containerOr({ chosenBy: 'TEST_REDIS_IMAGE', usual: 'redis:7-alpine', container: startRedisContainer, local: startPrivateRedis });
}

/**
 * Starts a container if an engine responds, or else a local server. If the engine cannot start a container, for example without
 * access to the images, a local server is used too, unless an image was selected: then that is an error.
 */
async function containerOr(source: { chosenBy: string; usual: string; container: (image: string) => Promise<Service>; local: () => Promise<Service> }): Promise<Service> {
  const chosen = valueOf(source.chosenBy);
  if (!(await hasEngine())) {
    if (chosen !== undefined) throw new Error(`${source.chosenBy} chooses a container, and no Docker engine answers: start one, or set DOCKER_HOST, or leave ${source.chosenBy} out`);
    return source.local();
  }
  try {
    return await source.container(chosen ?? source.usual);
  } catch (error) {
    if (chosen !== undefined) throw error;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nA local server takes its place.\n`);
    return source.local();
  }
}

function valueOf(variable: string): string | undefined {
  const value = process.env[variable];
  return value === '' ? undefined : value;
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
  const sql = openAdmin(url);
  try {
    const names = await sql<{ datname: string }[]>`select datname from pg_database where starts_with(datname, ${`arcadia_test_${runId}_`})`;
    for (const { datname } of names) await sql`drop database if exists ${sql(datname)} with (force)`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}
