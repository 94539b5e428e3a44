// Postgres for one test: its own database on the run's server, cloned from a template that is migrated once per run. A test that
// kills or restarts Postgres starts its own server: startPrivatePostgres.

import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import type { EmbeddedPostgres, EmbeddedPostgresOptions } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { giveDatabaseBack, takeDatabase, withClient, withDatabase } from './database-pool.ts';
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
  /** Ends all connections, and gives the database to the next test. May be called more than once. */
  readonly drop: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Makes a database on the run's server. Throws what `migrate` throws. */
export async function createTestDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { databaseUrl: serverUrl, pgBouncerPort, runId } = inject('services');
  const { migrate, template = 'migrated' } = options;
  const newName = `arcadia_test_${runId}_${randomBytes(6).toString('hex')}`;
  const place = { serverUrl, runId, template };
  if (migrate === undefined) await withClient(serverUrl, (admin) => admin`create database ${admin(newName)}`);
  const name = migrate === undefined ? newName : await takeDatabase(place, newName, migrate);
  let isDropped = false;
  const drop = async (): Promise<void> => {
    // By the second time, it may be another test's.
    if (isDropped) return;
    isDropped = true;
    if (migrate === undefined) await withClient(serverUrl, (admin) => admin`drop database if exists ${admin(name)} with (force)`);
    else await giveDatabaseBack(place, name);
  };
  const directUrl = withDatabase(serverUrl, name);
  const url = pgBouncerPort === null ? directUrl : throughPgBouncer(directUrl, pgBouncerPort);
  return { url, directUrl, name, drop, [Symbol.asyncDispose]: drop };
}

/** Starts a Postgres server of the test's own, to be stopped by the test. */
export function startPrivatePostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ ...options, settings: { ...disposableSettings, ...options.settings } });
}
