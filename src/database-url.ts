// What DATABASE_URL says beyond Postgres's own words: whether a pooler such as PgBouncer stands in between.

import { ConfigError } from './config.ts';

/** `isPooled`: each transaction may run on another session of the server; null: the URL does not say. */
export type DatabaseAddress = Readonly<{ url: string; isPooled: boolean | null }>;

/**
 * Takes our own parameter `pgbouncer` off the URL, as nobody else would understand it: drivers send what they don't know
 * on to the server.
 *
 * @throws {ConfigError} when it is neither true nor false
 */
export function readDatabaseUrl(databaseUrl: string): DatabaseAddress {
  // As text: whatever else the URL holds (several hosts, say) stays as it is.
  const [base = '', ...rest] = databaseUrl.split('?');
  const query = rest.join('?');
  const parameters = query.split('&').filter((parameter) => parameter !== '');
  const [said] = parameters.filter(isOurs);
  if (said === undefined) return { url: databaseUrl, isPooled: null };
  const value = said.slice(NAME.length);
  if (value !== 'true' && value !== 'false') throw new ConfigError('DATABASE_URL: pgbouncer: expected true or false');
  const others = parameters.filter((parameter) => !isOurs(parameter));
  return { url: others.length === 0 ? base : `${base}?${others.join('&')}`, isPooled: value === 'true' };
}

const NAME = 'pgbouncer=';

function isOurs(parameter: string): boolean {
  return parameter.startsWith(NAME);
}
