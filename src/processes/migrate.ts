// Applies `migrations/`, forward only. All pending files and their version rows are written in one transaction under one
// advisory lock; in a large database, each file with its row in one. Two processes that start at once cannot collide, and a
// crash leaves nothing half-applied. Indexes of large tables are built after that, while sagas go on.
import { basename } from 'node:path';
import Postgrator from 'postgrator';
import { z } from 'zod';
import type { App } from '../saga/app.ts';
import { describeDefinition } from '../saga/written-definitions.ts';
import { createsSchema, ensureSchema } from '../platform/create-schema.ts';
import type { Database, ReservedSql } from '../platform/db.ts';
import { reserveConnection } from '../platform/db.ts';
import { loadDefaultApp } from './default-app.ts';
import { migrationFolder } from './due-migrations.ts';
import { requireSameEnvironment } from './environment.ts';
import { buildConcurrently, buildSmallIndexes } from './large-indexes.ts';
import type { Blocker, LockPatience } from '../platform/lock-retries.ts';
import { lockPatience, untilUnlocked } from '../platform/lock-retries.ts';
import { requireVersion } from '../platform/server-version.ts';

// An arbitrary number, the same for every process that migrates this schema.
const MIGRATION_LOCK = 4_207_310_583;

const migrationPattern = `${migrationFolder}*`;

// With more, migrations take longer than sagas should stand still.
const LARGE_BYTES = 128 * 1_048_576;

/**
 * Migrates the schema `arcadia`. Does nothing if it is up to date. The first call writes the environment's name into the
 * database. Each call writes the saga definitions of this version, for sagas started by SQL.
 *
 * @param given the sagas; the droplet sagas by default
 * @param options.largeBytes size from which on a table is large: if that of the sagas is, each migration has a transaction of its
 *   own; indexes of a large table are built concurrently
 * @param options.onForgotten called with the sagas that SQL could start until now, and that the catalog does not have
 * @param options.onBlocked called with the sessions that keep it from its locks. It tries again until it gets them; sagas go on
 *   meanwhile
 * @returns the names of the migrations that this call applied
 * @throws {EnvironmentMismatchError} if the database was set up for another environment
 * @throws {ConfigError} if Postgres is older than this program needs
 * @throws {ChangedMigrationError} if the checksum of an applied migration has changed, naming its file
 * @throws {SkippedMigrationError} if a file was not applied though a later one was, naming it
 */
export async function migrate(db: Database, environment: string, given?: App['catalog'], { largeBytes = LARGE_BYTES, onForgotten, ...patience }: { largeBytes?: number; onForgotten?: (sagas: readonly string[]) => void } & Partial<LockPatience> = {}): Promise<string[]> {
  const waiting = { ...lockPatience, ...patience };
  const catalog = given ?? (await loadDefaultApp()).catalog;
  // Uses a reserved connection and a manual BEGIN. postgres.js can send the BEGIN of `sql.begin` before it has reserved
  // the connection (postgres.js issue 1204), and other statements would then run inside the transaction.
  const connection = await reserveConnection(db);
  try {
    const [server] = await connection<{ version: string }[]>`select current_setting('server_version') as version`;
    requireVersion('PostgreSQL', server?.version ?? '');
    const postgrator = new Postgrator({
      migrationPattern,
      driver: 'pg',
      schemaTable: 'arcadia.migrations',
      newline: 'LF',
      execQuery: async (query) => ({ rows: await queryRows(connection, query) }),
    });
    const applied: string[] = [];
    const attempt = async () => {
      await begin(connection, waiting.lockWaitMs);
      const known = await readEnvironment(connection);
      if (known !== null) requireSameEnvironment(known, environment);
      await requireNoGap(connection, postgrator);
      // Sagas wait for the locks of a migration until its transaction ends.
      const next = (await isLarge(connection, largeBytes)) ? await nextVersion(postgrator) : null;
      const names = (await applyFiles(postgrator, next)).map(({ name }) => name);
      const isLast = next === null || (await nextVersion(postgrator)) === null;
      const end = isLast ? await writeRest(connection, { environment, catalog, largeBytes }) : null;
      await connection`commit`;
      applied.push(...names);
      return end;
    };
    const on = { schema: 'arcadia', query: (sql: string) => connection.unsafe<Blocker[]>(sql) };
    let end: Awaited<ReturnType<typeof attempt>> = null;
    while (end === null) end = await untilUnlocked(waiting, on, async () => orRollback(connection, attempt));
    if (end.forgotten.length > 0) onForgotten?.(end.forgotten);
    await buildConcurrently(connection, end.left);
    return applied;
  } finally {
    connection.release();
  }
}

