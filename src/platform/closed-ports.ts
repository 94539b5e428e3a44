// Whether a process may listen where others can reach it: only with credentials.
import type { ApiToken } from './api-tokens.ts';
import { refusal } from './config-error.ts';
import type { Config } from './config.ts';
import { isLoopback } from './loopback.ts';

/** Characters of a secret, at least: shorter ones can be guessed. */
export const SHORTEST_SECRET = 16;

/**
 * Checks that `web` may listen on its address. On a non-loopback address it needs credentials, each long enough and all
 * different.
 *
 * @throws {ConfigError}
 */
export function requireClosedWeb({ host, person, tokens, usersFile, proxyLogin }: Config['web']): void {
  if (isLoopback(host)) return;
  const reach = `HOST: ${host} can be reached from other machines`;
  if (person === null && tokens.length === 0 && usersFile === null && proxyLogin === null) {
    throw refusal([`${reach}, so credentials are needed; set DASHBOARD_USER and DASHBOARD_PASSWORD, DASHBOARD_USERS_FILE or API_TOKENS, or listen on 127.0.0.1`]);
  }
  const secrets = [...tokens.map(({ name, secret }) => ({ of: `API_TOKENS ${name}`, secret })), ...(person === null ? [] : [{ of: 'DASHBOARD_PASSWORD', secret: person.password }])];
  const problems = secrets.flatMap(({ of, secret }, index) => [
    ...(secret.length < SHORTEST_SECRET ? [`${of}: expected at least ${SHORTEST_SECRET} characters, as ${reach.replace('HOST: ', '')}; \`openssl rand -base64 24\` makes one`] : []),
    ...secrets.slice(0, index).filter((other) => other.secret === secret).map((other) => `${of}: expected a secret of its own, found that of ${other.of}`),
  ]);
  if (problems.length > 0) throw refusal(problems);
}

/**
 * Checks that a worker may serve its metrics on its address. On a non-loopback address they require a token with the
 * scope `read`, unless `WORKER_METRICS_OPEN` declares that the network keeps others out.
 *
 * @returns the tokens that grant access to the metrics; null: no token required
 * @throws {ConfigError}
 */
export function requireClosedMetrics({ web: { host, tokens }, worker }: Pick<Config, 'web' | 'worker'>): readonly ApiToken[] | null {
  if (worker.metricsPort === null || worker.metricsOpen || isLoopback(host)) return null;
  const readers = tokens.filter(({ scopes: granted, secret }) => granted.includes('read') && secret.length >= SHORTEST_SECRET);
  if (readers.length > 0) return readers;
  throw refusal([
    `WORKER_METRICS_PORT: ${host} can be reached from other machines; set API_TOKENS with a token for Prometheus (prometheus:read:…, at least ${SHORTEST_SECRET} characters), ` +
      'or WORKER_METRICS_OPEN=true where only your network reaches the port, or HOST=127.0.0.1',
  ]);
}
