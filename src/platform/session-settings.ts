// What a session of Postgres is set to. An `alter database … set`, or `alter role … set`, must not decide how times are
// written or how transactions are isolated: each connection says so itself at its start. What a pooler does
// not let through, check-session.ts looks at.

/** Of a connection: its name in pg_stat_activity, and the time limit of its statements in milliseconds (0: none). */
export type Session = Readonly<{ applicationName: string; statementTimeoutMs: number }>;

/** Seconds, where DATABASE_URL says nothing. */
export const connectionDefaults = { connectTimeoutS: 5, keepAliveS: 60 } as const;

/** The settings that even a pooler in transaction mode carries from session to session. */
const carried = {
  DateStyle: 'ISO, MDY',
  TimeZone: 'UTC',
  standard_conforming_strings: 'on',
} as const;

/** The others. Times in milliseconds; 0: no limit. */
const own = {
  client_encoding: 'UTF8',
  // Our statements name their schemas.
  search_path: 'public',
  IntervalStyle: 'postgres',
  extra_float_digits: '1',
  bytea_output: 'hex',
  array_nulls: 'on',
  transform_null_equals: 'off',
  row_security: 'on',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  // A statement's own limit holds for its locks too.
  lock_timeout: '0',
  // Idle connections of a pool, and those that LISTEN, must live.
  idle_session_timeout: '0',
  // Only for a process that is gone without a word: our transactions do not pause.
  idle_in_transaction_session_timeout: '60000',
} as const;

/** Settings to be sent by their own names at a connection's start. */
export const carriedSettings: Readonly<Record<string, string>> = carried;

/**
 * All settings as command-line options of the server's process, which win over those of a database or a role.
 *
 * @param given options of the caller's; ours come after them, and win
 * @param more settings on top of ours
 */
export function sessionOptions(given: string | null, more: Readonly<Record<string, string>> = {}): string {
  const settings = { ...carried, ...own, ...more };
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\ ]/g, String.raw`\$&`)}`);
  return [...(given === null ? [] : [given]), ...options].join(' ');
}
