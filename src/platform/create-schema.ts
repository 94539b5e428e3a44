// `create schema if not exists` asks for the right to create schemas in the database even where the schema is there. A role
// for which somebody made the schema has no such right, and needs none.
import { ConfigError } from './config-error.ts';
import { errorCodeOf } from './error-code.ts';

// insufficient_privilege
const NOT_ALLOWED = '42501';

/**
 * Makes a schema where there is none.
 *
 * @param query runs SQL without parameters on one connection
 * @throws {ConfigError} when it is missing and this role may not make it
 */
export async function ensureSchema(schema: string, query: (sql: string) => PromiseLike<readonly unknown[]>): Promise<void> {
  const found = await query(`select 1 from pg_catalog.pg_namespace where nspname = '${schema}'`);
  if (found.length > 0) return;
  try {
    await query(`create schema if not exists "${schema}"`);
  } catch (error) {
    if (errorCodeOf(error) !== NOT_ALLOWED) throw error;
    throw new ConfigError(
      `DATABASE_URL: its role may not create the schema ${schema}. Have somebody who may create it for this role: create schema ${schema} authorization <role>. See docs/postgres.md`,
      { cause: error },
    );
  }
}

/** Whether SQL of a library's is there only to make a schema, which {@link ensureSchema} did. */
export function createsSchema(sql: string): boolean {
  return /^\s*create schema if not exists "?\w+"?;?\s*$/i.test(sql);
}
