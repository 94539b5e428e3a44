// The settings of our Postgres sessions. `alter database … set` and `alter role … set` must not change how times are
// written or how transactions are isolated, so each connection sets these itself at its start. check-session.ts checks
// what a pooler does not pass on.

/** A connection's name in pg_stat_activity and the limit of its statements in milliseconds (0: none). */
export type Session = Readonly<{ applicationName: string; statementTimeoutMs: number }>;

/** Seconds; defaults for parameters that DATABASE_URL omits. */
export const connectionDefaults = { connectTimeoutS: 5, keepAliveS: 60 } as const;

/** The settings that even a pooler in transaction mode tracks per client. */
const carried = {
  DateStyle: 'ISO, MDY',
  TimeZone: 'UTC',
  standard_conforming_strings: 'on',
} as const;

/** The other settings. Times in milliseconds; 0: no limit. */
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
  // A statement's own limit also covers its locks.
  lock_timeout: '0',
  // Idle connections of a pool and those that LISTEN must stay open.
  idle_session_timeout: '0',
  // Only for a process that disappeared: our transactions never pause.
  idle_in_transaction_session_timeout: '60000',
} as const;

/** Settings to send by name when a connection starts. */
export const carriedSettings: Readonly<Record<string, string>> = carried;

/**
 * Returns all settings as command-line options of the server process. These override the settings of a database or a
 * role.
 *
 * @param given options from the URL; ours follow and override them
 * @param more settings on top of ours
 */
export function sessionOptions(given: string | null, more: Readonly<Record<string, string>> = {}): string {
  const settings = { ...carried, ...own, ...more };
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\ ]/g, String.raw`\$&`)}`);
  return [...(given === null ? [] : [given]), ...options].join(' ');
}
