// The environment and the queues that a database belongs to. These checks keep a process that is pointed at the wrong
// ones from handing its sagas to another fleet.
import { ConfigError } from '../platform/config-error.ts';
import type { Database } from '../platform/db.ts';
import { isNotMigrated } from '../platform/db.ts';
import { EnvironmentMismatchError, NotMigratedError } from '../platform/environment-mismatch.ts';
import { requireVersion } from '../platform/server-version.ts';

export { EnvironmentMismatchError } from '../platform/environment-mismatch.ts';

/** A database's identity: the name of its environment, and an id that only copies of the database share. */
export type Environment = Readonly<{ name: string; deployment: string }>;

/**
 * Checks that this database is migrated and belongs to this environment. A process on a copy of production's database
 * must never act on production's resources.
 *
 * @throws {EnvironmentMismatchError} if the database belongs to another environment
 * @throws {NotMigratedError} if it was never migrated
 * @throws {ConfigError} if it is a read-only standby, or Postgres is older than this program needs
 */
export async function checkEnvironment(db: Database, environment: string): Promise<Environment> {
  const [row] = await db
    .run('environment.read', (sql) => sql<(Environment & { isStandby: boolean; version: string })[]>`
      select name, deployment, pg_is_in_recovery() as is_standby, current_setting('server_version') as version from arcadia.environment`)
    .catch((error: unknown) => {
      if (isNotMigrated(error)) return [];
      throw error;
    });
  if (row === undefined) {
    throw new NotMigratedError('This database has not been set up yet, or by an older version: run `arcadia migrate` first.');
  }
  requireVersion('PostgreSQL', row.version);
  requireSameEnvironment(row.name, environment);
  // A standby lags behind, and sagas must be read where they are written.
  if (row.isStandby) throw new ConfigError('DATABASE_URL leads to a standby of Postgres: name the primary, or add target_session_attrs=read-write where it names several hosts.');
  return { name: row.name, deployment: row.deployment };
}

/** The owner recorded next to queues: this database. */
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
