// The DigitalOcean account that a database's droplets belong to. To a process with another account's token, all of them
// would look gone.
import { setTimeout as delay } from 'node:timers/promises';
import type { DigitalOceanClient } from '../do/client.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { Database } from '../platform/db.ts';
import { EnvironmentMismatchError } from '../platform/environment-mismatch.ts';
import type { Log } from '../platform/log.ts';
import type { AccountCheck } from './account-checks.ts';
import { claimAccountCheck, saveAccountCheck } from './account-checks.ts';

type AccountDeps = Readonly<{
  db: Pick<Database, 'run'>;
  digitalOcean: Pick<DigitalOceanClient, 'getAccount'>;
  /** Goes by what another worker with this token found in the last minute. Without it, DigitalOcean is asked. */
  shared?: Readonly<{ scope: string; timeoutMs: number }>;
  log: Log;
}>;

// A worker that asks may die: after this time another one asks. DigitalOcean usually answers within a second.
const CLAIM_MS = 5_000;
const CLAIM_LOOK_MS = 200;

// Nobody can tell a process that waits from one that hangs unless it says so.
const SAY_AFTER_MS = 2_000;

/**
 * Checks that the token belongs to the account of this database's droplets. Records the first account it sees. With any
 * other account's token, DigitalOcean answers 404 for each droplet, as if it were gone.
 *
 * @returns whether the check is settled; false while DigitalOcean does not answer. A token that may not read the account
 *   (scope `account:read`) is accepted, and a log line says so
 * @throws {EnvironmentMismatchError} if the token belongs to another account
 */
export async function checkAccount(deps: AccountDeps): Promise<boolean> {
  const { db, log } = deps;
  const saying = setTimeout(() => log.info({}, 'waiting for DigitalOcean to say which account the token is of'), SAY_AFTER_MS);
  const found = await (deps.shared === undefined ? askAccount(deps) : shareCheck(deps, deps.shared)).finally(() => clearTimeout(saying));
  if (found.account === null) {
    log.warn({ status: found.status, reason: found.reason }, describeUnread(found));
    return found.isSettled;
  }
  const seen = found.account;
  const [row] = await db.run('environment.account', (sql) => sql<{ account: string }[]>`update arcadia.environment set account = coalesce(account, ${seen}) returning account`);
  if (row === undefined || row.account === seen) return true;
  const { problem, remedy } = describeOtherAccount(seen, row.account);
  throw new EnvironmentMismatchError(`${problem}. ${remedy}`);
}

function describeUnread({ isSettled, status }: Extract<AccountCheck, { account: null }>): string {
  if (!isSettled) return 'the account of the token could not be read yet';
  if (status === 401) return 'DigitalOcean refuses the token: set a valid DIGITALOCEAN_TOKEN';
  return 'the token may not read its account (scope account:read): nobody checks that the droplets on record are in it';
}

/** Explains that a token belongs to another account than the droplets on record. */
export function describeOtherAccount(seen: string, onRecord: string): Readonly<{ problem: string; remedy: string }> {
  return {
    problem: `DIGITALOCEAN_TOKEN is of the account ${seen}, but this database's droplets are in the account ${onRecord}: with this token all of them would seem to be gone`,
    remedy:
      'Set the token that belongs to this database, or set up a database of its own for the other account. ' +
      'Only where no droplet on record is needed any more: update arcadia.environment set account = null',
  };
}

/** Reads the account on record; null: none yet. */
export async function readAccountOnRecord(db: Pick<Database, 'run'>): Promise<string | null> {
  const [row] = await db.run('environment.read_account', (sql) => sql<{ account: string | null }[]>`select account from arcadia.environment`);
  return row?.account ?? null;
}

async function askAccount({ digitalOcean }: Pick<AccountDeps, 'digitalOcean'>): Promise<AccountCheck> {
  try {
    return { account: (await digitalOcean.getAccount()).id };
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    return { account: null, isSettled: error.kind === 'unauthorized' || error.kind === 'rejected', status: error.status, reason: error.message };
  }
}

/** Asks, unless another worker has asked a moment ago, or does so now. */
async function shareCheck(deps: AccountDeps, { scope, timeoutMs }: NonNullable<AccountDeps['shared']>): Promise<AccountCheck> {
  for (const startedAt = performance.now(); performance.now() - startedAt < timeoutMs + CLAIM_MS; await delay(CLAIM_LOOK_MS * (0.5 + Math.random()))) {
    const claim = await claimAccountCheck(deps.db, scope, CLAIM_MS);
    if (claim === 'wait') continue;
    if (claim !== 'ask') return claim;
    const found = await askAccount(deps);
    await saveAccountCheck(deps.db, scope, found);
    return found;
  }
  return askAccount(deps);
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
