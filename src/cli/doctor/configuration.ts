// Checks the configuration.
import type { App } from '../../saga/app.ts';
import type { Config } from '../../platform/config.ts';
import { ConfigError } from '../../platform/config-error.ts';
import { publishedKeyStillOpens, publishedSecretsIn } from '../../platform/published-secrets.ts';
import { hasInventory, loadConfigFor } from '../../processes/inventory.ts';
import type { Finding } from './finding.ts';
import { fail, ok, warn } from './finding.ts';

const CHECK = 'configuration';
const NAMED = /^\s*([A-Z][A-Z0-9_]+): (.+)$/;

/**
 * Parses the environment. Reports what is invalid and parses the rest without it.
 *
 * @returns `config` as far as it is usable
 */
export function readConfiguration(app: App, environment: NodeJS.ProcessEnv): { config: Config; findings: Finding[]; refused: ReadonlySet<string> } {
  const findings: Finding[] = [];
  const refused = new Set<string>();
  for (let given = environment; ; ) {
    try {
      const config = loadConfigFor(app, given);
      for (const problem of publishedSecretsIn(config)) findings.push(fail(CHECK, problem, 'Until then, `worker` and `web` do not start.'));
      findings.push(...gaps(config, app, refused));
      const isValid = findings.every(({ level }) => level !== 'fail');
      return { config, findings: [...(isValid ? [ok(CHECK, `valid; environment ${config.environment}`)] : []), ...findings], refused };
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      const problems = error.message.split('\n').flatMap((line) => NAMED.exec(line) ?? []);
      const named = error.message.split('\n').flatMap((line) => NAMED.exec(line)?.[1] ?? []).filter((name) => given[name] !== undefined && given[name] !== '');
      for (const line of error.message.split('\n').filter((one) => NAMED.test(one))) findings.push(fail(CHECK, line.trim(), 'Correct the variable.'));
      // No named variable can be left out, so stop here.
      if (problems.length === 0 || named.length === 0) {
        if (problems.length === 0) findings.push(fail(CHECK, error.message, 'Correct the environment.'));
        return { config: loadConfigFor(app, {}), findings, refused };
      }
      for (const name of named) refused.add(name);
      given = { ...given, ...Object.fromEntries(named.map((name) => [name, undefined])) };
    }
  }
}

function gaps(config: Config, app: App, refused: ReadonlySet<string>): Finding[] {
  const { databaseUrl, redisNodes, digitalOcean, keyRing } = config;
  const found: Finding[] = [];
  if (databaseUrl === null && !refused.has('DATABASE_URL')) found.push(fail(CHECK, 'DATABASE_URL is not set', 'Set it to your Postgres. `demo`, `dev`, `smoke`, `sandbox` and `hash-password` do without.'));
  if (hasInventory(app) && digitalOcean.token === null && !refused.has('DIGITALOCEAN_TOKEN')) found.push(warn(CHECK, 'DIGITALOCEAN_TOKEN is not set: DigitalOcean is not checked', 'Set it for workers and `sync`. `web` needs none.'));
  if (redisNodes === null && !refused.has('REDIS_URL')) found.push(ok(CHECK, 'REDIS_URL is not set: the queues are in Postgres'));
  if (keyRing.keys.length === 0 && !refused.has('ARCADIA_ENCRYPTION_KEYS')) found.push(warn(CHECK, 'ARCADIA_ENCRYPTION_KEYS is not set: sagas with user_data are refused', 'Set it if you use user_data.'));
  if (publishedKeyStillOpens(config)) found.push(warn(CHECK, 'ARCADIA_ENCRYPTION_KEYS: one of the keys behind the first is published in compose.yaml, so anybody can open what it sealed', 'Replace the secrets that it sealed. Take the key out once no saga needs what it sealed.'));
  return found;
}
