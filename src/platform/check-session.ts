// Checks at startup that Postgres sessions have the settings that our statements need. A pooler accepts few settings from
// its clients or drops them silently; then the settings of the role and the database apply.
import { ConfigError } from './config-error.ts';
import { readDatabaseUrl } from './database-url.ts';
import type { Database } from './db.ts';
import { sqlStateOf } from './db.ts';
import type { Log } from './log.ts';

/** A setting as pg_settings shows it. Times are in milliseconds. */
export type FoundSetting = Readonly<{ name: string; setting: string; role: string | null; database: string | null }>;

type Expectation = Readonly<{ expected: string; holds: (setting: string) => boolean }>;

// A shorter limit makes ordinary statements fail at random.
const SHORTEST_LIMIT_MS = 1_000;

const limit: Expectation = {
  expected: '0, or 1s at least',
  holds: (setting) => Number(setting) === 0 || Number(setting) >= SHORTEST_LIMIT_MS,
};

const exactly = (value: string): Expectation => ({ expected: value, holds: (setting) => setting.toLowerCase() === value.toLowerCase() });

const expectations: Readonly<Record<string, Expectation>> = {
  DateStyle: { expected: 'ISO, MDY', holds: (setting) => setting.startsWith('ISO') },
  standard_conforming_strings: exactly('on'),
  client_encoding: exactly('UTF8'),
  default_transaction_isolation: exactly('read committed'),
  default_transaction_read_only: exactly('off'),
  transform_null_equals: exactly('off'),
  // Triggers must fire. Only a superuser can set this, so a connection cannot request it.
  session_replication_role: { expected: 'origin', holds: (setting) => setting !== 'replica' },
  statement_timeout: limit,
  lock_timeout: limit,
  transaction_timeout: limit,
};

/** SQL that reads the settings for {@link requireSession}, one per row. */
export const SESSION_SQL = `
  select name, setting, current_user::text as role, current_database()::text as database
  from pg_catalog.pg_settings where name in (${Object.keys(expectations).map((name) => `'${name}'`).join(', ')})`;

/**
 * Checks the sessions of a database's pool.
 *
 * @throws {ConfigError} if the settings would change results and the connection cannot change them
 */
export async function checkSession(db: Pick<Database, 'run'>, databaseUrl: string, log: Log): Promise<void> {
  const { isPooled, wantsChannelBinding, tls } = readDatabaseUrl(databaseUrl);
  if (wantsChannelBinding && tls?.mode === 'require' && tls.rootCert === null) {
    log.warn('DATABASE_URL: channel_binding=require is not enforced; sslmode=verify-full proves who the server is');
  }
  const found = await db
    .run('session.check', (sql) => sql.unsafe<FoundSetting[]>(SESSION_SQL))
    .catch((error: unknown) => {
      // The limit is too short even for this statement.
      if (isPooled === true && sqlStateOf(error) === '57014') return tooShort;
      throw error;
    });
  // We set the statement limit ourselves if the connection can.
  requireSession(isPooled === null ? found.filter(({ name }) => name !== 'statement_timeout') : found);
}

const tooShort: readonly FoundSetting[] = [{ name: 'statement_timeout', setting: 'too short for a single read', role: null, database: null }];

/**
 * Checks the settings of a session.
 *
 * @throws {ConfigError} naming each setting that would change results, its value and the remedy
 */
export function requireSession(found: readonly FoundSetting[]): void {
  const wrong = found.flatMap(({ name, setting }) => {
    const expectation = Object.entries(expectations).find(([one]) => one.toLowerCase() === name.toLowerCase())?.[1];
    return expectation === undefined || expectation.holds(setting) ? [] : [{ name, setting, expected: expectation.expected }];
  });
  const [first] = wrong;
  if (first === undefined) return;
  const [{ role, database } = { role: null, database: null }] = found;
  const value = first.expected.startsWith('0') ? '0' : `'${first.expected}'`;
  throw new ConfigError(
    `DATABASE_URL: its sessions are set so that arcadia-cloud cannot work, and the connection cannot change it:\n` +
      `${wrong.map(({ name, setting, expected }) => `  ${name} is ${setting}; expected ${expected}`).join('\n')}.\n` +
      `Change it for this role, such as: alter role ${quoted(role, 'the_role')} in database ${quoted(database, 'the_database')} set ${first.name} = ${value}. Then let the pooler open new connections (RECONNECT in PgBouncer's console).`,
  );
}

function quoted(identifier: string | null, unknown: string): string {
  return identifier === null ? unknown : `"${identifier.replaceAll('"', '""')}"`;
}
