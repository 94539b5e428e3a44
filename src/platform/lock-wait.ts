// Locks that another transaction holds, perhaps for minutes: callers use some of our tables in transactions of their own. A
// pool has few connections, so a statement waits for such a lock only for a moment, and the rest of the wait needs no
// connection.
import { setTimeout as delay } from 'node:timers/promises';
import type { Database, Sql, SqlFragment } from './db.ts';
import { sqlStateOf } from './db.ts';

/** Thrown if another transaction still held a lock after the last try. Nothing was written. */
export class LockHeldError extends Error {
  override readonly name = 'LockHeldError';
  readonly code = 'lock_held';
}

// Longer than the commit of a statement like ours usually takes. Each try that ends by it is a line in the log of Postgres.
const LOCK_WAIT_MS = 20;

/** The pauses between tries, in milliseconds. Enough for a transaction that is about to commit. */
export const PATIENT_MS: readonly number[] = [50, 100, 200, 400];

/** One try, for callers that come back by themselves. */
export const IMPATIENT_MS: readonly number[] = [];

/**
 * Runs a statement that may have to wait for a lock, without keeping a connection of the pool meanwhile. In a caller's own transaction it waits as long as Postgres lets it: the
 * caller chose to hold locks, and a limit set there would outlast the statement.
 *
 * @param statement must select from `limit`, a query of one row, before it asks for the lock: from then on, waits are short.
 *   The limit ends with the statement, also behind a pooler
 * @param pausesMs see {@link PATIENT_MS}; null: waits like any statement
 * @throws {LockHeldError} if another transaction holds the lock
 */
export async function runWithShortLocks<T>(db: Pick<Database, 'run'>, name: string, statement: (sql: Sql, limit: SqlFragment) => PromiseLike<T>, pausesMs: readonly number[] | null = PATIENT_MS): Promise<T> {
  // A caller's transaction has no pool.
  if (pausesMs === null || !('sql' in db)) return db.run(name, (sql) => statement(sql, sql`select null as lock_timeout`));
  const [pauseMs, ...later] = pausesMs;
  try {
    return await db.run(name, (sql) => statement(sql, sql`select set_config('lock_timeout', ${`${LOCK_WAIT_MS}ms`}, true) as lock_timeout`));
  } catch (error) {
    // lock_not_available
    if (sqlStateOf(error) !== '55P03') throw error;
    if (pauseMs === undefined) throw new LockHeldError(`${name}: a transaction that is not committed yet is changing the same row; try again in a moment`, { cause: error });
  }
  await delay(pauseMs);
  return runWithShortLocks(db, name, statement, later);
}