async function orRollback<T>(connection: ReservedSql, transaction: () => Promise<T>): Promise<T> {
  try {
    return await transaction();
  } catch (error) {
    await connection`rollback`.catch(() => undefined);
    throw error;
  }
}

/** What follows the last file, in its transaction. Returns the sagas that SQL can no longer start, and the indexes that are left to build. */
async function writeRest(connection: ReservedSql, { environment, catalog, largeBytes }: { environment: string; catalog: App['catalog']; largeBytes: number }) {
  await connection`
    create table if not exists arcadia.environment (
      only_row boolean primary key default true check (only_row),
      name text not null
    )`;
  // Not a migration, because the migration files are applied before the table exists. Checks the columns first:
  // altering a table always takes a lock on it. That lock may have to wait for a backup, and every starting process
  // would queue behind it.
  const columns = await connection<{ name: string }[]>`
    select attname as name from pg_attribute where attrelid = 'arcadia.environment'::regclass and attname in ('deployment', 'account') and not attisdropped`;
  if (columns.length < 2) {
    await connection`
      alter table arcadia.environment
        add column if not exists deployment uuid not null default gen_random_uuid(),
        add column if not exists account text`;
  }
  await connection`insert into arcadia.environment (name) values (${environment}) on conflict do nothing`;
  requireSameEnvironment((await readEnvironment(connection)) ?? undefined, environment);
  const forgotten = await writeDefinitions(connection, catalog);
  return { forgotten, left: await buildSmallIndexes(connection, largeBytes) };
}

/** Begins a transaction in which no other process migrates, and which waits for any other lock for a moment only. */
async function begin(connection: ReservedSql, lockWaitMs: number): Promise<void> {
  await connection`begin isolation level read committed`;
  // Large migrations, and waiting for those of another process, may take longer than an ordinary statement.
  await connection`select set_config(name, '0', true) from pg_settings where name in ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')`;
  await connection`select pg_advisory_xact_lock(${MIGRATION_LOCK})`;
  await connection`select set_config('lock_timeout', ${String(lockWaitMs)}, true)`;
  await ensureSchema('arcadia', (sql) => connection.unsafe(sql));
}

/** The environment's name in the database; null: none yet. */
async function readEnvironment(connection: ReservedSql): Promise<string | null> {
  const [table] = await connection<{ exists: boolean }[]>`select to_regclass('arcadia.environment') is not null as exists`;
  if (table?.exists !== true) return null;
  const [row] = await connection<{ name: string }[]>`select name from arcadia.environment`;
  return row?.name ?? null;
}

async function isLarge(connection: ReservedSql, largeBytes: number): Promise<boolean> {
  const [table] = await connection<{ isLarge: boolean | null }[]>`select pg_relation_size(to_regclass('arcadia.sagas')) > ${largeBytes}::bigint as is_large`;
  return table?.isLarge === true;
}

/** The version of the first file that is not applied; null: there is none. */
async function nextVersion(postgrator: Postgrator): Promise<number | null> {
  const applied = await postgrator.getDatabaseVersion();
  const due = (await postgrator.getMigrations()).filter(({ version, action }) => action === 'do' && version > applied);
  return due.length === 0 ? null : Math.min(...due.map(({ version }) => version));
}

/**
 * Checks that no file lies before one that is applied: it would never be applied.
 *
 * @throws {SkippedMigrationError}
 */
