// Applies `migrations/`, forward only. All pending files and their version rows go in one transaction under one
// advisory lock, so that two processes that start at once cannot meet, and a crash leaves nothing half-applied.
import { fileURLToPath } from 'node:url';
import Postgrator from 'postgrator';
import type { App } from '../saga/app.ts';
import { createsSchema, ensureSchema } from '../platform/create-schema.ts';
import type { Database, ReservedSql } from '../platform/db.ts';
import { reserveConnection } from '../platform/db.ts';
import { loadDefaultApp } from './default-app.ts';
import { requireSameEnvironment } from './environment.ts';
import { requireVersion } from '../platform/server-version.ts';

// Any number will do, as long as everybody who migrates this schema uses the same.
const MIGRATION_LOCK = 4_207_310_583;

const migrationPattern = fileURLToPath(new URL('../../migrations/*', import.meta.url));

/**
 * Brings the schema `arcadia` up to date; does nothing where it is. The first call writes the environment's name into
 * the database. Each call writes down the sagas of this version, for those who start them by SQL.
 *
 * @param given the sagas: the droplet sagas, where left out
 * @returns the names of the migrations that were applied
 * @throws {EnvironmentMismatchError} when the database was set up for another environment
 * @throws {ConfigError} when Postgres is older than this program needs
 */
export async function migrate(db: Database, environment: string, given?: App['catalog']): Promise<string[]> {
  const catalog = given ?? (await loadDefaultApp()).catalog;
  // A reserved connection, and BEGIN by hand: postgres.js can send the BEGIN of `sql.begin` before it has reserved
  // the connection (its issue 1204), and other statements would run inside the transaction.
  const connection = await reserveConnection(db);
  try {
    const [server] = await connection<{ version: string }[]>`select current_setting('server_version') as version`;
    requireVersion('PostgreSQL', server?.version ?? '');
    await connection`begin isolation level read committed`;
    // Large migrations, and waiting for those of another process, may take longer than an ordinary statement.
    await connection`select set_config(name, '0', true) from pg_settings where name in ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')`;
    await connection`select pg_advisory_xact_lock(${MIGRATION_LOCK})`;
    await ensureSchema('arcadia', (sql) => connection.unsafe(sql));
    const postgrator = new Postgrator({
      migrationPattern,
      driver: 'pg',
      schemaTable: 'arcadia.migrations',
      newline: 'LF',
      execQuery: async (query) => ({ rows: await queryRows(connection, query) }),
    });
    const applied = await postgrator.migrate();
    await connection`
      create table if not exists arcadia.environment (
        only_row boolean primary key default true check (only_row),
        name text not null
      )`;
    // No migration's: the files come before the table. Looked for first, as to alter a table takes a lock on it in any case,
    // for which a backup may have to be waited for, and everybody who starts would wait behind.
    const columns = await connection<{ name: string }[]>`
      select attname as name from pg_attribute where attrelid = 'arcadia.environment'::regclass and attname in ('deployment', 'account') and not attisdropped`;
    if (columns.length < 2) {
      await connection`
        alter table arcadia.environment
          add column if not exists deployment uuid not null default gen_random_uuid(),
          add column if not exists account text`;
    }
    await connection`insert into arcadia.environment (name) values (${environment}) on conflict do nothing`;
    const [row] = await connection<{ name: string }[]>`select name from arcadia.environment`;
    requireSameEnvironment(row?.name, environment);
    await writeDefinitions(connection, catalog);
    await connection`commit`;
    return applied.map((migration) => migration.name);
  } catch (error) {
    await connection`rollback`.catch(() => undefined);
    throw error;
  } finally {
    connection.release();
  }
}

/**
 * Only `migrate` writes the definitions, not each worker: while a deploy is under way, workers of two versions would
 * write over each other.
 */
async function writeDefinitions(connection: ReservedSql, catalog: App['catalog']): Promise<void> {
  const definitions = Object.entries(catalog).map(([name, { steps, secrets = [] }]) => ({ name, steps: steps.map((step) => step.name), secrets }));
  await connection`delete from arcadia.saga_definitions where name <> all (${definitions.map(({ name }) => name)}::text[])`;
  for (const { name, steps, secrets } of definitions) {
    await connection`
      insert into arcadia.saga_definitions (name, steps, secrets) values (${name}, ${steps}::text[], ${[...secrets]}::text[])
      on conflict (name) do update set steps = excluded.steps, secrets = excluded.secrets`;
  }
}

/** Postgrator looks for `column_name`, which the pool's transform has turned into `columnName`. */
async function queryRows(connection: ReservedSql, query: string): Promise<Record<string, unknown>[]> {
  if (createsSchema(query)) return [];
  const rows = await connection.unsafe<Record<string, unknown>[]>(query);
  return Array.from(rows, (row) => Object.assign({}, row, { column_name: row['columnName'] }));
}
