// The secrets that compose.yaml publishes for a first try with the sandbox. With the real DigitalOcean, anybody who read that
// file could log in, or open what is sealed.
import { SANDBOX_TOKEN } from './config-contradictions.ts';
import { refusal } from './config-error.ts';
import type { Config } from './config.ts';
import { readDatabaseUrl } from './database-url.ts';
import { parseKeyRing } from './key-ring.ts';

const PUBLISHED_KEY = 'ZGV2ZWxvcG1lbnQga2V5LCBub3QgYSBzZWNyZXQhISE=';
const PUBLISHED: ReadonlySet<string> = new Set(['development-password', 'development-api-token']);

type Secrets = Pick<Config, 'databaseUrl' | 'digitalOcean' | 'keyRing' | 'web'>;

/**
 * Checks that a process which works with the real DigitalOcean has secrets of its own.
 *
 * @throws {ConfigError} naming each variable with a published secret
 */
export function requireOwnSecrets(config: Secrets): void {
  const problems = publishedSecretsIn(config);
  if (problems.length > 0) throw refusal(problems);
}

/**
 * Names the variables whose secret is published, each with what to do, if this is the configuration of a process that works with
 * the real DigitalOcean. `web` often has no token of DigitalOcean, so the address of the API decides.
 */
export function publishedSecretsIn({ databaseUrl, digitalOcean, keyRing, web }: Secrets): readonly string[] {
  if (!isForReal(digitalOcean)) return [];
  const why = 'published in compose.yaml, and this process works with the real DigitalOcean';
  const problems: string[] = [];
  // Behind a key of one's own, it still opens what it sealed.
  if (placeOfPublishedKey(keyRing) === 0) {
    problems.push(`ARCADIA_ENCRYPTION_KEYS: the key that seals is ${why}; put a key of your own first, as \`openssl rand -base64 32\` makes one`);
  }
  if (databaseUrl !== null && PUBLISHED.has(readDatabaseUrl(databaseUrl).password ?? '')) {
    problems.push(`DATABASE_URL: its password is ${why}; set another one (for compose.yaml in POSTGRES_PASSWORD, as \`openssl rand -hex 24\` makes one)`);
  }
  if (web.person !== null && PUBLISHED.has(web.person.password)) {
    problems.push(`DASHBOARD_PASSWORD: ${why}; set one of your own, as \`openssl rand -base64 24\` makes one`);
  }
  for (const { name } of web.tokens.filter(({ secret }) => PUBLISHED.has(secret))) {
    problems.push(`API_TOKENS: the secret of ${name} is ${why}; set one of your own, as \`openssl rand -hex 24\` makes one`);
  }
  return problems;
}

/** Whether the published key stands behind one's own, where nothing is sealed with it any more. Everybody can open what it sealed. */
export function publishedKeyStillOpens({ digitalOcean, keyRing }: Pick<Secrets, 'digitalOcean' | 'keyRing'>): boolean {
  return isForReal(digitalOcean) && placeOfPublishedKey(keyRing) > 0;
}

function isForReal({ token, apiUrl }: Secrets['digitalOcean']): boolean {
  return token !== SANDBOX_TOKEN && /(^|\.)digitalocean\.com$/.test(new URL(apiUrl).hostname);
}

function placeOfPublishedKey({ keys }: Secrets['keyRing']): number {
  const published = parseKeyRing(PUBLISHED_KEY).keys[0]?.id;
  return keys.findIndex(({ id }) => id === published);
}
