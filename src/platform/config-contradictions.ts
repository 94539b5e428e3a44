// What single variables cannot say: which of them contradict each other.
import type { Environment } from './config-schema.ts';
import { isLoopback } from './loopback.ts';

/**
 * Not secret, because DigitalOcean issues no such token. It may cross the network in plain text, to a sandbox in a container
 * of its own.
 */
export const SANDBOX_TOKEN = 'sandbox';

/**
 * A request must end before its worker can lose the job, and the job must be lost before another worker may POST again.
 * Otherwise two workers could create the same droplet at once.
 */
export function digitalOceanContradictions(env: Environment): string[] {
  const problems: string[] = [];
  if (env.DIGITALOCEAN_TIMEOUT_MS >= env.WORKER_LOCK_MS) {
    problems.push(
      `WORKER_LOCK_MS: expected more than DIGITALOCEAN_TIMEOUT_MS (${env.DIGITALOCEAN_TIMEOUT_MS}), found ${env.WORKER_LOCK_MS}`,
    );
  }
  if (env.WORKER_LOCK_MS >= env.ADOPTION_GRACE_MS) {
    problems.push(`ADOPTION_GRACE_MS: expected more than WORKER_LOCK_MS (${env.WORKER_LOCK_MS}), found ${env.ADOPTION_GRACE_MS}`);
  }
  const apiUrl = new URL(env.DIGITALOCEAN_API_URL);
  const isSecret = env.DIGITALOCEAN_TOKEN !== undefined && env.DIGITALOCEAN_TOKEN !== SANDBOX_TOKEN;
  if (apiUrl.protocol === 'http:' && isSecret && !isLoopback(apiUrl.hostname.replace(/^\[|\]$/g, ''))) {
    problems.push(
      `DIGITALOCEAN_API_URL: expected https, as the token would cross the network in plain text; http is for 127.0.0.1 and for a sandbox with DIGITALOCEAN_TOKEN=${SANDBOX_TOKEN}`,
    );
  }
  return problems;
}

/** Everything else that does not fit together: one sentence for each. */
export function contradictions(env: Environment): string[] {
  const problems: string[] = [];
  if ((env.DASHBOARD_USER === undefined) !== (env.DASHBOARD_PASSWORD === undefined)) {
    problems.push(
      env.DASHBOARD_USER === undefined
        ? 'DASHBOARD_USER: not set, though DASHBOARD_PASSWORD is; set both or neither'
        : 'DASHBOARD_PASSWORD: not set, though DASHBOARD_USER is; set both or neither',
    );
  }
  if (env.LEASE_DEFAULT_S !== undefined && env.LEASE_MAX_S !== undefined && env.LEASE_DEFAULT_S > env.LEASE_MAX_S) {
    problems.push(`LEASE_DEFAULT_S: expected at most LEASE_MAX_S (${env.LEASE_MAX_S}), found ${env.LEASE_DEFAULT_S}`);
  }
  if (env.API_TOKENS?.some(({ name }) => name === env.DASHBOARD_USER) === true) {
    problems.push(`API_TOKENS: a token has the name of DASHBOARD_USER (${env.DASHBOARD_USER}); give it another one, as the record tells them apart by their names`);
  }
  if (env.AUTH_PROXY_HEADER !== undefined && env.TRUSTED_PROXIES.length === 0) {
    problems.push('AUTH_PROXY_HEADER: TRUSTED_PROXIES is not set; set it to the address of the proxy, as anybody else could write the header too');
  }
  if (env.AUTH_PROXY_HEADER === undefined && env.AUTH_PROXY_ROLE !== undefined) {
    problems.push('AUTH_PROXY_ROLE: AUTH_PROXY_HEADER is not set, so nobody has this role; set both or neither');
  }
  problems.push(...outcomeContradictions(env));
  return problems;
}

// Nobody else's messages stand in them.
const QUEUES_OF_OUR_OWN: ReadonlySet<string> = new Set(['sagas', 'saga-steps', 'saga-compensations', 'inventory', 'outcomes']);

// Environments that no message of which anybody acts on.
const TRIAL_ENVIRONMENTS: ReadonlySet<string> = new Set(['test', 'development']);

function outcomeContradictions(env: Environment): string[] {
  const problems: string[] = [];
  const { OUTCOME_WEBHOOK_URL: url, OUTCOME_WEBHOOK_SECRETS: secrets, OUTCOME_QUEUE: queue } = env;
  if (url !== undefined && secrets === undefined) problems.push('OUTCOME_WEBHOOK_SECRETS: not set, though OUTCOME_WEBHOOK_URL is; set both or neither');
  if (url === undefined && secrets !== undefined) problems.push('OUTCOME_WEBHOOK_URL: not set, though OUTCOME_WEBHOOK_SECRETS is; set both or neither');
  if (url !== undefined && new URL(url).protocol === 'http:' && !isLoopback(new URL(url).hostname.replace(/^\[|\]$/g, '')) && !TRIAL_ENVIRONMENTS.has(env.ARCADIA_ENV)) {
    problems.push('OUTCOME_WEBHOOK_URL: expected https, as outcomes would cross the network in plain text; http is for 127.0.0.1, and for ARCADIA_ENV=test or development');
  }
  if (queue !== undefined && QUEUES_OF_OUR_OWN.has(queue)) problems.push(`OUTCOME_QUEUE: ${queue} is a queue of arcadia-cloud itself; choose another name`);
  return problems;
}
