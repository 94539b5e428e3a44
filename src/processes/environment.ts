// What a database belongs to: an environment, and queues. A process that was pointed at others would hand its sagas to
// strangers.
import { ConfigError } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { sqlStateOf } from '../platform/db.ts';
import { EnvironmentMismatchError } from '../platform/environment-mismatch.ts';
import { requireVersion } from '../platform/server-version.ts';

export { EnvironmentMismatchError } from '../platform/environment-mismatch.ts';

/** A database's own name: that of its environment, and an id that no other database has, but for its copies. */
export type Environment = Readonly<{ name: string; deployment: string }>;

// No such table, schema or column.
const NOT_MIGRATED = ['42P01', '3F000', '42703'];

/**
 * Checks that this database is migrated and belongs to this environment: a copy of production's database must never
 * act on what is production's.
 *
 * @throws {EnvironmentMismatchError} when it is another environment's, or was never migrated
 * @throws {ConfigError} when it is a standby, which can only be read, or an older Postgres than this program needs
 */
export async function checkEnvironment(db: Database, environment: string): Promise<Environment> {
  const [row] = await db
    .run('environment.read', (sql) => sql<(Environment & { isStandby: boolean; version: string })[]>`
      select name, deployment, pg_is_in_recovery() as is_standby, current_setting('server_version') as version from arcadia.environment`)
    .catch((error: unknown) => {
      if (NOT_MIGRATED.includes(sqlStateOf(error) ?? '')) return [];
      throw error;
    });
  if (row === undefined) {
    throw new EnvironmentMismatchError('This database has not been set up yet, or by an older version: run `arcadia migrate` first.');
  }
  requireVersion('PostgreSQL', row.version);
  requireSameEnvironment(row.name, environment);
  // A standby shows the past, and a saga must be read where it is written.
  if (row.isStandby) throw new ConfigError('DATABASE_URL leads to a standby of Postgres: name the primary, or add target_session_attrs=read-write where it names several hosts.');
  return { name: row.name, deployment: row.deployment };
}

/** What stands beside queues to say that they are this database's. */
export function ownerOf({ name, deployment }: Environment): string {
  return `${name}/${deployment}`;
}

/** @throws {EnvironmentMismatchError} */
export function requireSameEnvironment(found: string | undefined, expected: string): void {
  if (found === expected) return;
  throw new EnvironmentMismatchError(
    `ARCADIA_ENV is ${expected}, but this database belongs to the environment ${found}. ` +
      'If it is a copy, set up a database of its own for this environment; else set ARCADIA_ENV to match.',
  );
}