async function requireNoGap(connection: ReservedSql, postgrator: Postgrator): Promise<void> {
  const last = await postgrator.getDatabaseVersion();
  const files = (await postgrator.getMigrations()).filter(({ version, action }) => action === 'do' && version <= last);
  if (files.length === 0) return;
  const applied = new Set((await connection<{ version: number }[]>`select version::int as version from arcadia.migrations`).map(({ version }) => version));
  const skipped = files.find(({ version }) => !applied.has(version));
  if (skipped !== undefined) throw new SkippedMigrationError(basename(skipped.filename), last);
}

/** Thrown if a migration was not applied, though a later one was. */
class SkippedMigrationError extends Error {
  override readonly name = 'SkippedMigrationError';
  readonly code = 'skipped_migration';

  constructor(file: string, last: number) {
    super(
      `migrations/${file} is not applied to this database, though migration ${last} is. Migrations are applied in their order, so nothing was migrated. ` +
        'A build of arcadia-cloud that lacked the file migrated this database: use that build, or restore a backup from before.',
    );
  }
}

/** Thrown if an applied migration differs from its current file. */
class ChangedMigrationError extends Error {
  override readonly name = 'ChangedMigrationError';
  readonly code = 'changed_migration';

  constructor(file: string, { applied, found }: { applied: string; found: string }) {
    super(
      `migrations/${file} is not the file that was applied to this database: its MD5 checksum was ${applied} and is now ${found}. Nothing was migrated. ` +
        'Restore the file: install arcadia-cloud again, or check the file out of git. If you meant to change the schema, put the change into a new migration.',
    );
  }
}

/** Applies the files up to a version; null: all of them. */
async function applyFiles(postgrator: Postgrator, version: number | null): Promise<Postgrator.Migration[]> {
  try {
    return await postgrator.migrate(version === null ? '' : String(version));
  } catch (error) {
    const [, version] = /^MD5 checksum failed for migration \[(\d+)\]/.exec(error instanceof Error ? error.message : '') ?? [];
    if (version === undefined) throw error;
    const files = await postgrator.getMigrations();
    const file = files.find((one) => one.version === Number(version) && one.action === 'do');
    const { rows } = await postgrator.runQuery(`select md5 from arcadia.migrations where version = ${Number(version)}`);
    const [row] = z.array(z.looseObject({ md5: z.string() })).parse(rows);
    throw new ChangedMigrationError(basename(file?.filename ?? version), { applied: row?.md5 ?? 'unknown', found: file?.md5 ?? 'unknown' });
  }
}

/**
 * Only `migrate` writes the definitions. If each worker did, workers of two versions would overwrite each other's during
 * a deploy.
 *
 * @returns the names of those that were there, and are not in the catalog
 */
async function writeDefinitions(connection: ReservedSql, catalog: App['catalog']): Promise<string[]> {
  const definitions = Object.entries(catalog).map(([name, definition]) => ({ name, ...describeDefinition(definition) }));
  const forgotten = await connection<{ name: string }[]>`delete from arcadia.saga_definitions where name <> all (${definitions.map(({ name }) => name)}::text[]) returning name`;
  for (const { name, steps, secrets, optionalSteps, inputDigest } of definitions) {
    await connection`
      insert into arcadia.saga_definitions as written (name, steps, secrets, optional_steps, input_digest, changed_at)
      values (${name}, ${[...steps]}::text[], ${[...secrets]}::text[], ${JSON.stringify(optionalSteps)}::text::jsonb, ${inputDigest}, clock_timestamp())
      on conflict (name) do update set steps = excluded.steps, secrets = excluded.secrets, optional_steps = excluded.optional_steps, input_digest = excluded.input_digest, changed_at = excluded.changed_at
        where (written.steps, written.secrets, written.optional_steps, written.input_digest) is distinct from (excluded.steps, excluded.secrets, excluded.optional_steps, excluded.input_digest)`;
  }
  return forgotten.map(({ name }) => name).toSorted();
}

/** Postgrator expects `column_name`, which the pool's transform converts to `columnName`. */
async function queryRows(connection: ReservedSql, query: string): Promise<Record<string, unknown>[]> {
  if (createsSchema(query)) return [];
  const rows = await connection.unsafe<Record<string, unknown>[]>(query);
  return Array.from(rows, (row) => Object.assign({}, row, { column_name: row['columnName'] }));
}
