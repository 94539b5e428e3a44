// The minimum versions of Postgres and Redis, checked at startup. On an older server some statements fail, and only when
// they are first needed.
import { ConfigError } from './config-error.ts';

const oldest = { PostgreSQL: [14, 0], Redis: [6, 2] } as const;

/**
 * Checks a server's version string, such as `15.4 (Debian 15.4-1)` or `7.2.4`.
 *
 * @throws {ConfigError} naming the version found and the minimum; not if the string contains no version
 */
export function requireVersion(server: keyof typeof oldest, found: string): void {
  const [, major, minor = '0'] = /^(\d{1,4})(?:\.(\d{1,4}))?/.exec(found) ?? [];
  const [neededMajor, neededMinor] = oldest[server];
  if (major === undefined || Number(major) > neededMajor || (Number(major) === neededMajor && Number(minor) >= neededMinor)) return;
  const where = server === 'Redis' ? 'REDIS_URL' : 'DATABASE_URL';
  throw new ConfigError(`${where} leads to ${server} ${found}: ${server} ${neededMajor}${neededMinor === 0 ? '' : `.${neededMinor}`} or newer is needed.`);
}
