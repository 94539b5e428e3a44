import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { openDatabase, reserveConnection } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { checkEnvironment, EnvironmentMismatchError } from '../../src/processes/environment.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { migrateTo } from '../support/migrate-to.ts';
import { createTestDatabase, startPrivatePostgres } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

let database: TestDatabase;
let db: Database;

beforeEach(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.url);
});

afterEach(async () => {
  await db.close();
  await database.drop();
});

async function tables(): Promise<string[]> {
  const rows = await db.sql<{ tableName: string }[]>`select table_name from information_schema.tables where table_schema = 'arcadia'`;
  return rows.map((row) => row.tableName).toSorted();
}

describe('migrate', () => {
  test('makes the schema on an empty database, and finds nothing to do the second time', async () => {
    const applied = await migrate(db, 'test');
    expect(applied).toEqual(expect.arrayContaining(['sagas', 'inventory']));
    expect(await tables()).toEqual(
      expect.arrayContaining(['cloud_provisioned', 'cloud_resources', 'environment', 'migrations', 'saga_events', 'sagas']),
    );
    expect(await migrate(db, 'test')).toEqual([]);
  });

  test('leaves alone what others keep in the same database', async () => {
    await db.sql`create table public.sagas (id int)`;
    await db.sql`insert into public.sagas values (1)`;
    await migrate(db, 'test');
    expect(await db.sql`select id from public.sagas`).toHaveLength(1);
  });

  test('applies each migration once, however many processes start at once', async () => {
    const processes = Array.from({ length: 10 }, () => openDatabase(database.url, { max: 1 }));
    try {
      const applied = await Promise.all(processes.map((process) => migrate(process, 'test')));
      expect(applied.filter((names) => names.length > 0)).toHaveLength(1);
    } finally {
      await Promise.all(processes.map((process) => process.close()));
    }
    const [row] = await db.sql<{ rows: number; versions: number }[]>`
      select count(*)::int as rows, count(distinct version)::int as versions from arcadia.migrations where version > 0`;
    expect(row?.rows).toBe(row?.versions);
    expect(row?.rows).toBeGreaterThanOrEqual(2);
  });

  test('waits for another process that migrates, for longer than an ordinary statement may take', async () => {
    const impatient = openDatabase(database.url, { timeoutMs: 300 });
    const other = await reserveConnection(db);
    try {
      await other`begin`;
      await other`select pg_advisory_xact_lock(4207310583)`;
      const migrating = migrate(impatient, 'test').then(
        (names) => ({ names }),
        (error: unknown) => ({ error }),
      );
      // It stands before the lock, and has stood there for longer than a statement's time limit.
      const waited = await Promise.race([
        migrating,
        waitFor(
          async () => {
            const [row] = await db.sql`
              select 1 from pg_stat_activity where wait_event = 'advisory' and datname = current_database()
                and query_start < clock_timestamp() - interval '0.6 seconds'`;
            return row !== undefined && 'waits';
          },
          { what: 'the second process to wait for the lock' },
        ),
      ]);
      expect(waited).toBe('waits');
      await other`commit`;
      expect(await migrating).toEqual({ names: expect.arrayContaining(['sagas']) });
    } finally {
      other.release();
      await impatient.close();
    }
  });

  test('leaves nothing half-applied when it fails', async () => {
    // In the way of a later migration than the first.
    await db.sql`create schema arcadia`;
    await db.sql`create table arcadia.cloud_resources (id int)`;
    await expect(migrate(db, 'test')).rejects.toThrow('already exists');
    expect(await tables()).toEqual(['cloud_resources']);
    await db.sql`drop table arcadia.cloud_resources`;
    await migrate(db, 'test');
    expect(await tables()).toContain('cloud_provisioned');
  });

  test('applies the files to a large database one by one: what keeps a later one from it leaves the earlier ones applied', async () => {
    const version = async () => Number((await db.sql<{ version: number }[]>`select max(version)::int as version from arcadia.migrations`)[0]?.version);
    await migrateTo((statement) => db.sql.unsafe<Record<string, unknown>[]>(statement), 20);
    // In the way of version 24.
    await db.sql`create table arcadia.ready_callbacks (id int)`;
    await expect(migrate(db, 'test')).rejects.toThrow('already exists');
    expect(await version()).toBe(20);
    await db.sql`insert into arcadia.sagas (id, saga8, name, status, steps, input) values ('5f1cb5a2-9d4b-4f5e-8d6b-0f1a2b3c4d5e', '5f1cb5a2', 'x', 'running', '{one}', '{}')`;
    await expect(migrate(db, 'test', undefined, { largeBytes: 0 })).rejects.toThrow('already exists');
    expect(await version()).toBe(23);
    await db.sql`drop table arcadia.ready_callbacks`;
    expect((await migrate(db, 'test', undefined, { largeBytes: 0 }))[0]).toBe('ready');
    expect(await migrate(db, 'test', undefined, { largeBytes: 0 })).toEqual([]);
  });

  test('changes nothing in a large database of another environment', async () => {
    await migrate(db, 'production');
    await db.sql`delete from arcadia.migrations where version = (select max(version) from arcadia.migrations)`;
    await db.sql`insert into arcadia.sagas (id, saga8, name, status, steps, input) values ('5f1cb5a2-9d4b-4f5e-8d6b-0f1a2b3c4d5e', '5f1cb5a2', 'x', 'running', '{one}', '{}')`;
    const before = await db.sql`select version from arcadia.migrations order by version`;
    await expect(migrate(db, 'staging', undefined, { largeBytes: 0 })).rejects.toThrow(EnvironmentMismatchError);
    expect(await db.sql`select version from arcadia.migrations order by version`).toEqual(before);
  });

  test('builds the indexes of large tables while sagas are written, and replaces one that was not finished', async () => {
    await migrate(db, 'test');
    const indexes = () => db.sql<{ isValid: boolean }[]>`select indisvalid as is_valid from pg_index where indexrelid = to_regclass('arcadia.sagas_by_title')`;
    expect(await indexes()).toEqual([{ isValid: true }]);
    await db.sql`drop index arcadia.sagas_by_title`;
    await writeSagas(db, { count: 2_000, status: 'completed', daysAgo: 1 });
    const busy = await reserveConnection(db);
    try {
      // A transaction that has written a saga, and is older than the index.
      await busy`begin`;
      await busy`update arcadia.sagas set updated_at = now() where id = (select id from arcadia.sagas limit 1)`;
      const other = openDatabase(database.directUrl, { max: 1 });
      try {
        const migrating = migrate(other, 'test', undefined, { largeBytes: 0 });
        await waitFor(async () => (await db.sql`select 1 from pg_stat_progress_create_index`).length > 0, { what: 'the index to be built' });
        await busy`update arcadia.sagas set updated_at = now() where id = (select id from arcadia.sagas limit 1)`;
        await db.sql`update arcadia.sagas set updated_at = now() where id = (select id from arcadia.sagas order by id desc limit 1)`;
        expect((await indexes()).map(({ isValid }) => isValid)).not.toContain(true);
        await busy`commit`;
        await migrating;
      } finally {
        await other.close();
      }
    } finally {
      busy.release();
    }
    expect(await indexes()).toEqual([{ isValid: true }]);
    await db.sql`update pg_index set indisvalid = false where indexrelid = 'arcadia.sagas_by_title'::regclass`;
    await migrate(db, 'test');
    expect(await indexes()).toEqual([{ isValid: true }]);
  });

  test.each([[1, '0001.do.sagas.sql'], [19, '0019.do.one-saga-a-resource.sql']])('names the file of a migration that was applied and has been changed since, and says what to do (%i)', async (version, file) => {
    await migrate(db, 'test');
    await db.sql`update arcadia.migrations set md5 = md5('something else') where version = ${version}`;
    const error = await migrate(db, 'test').catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      name: 'ChangedMigrationError',
      message: expect.stringMatching(`^migrations/${file.replaceAll('.', '\\.')} is not the file that was applied to this database: its MD5 checksum was 6c7ba9c5a141421e1c03cb9807c97c74 and is now [0-9a-f]{32}\\.`),
    });
    expect(String(error)).toContain('Restore the file');
  });

  test('takes nothing back from a database that a newer version has migrated', async () => {
    await migrate(db, 'test');
    await db.sql`insert into arcadia.migrations (version, name, md5, run_at) values (9000, 'from the future', 'x', now())`;
    const before = await tables();
    await migrate(db, 'test').catch(() => undefined);
    expect(await tables()).toEqual(before);
    expect(await db.sql`select 1 from arcadia.migrations where version = 9000`).toHaveLength(1);
  });

  test('refuses the database of another environment, and does not rename it', async () => {
    await migrate(db, 'production');
    const refused = migrate(db, 'staging');
    await expect(refused).rejects.toThrow(EnvironmentMismatchError);
    await expect(refused).rejects.toThrow('ARCADIA_ENV is staging, but this database belongs to the environment production');
    expect(await migrate(db, 'production')).toEqual([]);
  });
});

