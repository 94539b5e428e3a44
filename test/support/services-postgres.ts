// Postgres for one test: a database of its own on the run's server, cloned from a template that is migrated once a run.
// A test that kills or restarts Postgres takes a server of its own instead: startPrivatePostgres.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { inject } from 'vitest';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import type { EmbeddedPostgres, EmbeddedPostgresOptions } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { disposableSettings } from './services.ts';
import { throughPgBouncer } from './services-pgbouncer.ts';

export type TestDatabaseOptions = {
  /** Brings an empty database up to date. Called once a run for each `template`. Without it, the database is empty. */
  readonly migrate?: (url: string) => Promise<void>;
  /** Tells the results of different `migrate` functions apart. Default: `migrated`. Lower-case letters, digits, underscores. */
  readonly template?: string;
};

export type TestDatabase = {
  /** As DATABASE_URL: by way of PgBouncer, where the run has one. */
  readonly url: string;
  /** To Postgres itself, for what needs a session: BullMQ's backend, and the locks that a test takes. */
  readonly directUrl: string;
  readonly name: string;
  /** Drops the database, with whatever connections there are. May be called more than once. */
  readonly drop: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Makes a database on the run's server. Throws what `migrate` throws. */
export async function createTestDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { databaseUrl, pgBouncerPort, runId } = inject('services');
  const name = `arcadia_test_${runId}_${randomBytes(6).toString('hex')}`;
  await withAdmin(databaseUrl, async (admin) => {
    if (options.migrate === undefined) {
      await admin`create database ${admin(name)}`;
      return;
    }
    const template = `arcadia_test_${runId}_${options.template ?? 'migrated'}`;
    await ensureTemplate(admin, databaseUrl, template, options.migrate);
    await cloneDatabase(admin, name, template);
  });
  const drop = (): Promise<void> =>
    withAdmin(databaseUrl, async (admin) => void (await admin`drop database if exists ${admin(name)} with (force)`));
  const directUrl = withDatabase(databaseUrl, name);
  const url = pgBouncerPort === null ? directUrl : throughPgBouncer(directUrl, pgBouncerPort);
  return { url, directUrl, name, drop, [Symbol.asyncDispose]: drop };
}

/** Starts a Postgres server of the test's own, to be stopped by the test. */
export function startPrivatePostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ ...options, settings: { ...disposableSettings, ...options.settings } });
}

async function ensureTemplate(admin: postgres.Sql, serverUrl: string, template: string, migrate: (url: string) => Promise<void>): Promise<void> {
  // A session's lock: the client has one connection only, and all of this goes over it.
  await admin`select pg_advisory_lock(hashtextextended(${template}, 0))`;
  try {
    const found = await admin`select 1 from pg_database where datname = ${template}`;
    if (found.length > 0) return;
    // Renamed when complete: a template half migrated by a test that failed must not be cloned by the next.
    const unfinished = `${template}_unfinished`;
    await admin`drop database if exists ${admin(unfinished)} with (force)`;
    await admin`create database ${admin(unfinished)}`;
    await migrate(withDatabase(serverUrl, unfinished));
    // A connection that migrate left open would be in the way of renaming and cloning.
    await admin`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = ${unfinished}`;
    await admin`alter database ${admin(unfinished)} rename to ${admin(template)}`;
  } finally {
    await admin`select pg_advisory_unlock(hashtextextended(${template}, 0))`;
  }
}

const objectInUse = '55006';

async function cloneDatabase(admin: postgres.Sql, name: string, template: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await admin`create database ${admin(name)} template ${admin(template)}`;
      return;
    } catch (error) {
      // Autovacuum looks into a template now and then, for a moment.
      const busy = error instanceof postgres.PostgresError && error.code === objectInUse;
      if (!busy || attempt === 50) throw error;
      await sleep(100);
    }
  }
}

async function withAdmin<T>(url: string, operation: (admin: postgres.Sql) => Promise<T>): Promise<T> {
  const admin = postgres(url, { max: 1, idle_timeout: 0, max_lifetime: null, onnotice: () => undefined });
  try {
    return await operation(admin);
  } finally {
    await admin.end({ timeout: 5 });
  }
}

function withDatabase(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}
