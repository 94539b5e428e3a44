// Applies `migrations/`, forward only. All pending files and their version rows go in one transaction under one
// advisory lock, so that two processes that start at once cannot meet, and a crash leaves nothing half-applied.
import { fileURLToPath } from 'node:url';
import Postgrator from 'postgrator';
import { catalog } from './catalog.ts';
import { ConfigError } from './config.ts';
import type { Database, ReservedSql } from './db.ts';
import { reserveConnection } from './db.ts';

// Any number will do, as long as everybody who migrates this schema uses the same.
const MIGRATION_LOCK = 4_207_310_583;

const migrationPattern = fileURLToPath(new URL('../migrations/*', import.meta.url));

/** Thrown when a database belongs to another environment than the one this process runs in. */
export class EnvironmentMismatchError extends Error {
  override readonly name = 'EnvironmentMismatchError';
  readonly code = 'environment_mismatch';
}

/**
 * Brings the schema `arcadia` up to date; does nothing where it is. The first call writes the environment's name into
 * the database. Each call writes down the sagas of this version, for those who start them by SQL.
 *
 * @returns the names of the migrations that were applied
 * @throws {EnvironmentMismatchError} when the database was set up for another environment
 */
export async function migrate(db: Database, environment: string): Promise<string[]> {
  // A reserved connection, and BEGIN by hand: postgres.js can send the BEGIN of `sql.begin` before it has reserved
  // the connection (its issue 1204), and other statements would run inside the transaction.
  const connection = await reserveConnection(db);
  try {
    await connection`begin`;
    // Large migrations, and waiting for those of another process, may take longer than an ordinary statement.
    await connection`set local statement_timeout = 0`;
    await connection`select pg_advisory_xact_lock(${MIGRATION_LOCK})`;
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
    await connection`insert into arcadia.environment (name) values (${environment}) on conflict do nothing`;
    const [row] = await connection<{ name: string }[]>`select name from arcadia.environment`;
    requireSameEnvironment(row?.name, environment);
    await writeDefinitions(connection);
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
async function writeDefinitions(connection: ReservedSql): Promise<void> {
  const definitions = Object.entries(catalog).map(([name, { steps }]) => ({ name, steps: steps.map((step) => step.name) }));
  await connection`delete from arcadia.saga_definitions where name <> all (${definitions.map(({ name }) => name)}::text[])`;
  for (const { name, steps } of definitions) {
    await connection`
      insert into arcadia.saga_definitions (name, steps) values (${name}, ${steps}::text[])
      on conflict (name) do update set steps = excluded.steps`;
  }
}

/** Postgrator looks for `column_name`, which the pool's transform has turned into `columnName`. */
async function queryRows(connection: ReservedSql, query: string): Promise<Record<string, unknown>[]> {
  const rows = await connection.unsafe<Record<string, unknown>[]>(query);
  return Array.from(rows, (row) => Object.assign({}, row, { column_name: row['columnName'] }));
}

/**
 * Checks that this database is migrated and belongs to this environment: a copy of production's database must never
 * act on production's droplets.
 *
 * @throws {EnvironmentMismatchError} when it is another environment's, or was never migrated
 * @throws {ConfigError} when it is a standby, which can only be read
 */
export async function checkEnvironment(db: Database, environment: string): Promise<void> {
  const rows = await db
    .run('environment.read', (sql) => sql<{ name: string; isStandby: boolean }[]>`select name, pg_is_in_recovery() as is_standby from arcadia.environment`)
    .catch((error: unknown) => {
      if (error instanceof Error && 'code' in error && (error.code === '42P01' || error.code === '3F000')) return [];
      throw error;
    });
  if (rows[0] === undefined) {
    throw new EnvironmentMismatchError('This database has not been set up yet: run `arcadia migrate` first.');
  }
  requireSameEnvironment(rows[0].name, environment);
  // A standby shows the past, and a saga must be read where it is written.
  if (rows[0].isStandby) throw new ConfigError('DATABASE_URL leads to a standby of Postgres: name the primary, or add target_session_attrs=read-write where it names several hosts.');
}

function requireSameEnvironment(found: string | undefined, expected: string): void {
  if (found === expected) return;
  throw new EnvironmentMismatchError(
    `ARCADIA_ENV is ${expected}, but this database belongs to the environment ${found}. ` +
      'If it is a copy, set up a database of its own for this environment; else set ARCADIA_ENV to match.',
  );
}
