// The DigitalOcean account that a database's droplets belong to. To a process with another account's token, all of them
// would look gone.
import { setTimeout as delay } from 'node:timers/promises';
import type { DigitalOceanClient } from '../do/client.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { Database } from '../platform/db.ts';
import { EnvironmentMismatchError } from '../platform/environment-mismatch.ts';
import type { Log } from '../platform/log.ts';

type AccountDeps = Readonly<{ db: Pick<Database, 'run'>; digitalOcean: Pick<DigitalOceanClient, 'getAccount'>; log: Log }>;

/**
 * Checks that the token belongs to the account of this database's droplets. Records the first account it sees. With any
 * other account's token, DigitalOcean answers 404 for each droplet, as if it were gone.
 *
 * @returns whether the check is settled; false while DigitalOcean does not answer. A token that may not read the account
 *   (scope `account:read`) is accepted, and a log line says so
 * @throws {EnvironmentMismatchError} if the token belongs to another account
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
 * Repeats {@link checkAccount} until it is settled or the signal is aborted.
 *
 * @returns why the process must stop; null: no problem
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
