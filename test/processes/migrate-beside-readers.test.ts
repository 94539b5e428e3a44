// `migrate` while somebody reads for long, as a backup does: the fleet goes on, and the operator learns who it is.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import type { Database, ReservedSql } from '../../src/platform/db.ts';
import { openDatabase, reserveConnection } from '../../src/platform/db.ts';
import type { Blocker } from '../../src/platform/lock-retries.ts';
import { describeBlockers } from '../../src/platform/lock-retries.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { migrateQueues } from '../../src/queues/connection.ts';
import { forkBound } from '../support/child-process.ts';
import { migrateTo } from '../support/migrate-to.ts';
import { programFile } from '../support/programs.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const BEFORE = 39;

let database: TestDatabase;
let fleet: Database;
let backup: Database;
let reader: ReservedSql;

beforeEach(async () => {
  database = await createTestDatabase();
  fleet = openDatabase(database.directUrl, { max: 2 });
  backup = openDatabase(database.directUrl, { max: 1, applicationName: 'a-backup' });
  await migrateTo((statement) => fleet.sql.unsafe<Record<string, unknown>[]>(statement), BEFORE);
  await write();
  reader = await reserveConnection(backup);
  await reader`begin`;
  await reader`select count(*) from arcadia.sagas`;
});

afterEach(async () => {
  await reader`rollback`.catch(() => undefined);
  reader.release();
  await Promise.all([fleet.close(), backup.close()]);
  await database.drop();
});

/** Writes a saga, as a start does, with the columns of the version before. */
async function write(): Promise<void> {
  const id = randomUUID();
  await fleet.sql`insert into arcadia.sagas (id, saga8, name, status, steps, input) values (${id}, ${id.slice(0, 8)}, 'x', 'running', '{one}', '{}')`;
}

/** Writes sagas until `isOver`, and returns how long each took, in milliseconds. */
async function writeUntil(isOver: () => boolean): Promise<number[]> {
  const took: number[] = [];
  while (!isOver()) {
    const at = performance.now();
    await write();
    took.push(performance.now() - at);
    await delay(20);
  }
  return took;
}

const version = async () => Number((await fleet.sql<{ version: number }[]>`select max(version)::int as version from arcadia.migrations`)[0]?.version);

test.each([
  ['in one transaction', Number.MAX_SAFE_INTEGER],
  ['file by file', 0],
])('statements of the fleet go on while it waits, and it is through once the reader ends (%s)', async (_, largeBytes) => {
  const [own] = await reader<{ pid: number }[]>`select pg_backend_pid() as pid`;
  const told: (readonly Blocker[])[] = [];
  const other = openDatabase(database.directUrl, { max: 1 });
  onTestFinished(() => other.close());
  const migrating = migrate(other, 'test', undefined, { largeBytes, lockWaitMs: 300, pauseMs: 300, tellEveryMs: 1_000, onBlocked: (blockers) => told.push(blockers) });
  const took = await writeUntil(() => told.length === 3);
  expect(took.length).toBeGreaterThan(10);
  expect(Math.max(...took)).toBeLessThan(1_500);
  expect(told[0]).toEqual([{ pid: own?.pid, name: 'a-backup', since: expect.any(Date) }]);
  expect(await version()).toBe(BEFORE);
  await reader`commit`;
  expect((await migrating)[0]).toBe('given-inputs');
  expect(await version()).toBeGreaterThan(BEFORE);
});

test('a deadlock with a transaction of the fleet is tried again', async () => {
  await reader`rollback`;
  await reader`begin`;
  await reader`select from arcadia.workers`;
  const other = openDatabase(database.directUrl, { max: 1 });
  onTestFinished(() => other.close());
  // Longer than deadlock_timeout. Migration 40 has the lock of sagas by then, and 41 waits for that of workers.
  const migrating = migrate(other, 'test', undefined, { lockWaitMs: 5_000, pauseMs: 100 });
  await waitFor(async () => (await fleet.sql`select from pg_locks where not granted and relation = to_regclass('arcadia.workers')`).length > 0, { what: 'the migration to wait' });
  await reader`select from arcadia.sagas`;
  await reader`commit`;
  expect(await migrating).toContain('given-inputs');
});

test('the tables of queues in Postgres are waited for in the same way, also if nothing is due', async () => {
  const store = { kind: 'postgres', databaseUrl: database.directUrl } as const;
  await migrateQueues(store);
  await reader`select from bullmq.migration`;
  const told: (readonly Blocker[])[] = [];
  const migrating = migrateQueues(store, { lockWaitMs: 300, pauseMs: 300, tellEveryMs: 500, onBlocked: (blockers) => told.push(blockers) });
  await waitFor(() => told.length > 1, { what: 'it to say who holds the lock' });
  const at = performance.now();
  await fleet.sql`select from bullmq.migration`;
  expect(performance.now() - at).toBeLessThan(1_500);
  expect(told[0]).toMatchObject([{ name: 'a-backup' }]);
  await reader`commit`;
  await migrating;
});

test('the command says at once who holds the locks, and Ctrl-C leaves nothing half done', async () => {
  const child = forkBound(programFile('main'), ['migrate'], { env: { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: database.directUrl, REDIS_URL: 'redis://127.0.0.1:1' }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const [own] = await reader<{ pid: number }[]>`select pg_backend_pid() as pid`;
  await waitFor(() => said.includes('\n'), { what: 'the command to say why it waits' });
  expect(said).toMatch(new RegExp(`^waiting for locks on the tables: process ${own?.pid} \\(a-backup\\), in a transaction since \\d{4}-[^.]+\\.\\d+Z\\. Sagas go on meanwhile\\.`));
  child.kill('SIGINT');
  await once(child, 'close');
  expect(child.exitCode).toBe(130);
  expect(await version()).toBe(BEFORE);
  await waitFor(async () => (await fleet.sql`select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())`).length === 0, { what: 'nothing to wait for a lock' });
  await write();
});

test('a session without a name and a prepared transaction are named by what is known of them', () => {
  expect(describeBlockers([{ pid: 7, name: '', since: null }, { pid: null, name: '', since: null }])).toBe('process 7; a prepared transaction (see pg_prepared_xacts)');
  expect(describeBlockers([])).toBe('others hold locks on its tables');
});
