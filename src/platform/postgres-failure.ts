// Explains why Postgres is unusable.
import { errorCodeOf } from './error-code.ts';
import { describeConnectionFailure } from './store-failure.ts';

const postgres = { store: 'Postgres', variable: 'DATABASE_URL' } as const;

/** Remedies by the prefix of a SQLSTATE. https://www.postgresql.org/docs/current/errcodes-appendix.html */
const remedies: readonly (readonly [string, string])[] = [
  ['28P01', 'Correct the user and password in DATABASE_URL.'],
  ['28', 'Correct the user in DATABASE_URL, or allow it in pg_hba.conf.'],
  ['3D000', 'Correct the name of the database in DATABASE_URL, or create the database.'],
  ['42501', 'Give the user of DATABASE_URL the privilege.'],
  ['25006', 'DATABASE_URL leads to a standby, or the database is read-only: name the primary.'],
  ['53300', 'Raise max_connections of Postgres, or close connections.'],
  ['53', 'Give Postgres more room: look at its log.'],
  ['57P03', 'Postgres starts up, shuts down or recovers: try again when it is done.'],
  ['57P', 'Postgres was shut down: try again when it runs.'],
  ['08', 'Check that DATABASE_URL leads to Postgres.'],
];

/** The drivers' own login errors, each with a remedy. */
const driverRemedies: readonly (readonly [RegExp, string])[] = [
  [/password must be a string|SASL|AUTH_TYPE_NOT_IMPLEMENTED/, 'Put the password into DATABASE_URL: postgres://user:password@host:port/database.'],
  [/does not support SSL/, 'Leave sslmode out of DATABASE_URL, or turn on TLS in Postgres.'],
];

/**
 * Explains why a Postgres statement failed.
 *
 * @returns null if the error is not about connecting and logging in
 */
export function describePostgresFailure(error: unknown): string | null {
  const code = errorCodeOf(error) ?? '';
  const message = error instanceof Error ? error.message : String(error);
  if (/^[0-9A-Z]{5}$/.test(code)) {
    const remedy = remedies.find(([beginning]) => code.startsWith(beginning))?.[1];
    if (remedy !== undefined) return `Postgres cannot be used (DATABASE_URL): ${message} (${code}). ${remedy}`;
  }
  const remedy = driverRemedies.find(([pattern]) => pattern.test(message) || pattern.test(code))?.[1];
  if (remedy !== undefined) return `Postgres cannot be used (DATABASE_URL): ${message}. ${remedy}`;
  const failure = describeConnectionFailure(error, postgres);
  if (failure !== null) return `Postgres cannot be reached (DATABASE_URL): ${failure}`;
  if (code === 'database_timeout' || /timeout/i.test(message)) return `Postgres cannot be reached (DATABASE_URL): ${message}. Check host and port in DATABASE_URL, and that Postgres answers there.`;
  return null;
}
