// `create schema if not exists` requires the right to create schemas even if the schema exists. A role whose schema was
// created by an administrator does not have that right and does not need it.
import { ConfigError } from './config-error.ts';
import { errorCodeOf } from './error-code.ts';

// insufficient_privilege
const NOT_ALLOWED = '42501';

// SQLSTATE of a unique violation, here in pg_namespace, and of a duplicate schema.
const CREATED_MEANWHILE: ReadonlySet<string> = new Set(['23505', '42P06']);

/**
 * Creates a schema if it does not exist.
 *
 * @param query runs SQL without parameters on one connection
 * @throws {ConfigError} if the schema does not exist and this role may not create it
 */
export async function ensureSchema(schema: string, query: (sql: string) => PromiseLike<readonly unknown[]>): Promise<void> {
  const found = await query(`select 1 from pg_catalog.pg_namespace where nspname = '${schema}'`);
  if (found.length > 0) return;
  try {
    await query(`create schema if not exists "${schema}"`);
  } catch (error) {
    // `if not exists` does not see what another process creates at the same moment.
    if (CREATED_MEANWHILE.has(errorCodeOf(error) ?? '')) return;
    if (errorCodeOf(error) !== NOT_ALLOWED) throw error;
    throw new ConfigError(
      `DATABASE_URL: its role may not create the schema ${schema}. Have somebody who may create it for this role: create schema ${schema} authorization <role>. See docs/reference/postgres.md`,
      { cause: error },
    );
  }
}

/** Whether a library's SQL only creates a schema, which {@link ensureSchema} already did. */
export function createsSchema(sql: string): boolean {
  return /^\s*create schema if not exists "?\w+"?;?\s*$/i.test(sql);
}
