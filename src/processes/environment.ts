// What a database belongs to: an environment, a DigitalOcean account, and queues. A process that was pointed at others
// would take droplets for gone, make them a second time, or hand its sagas to strangers.
import { setTimeout as delay } from 'node:timers/promises';
import { ConfigError } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { sqlStateOf } from '../platform/db.ts';
import type { DigitalOceanClient } from '../do/client.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { Log } from '../platform/log.ts';
import { requireVersion } from '../platform/server-version.ts';

/** Thrown when a database belongs to another environment, or to another account, than the ones this process works in. */
export class EnvironmentMismatchError extends Error {
  override readonly name = 'EnvironmentMismatchError';
  readonly code = 'environment_mismatch';
}

/** A database's own name: that of its environment, and an id that no other database has, but for its copies. */
export type Environment = Readonly<{ name: string; deployment: string }>;

// No such table, schema or column.
const NOT_MIGRATED = ['42P01', '3F000', '42703'];

/**
 * Checks that this database is migrated and belongs to this environment: a copy of production's database must never
 * act on production's droplets.
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

type AccountDeps = Readonly<{ db: Pick<Database, 'run'>; digitalOcean: Pick<DigitalOceanClient, 'getAccount'>; log: Log }>;

/**
 * Checks that the token is of the account in which this database's droplets are; the first one that is seen is written
 * down. To any other, DigitalOcean answers 404 for each of them, as if they were gone.
 *
 * @returns whether it is settled: not while DigitalOcean does not answer. A token that may not read the account
 *   (scope `account:read`) is let pass, and the log says so
 * @throws {EnvironmentMismatchError} when it is another account's
 */
export async function checkAccount({ db, digitalOcean, log }: AccountDeps): Promise<boolean> {
  let seen: string;
  try {
    seen = (await digitalOcean.getAccount()).id;
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    const isSettled = error.kind === 'unauthorized' || error.kind === 'rejected';
    const what = isSettled ? 'the token may not read its account (scope account:read): nobody checks that the droplets on record are in it' : 'the account of the token could not be read yet';
    log.warn({ status: error.status, reason: error.message }, what);
    return isSettled;
  }
  const [row] = await db.run('environment.account', (sql) => sql<{ account: string }[]>`update arcadia.environment set account = coalesce(account, ${seen}) returning account`);
  if (row === undefined || row.account === seen) return true;
  throw new EnvironmentMismatchError(
    `DIGITALOCEAN_TOKEN is of the account ${seen}, but this database's droplets are in the account ${row.account}: with this token all of them would seem to be gone. ` +
      'Set the token that belongs to this database, or set up a database of its own for the other account. ' +
      'Only where no droplet on record is needed any more: update arcadia.environment set account = null',
  );
}

/**
 * Asks until it is settled, as {@link checkAccount} does, or until the signal is aborted.
 *
 * @returns why the process must not go on; null: nothing is wrong
 */
export async function watchAccount(deps: AccountDeps & { everyMs: number; signal: AbortSignal }): Promise<string | null> {
  while (!deps.signal.aborted) {
    await delay(deps.everyMs, undefined, { signal: deps.signal }).catch(() => undefined);
    try {
      if (deps.signal.aborted || (await checkAccount(deps))) return null;
    } catch (error) {
      if (error instanceof EnvironmentMismatchError) return error.message;
      deps.log.warn({ err: error }, 'the account on record could not be read yet');
    }
  }
  return null;
}
