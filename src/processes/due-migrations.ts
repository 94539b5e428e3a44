// Which files of `migrations/` a database lacks. Only reads: migrate.ts applies them.
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Database } from '../platform/db.ts';
import { sqlStateOf } from '../platform/db.ts';
import { NotMigratedError } from '../platform/environment-mismatch.ts';
import { counted } from '../platform/text.ts';

export const migrationFolder = fileURLToPath(new URL('../../migrations/', import.meta.url));

/**
 * Compares the database with `migrations/` without changing anything.
 *
 * @returns `due`: names of files that are not applied; `unknown`: number of applied migrations that this version does not
 *   have
 */
export async function readMigrations(db: Pick<Database, 'run'>): Promise<{ due: string[]; unknown: number }> {
  const files = (await readdir(migrationFolder)).filter((name) => /^\d+\.do\..+\.sql$/.test(name)).toSorted();
  const rows = await db
    .run('migrations.read', (sql) => sql<{ version: number }[]>`select version::int as version from arcadia.migrations where version > 0`)
    .catch((error: unknown) => {
      // No schema or no table: nothing is applied.
      if (['3F000', '42P01'].includes(sqlStateOf(error) ?? '')) return [];
      throw error;
    });
  const applied = new Set(rows.map(({ version }) => version));
  const known = new Map(files.map((name) => [Number.parseInt(name, 10), name]));
  return { due: [...known].filter(([version]) => !applied.has(version)).map(([, name]) => name), unknown: [...applied].filter((version) => !known.has(version)).length };
}

/**
 * Checks that no migration is due. Migrations that this version does not have are accepted: code is rolled back, the
 * database is not.
 *
 * @throws {NotMigratedError} naming the first file that is due
 */
export async function requireMigrated(db: Pick<Database, 'run'>): Promise<void> {
  const { due } = await readMigrations(db);
  if (due.length === 0) return;
  throw new NotMigratedError(`${counted(due.length, 'migration')} ${due.length === 1 ? 'is' : 'are'} due, the first is ${due[0]}: run \`arcadia migrate\`.`);
}
