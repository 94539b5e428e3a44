// Translates DATABASE_URL for node-postgres, which BullMQ uses. For postgres.js: ../postgres-js-options.ts.
import type { PoolConfig } from 'pg';
import { ConfigError } from '../platform/config-error.ts';
import type { DatabaseAddress } from '../platform/database-url.ts';
import { tlsOptions } from '../platform/database-tls.ts';
import { connectionDefaults, sessionOptions } from '../platform/session-settings.ts';
import type { Session } from '../platform/session-settings.ts';

/**
 * Returns pool options of node-postgres.
 *
 * @param more session settings on top of ours
 * @throws {ConfigError} if a certificate or a key cannot be read, or the URL names several hosts, which node-postgres
 *   does not support
 */
export function pgOptions(address: DatabaseAddress, { applicationName, statementTimeoutMs }: Session, more: Readonly<Record<string, string>>): PoolConfig {
  const [first, ...others] = address.hosts;
  if (first === undefined || others.length > 0) {
    throw new ConfigError('DATABASE_URL: host: queues in Postgres need a single host; set REDIS_URL, or name one host that leads to the primary');
  }
  const { connectTimeoutS, keepAliveS, options } = address;
  return {
    host: first.host,
    port: first.port,
    user: address.user,
    database: address.database,
    ...(address.password === null ? {} : { password: address.password }),
    ssl: tlsOptions(address),
    ...(address.tls?.negotiation === 'direct' ? { sslnegotiation: 'direct' as const } : {}),
    enableChannelBinding: address.wantsChannelBinding,
    application_name: address.applicationName ?? applicationName,
    connectionTimeoutMillis: (connectTimeoutS ?? connectionDefaults.connectTimeoutS) * 1_000,
    keepAlive: keepAliveS !== 0,
    keepAliveInitialDelayMillis: (keepAliveS ?? connectionDefaults.keepAliveS) * 1_000,
    options: sessionOptions(options, { statement_timeout: String(statementTimeoutMs), ...more }),
  };
}