describe('checkEnvironment', () => {
  test('accepts the database of its own environment', async () => {
    await migrate(db, 'production');
    await expect(checkEnvironment(db, 'production')).resolves.toMatchObject({ name: 'production' });
  });

  test('refuses the database of another environment', async () => {
    await migrate(db, 'production');
    await expect(checkEnvironment(db, 'staging')).rejects.toThrow(EnvironmentMismatchError);
  });

  test('says of a database that was never migrated what is to be done', async () => {
    const refused = checkEnvironment(db, 'production');
    await expect(refused).rejects.toThrow(EnvironmentMismatchError);
    await expect(refused).rejects.toThrow('run `arcadia migrate` first');
  });

  test('refuses a standby, which shows the past and cannot be written', async () => {
    const server = await startPrivatePostgres();
    const primary = openDatabase(server.url);
    try {
      await migrate(primary, 'production');
      await expect(checkEnvironment(primary, 'production')).resolves.toMatchObject({ name: 'production' });
      await writeFile(join(server.dataDir, 'standby.signal'), '');
      await server.restart('fast');
      const standby = openDatabase(server.url);
      try {
        await expect(checkEnvironment(standby, 'production')).rejects.toThrow(ConfigError);
      } finally {
        await standby.close();
      }
    } finally {
      await primary.close();
      await server.stop();
    }
  });

  test('does not take a database that cannot be reached for one that was never migrated', async () => {
    const nowhere = openDatabase('postgres://postgres@127.0.0.1:1/nothing');
    try {
      await expect(checkEnvironment(nowhere, 'production')).rejects.not.toBeInstanceOf(EnvironmentMismatchError);
    } finally {
      await nowhere.close();
    }
  });
});

test('every function of ours has a search_path of its own', async () => {
  await migrate(db, 'test');
  const rows = await db.sql<{ name: string; path: string | null }[]>`
    select proname as name, (select setting from unnest(proconfig) as setting where setting like 'search_path=%') as path
    from pg_proc where pronamespace = 'arcadia'::regnamespace`;
  expect(rows.length).toBeGreaterThan(5);
  expect(rows.filter(({ path }) => path !== 'search_path=pg_catalog, pg_temp')).toEqual([]);
});
