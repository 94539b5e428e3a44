// Detects a connection pooler between this process and Postgres, such as PgBouncer in transaction mode: whether the URL
// declares it, and whether Postgres can still stop long statements behind it.

import { ConfigError } from '../platform/config-error.ts';
import { readDatabaseUrl } from '../platform/database-url.ts';
import type { Database } from '../platform/db.ts';
import { sqlStateOf } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';

/**
 * Checks at startup that DATABASE_URL declares an existing pooler. A pooler is detected by the server's process id: it
 * reports its own number to each client.
 *
 * @throws {ConfigError} if there is a pooler that the URL does not declare
 */
export async function checkPooler(db: Database, databaseUrl: string, log: Log): Promise<void> {
  const { isPooled } = readDatabaseUrl(databaseUrl);
  const rows = await db
    .run('pooler.check', (sql) => sql<{ pid: number; limit: string }[]>`select pg_backend_pid() as pid, current_setting('statement_timeout') as limit`)
    .catch((error: unknown) => {
      // The role's statement limit is too short for any statement. checkSession reports that.
      if (isPooled === true && sqlStateOf(error) === '57014') return null;
      throw error;
    });
  const row = rows?.[0];
  if (rows === null || row === undefined) return;
  if (isPooled === null && row.pid !== rows.state.pid) {
    throw new ConfigError(
      'DATABASE_URL leads through a connection pooler: add pgbouncer=true to its parameters, or pgbouncer=false where each ' +
        'connection keeps a session of the server to itself.',
    );
  }
  if (isPooled === true && row.limit === '0') {
    log.warn('Postgres has no time limit for statements here (statement_timeout is 0), and a pooler does not take one from us: give the role one (ALTER ROLE … SET statement_timeout)');
  }
}
