// Translates DATABASE_URL for postgres.js. For node-postgres, which BullMQ uses: queues/pg-options.ts.
import type postgres from 'postgres';
import type { DatabaseAddress } from './database-url.ts';
import { tlsOptions } from './database-tls.ts';
import { carriedSettings, connectionDefaults, sessionOptions } from './session-settings.ts';
import type { Session } from './session-settings.ts';

type PostgresJsOptions = postgres.Options<Record<string, postgres.PostgresType>>;

/**
 * Returns options of postgres.js. A pooler in transaction mode accepts few settings, and finds a prepared statement only
 * in the session that prepared it.
 *
 * @throws {ConfigError} if a certificate or a key cannot be read
 */
export function postgresJsOptions(address: DatabaseAddress, { applicationName, statementTimeoutMs }: Session): PostgresJsOptions {
  const [first] = address.hosts;
  const isSocket = first?.host.startsWith('/') === true;
  const { connectTimeoutS, keepAliveS, options } = address;
  const name = address.applicationName ?? applicationName;
  return {
    ...hostsOf(address),
    ...(isSocket ? { path: `${first.host}/.s.PGSQL.${first.port}` } : {}),
    user: address.user,
    database: address.database,
    ...(address.password === null ? {} : { password: address.password }),
    ssl: tlsOptions(address),
    // postgres.js accepts a standby as `read-write`, but implements `primary` correctly.
    ...(address.isPrimaryOnly ? { target_session_attrs: 'primary' as const } : {}),
    connect_timeout: connectTimeoutS ?? connectionDefaults.connectTimeoutS,
    keep_alive: keepAliveS ?? connectionDefaults.keepAliveS,
    ...(address.tls?.negotiation === 'direct' ? { sslnegotiation: 'direct' } : {}),
    ...(address.isPooled === true
      ? { prepare: false, connection: { application_name: name, ...carriedSettings, ...(options === null ? {} : { options }) } }
      : { connection: { application_name: name, statement_timeout: statementTimeoutMs, ...carriedSettings, options: sessionOptions(options) } }),
  };
}

/**
 * Arrays, which the types of postgres.js do not declare. It would split a string at commas and colons, and an IPv6
 * address contains colons.
 */
function hostsOf({ hosts }: DatabaseAddress): Pick<PostgresJsOptions, 'host' | 'port'> {
  const lists: unknown = { host: hosts.map(({ host }) => host), port: hosts.map(({ port }) => port) };
  return lists as Pick<PostgresJsOptions, 'host' | 'port'>; // oxlint-disable-line typescript/no-unsafe-type-assertion
}
