// Older versions of the schema, as their own `migrate` left them.
import { fileURLToPath } from 'node:url';
import Postgrator from 'postgrator';

export const migrationFolder = fileURLToPath(new URL('../../migrations/', import.meta.url));

/** Applies `migrations/` up to a version, with the statements given to `query`. Returns the names of those applied. */
export async function migrateTo(query: (statement: string) => Promise<readonly Record<string, unknown>[]>, version: number): Promise<string[]> {
  const postgrator = new Postgrator({
    migrationPattern: `${migrationFolder}*`,
    driver: 'pg',
    schemaTable: 'arcadia.migrations',
    newline: 'LF',
    // Postgrator expects `column_name`, which the pool's transform converts to `columnName`.
    execQuery: async (statement) => ({ rows: (await query(statement)).map((row) => ({ ...row, column_name: row['columnName'] })) }),
  });
  return (await postgrator.migrate(String(version))).map(({ filename }) => filename.slice(migrationFolder.length));
}
