// Parses the environment, once at startup, with one schema. No other module reads process.env.
import type { ApiToken } from './api-tokens.ts';
import { impliesDestroy } from './api-tokens.ts';
import { contradictions, digitalOceanContradictions } from './config-contradictions.ts';
import { refusal } from './config-error.ts';
import type { Role } from './config-fields.ts';
import type { Environment } from './config-schema.ts';
import { environmentSchema } from './config-schema.ts';
import type { KeyRing } from './key-ring.ts';
import { problemsOf, sentenceOf } from './request-problems.ts';

// Interval between checks for expired leases.
const LEASE_CHECK_MS = 5_000;

// At most a dozen probes an hour, once the interval has grown.
const PROBES = { firstMs: 15_000, maxMs: 300_000 } as const;

/** Exit code for an invalid configuration (EX_CONFIG in sysexits.h). */
export const EXIT_CONFIG = 78;

/** Where outcomes are posted, and what signs them: newest first. */
export type WebhookConfig = Readonly<{ url: string; secrets: readonly string[] }>;

/** The parsed environment, in camel case; durations are milliseconds unless the name says otherwise. */
export type Config = Readonly<{
  databaseUrl: string | null;
  /** Maximum size of a process's connection pool. Queues in Postgres have a separate pool of the same size. */
  databasePoolMax: number;
  /** The URLs of Redis: one server, the nodes of a Redis Cluster, or one URL of Sentinels. Null: BullMQ runs on Postgres. */
  redisNodes: readonly string[] | null;
  queuePrefix: string;
  environment: string;
  digitalOcean: Readonly<{
    token: string | null;
    apiUrl: string;
    timeoutMs: number;
    requestsPerMinute: number;
    requestsPerHour: number;
    /** The weights of requesters whose creates wait for the request budget, by name. All others have weight 1. */
    requesterWeights: Readonly<Record<string, number>>;
    /** Delays before DigitalOcean is probed again after a refusal that only a person can fix: the first and the longest. */
    probes: Readonly<{ firstMs: number; maxMs: number }>;
    /** What a create does if the account has no room for another droplet. */
    whenFull: 'fail' | 'wait';
  }>;
  /**
   * `metricsOpen`: the metrics require no token, wherever they are served. `metricsPort`: port of the worker's own
   * metrics on `web.host`; 0: any port; null: none.
   */
  worker: Readonly<{ concurrency: number; lockMs: number; shutdownMs: number; metricsPort: number | null; metricsOpen: boolean }>;
  wait: Readonly<{ pollIntervalMs: number; maxPolls: number }>;
  /** By which droplets reach the web, without a slash at its end; null: not known. */
  publicUrl: string | null;
  /** Addresses and CIDRs beyond public ones that checks of readiness may connect to. */
  readyProbeAllow: readonly string[];
  retry: Readonly<{ stepAttempts: number; stepBackoffMs: number; compensationAttempts: number }>;
  adoptionGraceMs: number;
  orphanGraceMs: number;
  /** Encrypts the secrets of sagas, such as `user_data`, at rest. Empty: sagas with secrets are refused. */
  keyRing: KeyRing;
  reconcileIntervalMs: number;
  inventorySyncIntervalMs: number;
  /** Lease policy, in seconds. Null: no default lease, no maximum, no warning. */
  lease: Readonly<{ defaultS: number | null; maxS: number | null; warnS: number | null; checkMs: number }>;
  sagaRetentionDays: number;
  auditRetentionDays: number;
  /** Who is told of outcomes; null: nobody by that way. `queue`: the name of a queue on the same store. */
  outcomes: Readonly<{ webhook: WebhookConfig | null; queue: string | null; notify: boolean }>;
  web: Readonly<{
    port: number;
    host: string;
    /** The dashboard's login; null: no login. */
    person: Readonly<{ user: string; password: string }> | null;
    /** The file that lists the people; null: none. */
    usersFile: string | null;
    /** The header by which a trusted proxy names the user, and the role of those whom the file does not list; null: none. */
    proxyLogin: Readonly<{ header: string; role: Role }> | null;
    tokens: readonly ApiToken[];
    /** Names of tokens that may start `destroy_droplet` with `start` alone. A later version will drop that. */
    impliedDestroy: readonly string[];
    /** Addresses and CIDRs of proxies whose X-Forwarded-* headers are trusted. */
    trustedProxies: readonly string[];
    /** Path under which a proxy serves the web interface, without a trailing slash; empty: the root. */
    basePath: string;
    /** Hosts, with any non-default ports, under which people reach the web interface. */
    allowedHosts: readonly string[];
  }>;
  logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
}>;

/** Variables that a command may require. */
export type ConfigNeed = 'DATABASE_URL' | 'DIGITALOCEAN_TOKEN';

/**
 * Parses the environment.
 *
 * @param needs variables that this command requires
 * @param how.usesDigitalOcean whether to check the timeouts of DigitalOcean requests against the other durations
 * @throws {ConfigError} naming every invalid variable and what was expected
 */
export function loadConfig(environment: NodeJS.ProcessEnv, needs: readonly ConfigNeed[] = [], { usesDigitalOcean = true }: { usesDigitalOcean?: boolean } = {}): Config {
  // `VAR= command` and empty lines of an env file create empty variables. They count as unset, not as invalid.
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''));
  const parsed = environmentSchema.safeParse(given);
  const problems = parsed.success ? [] : parsed.error.issues.map((issue) => sentenceOf(problemsOf([issue], 'environment')));
  for (const need of needs) {
    if (given[need] === undefined) problems.push(notSet(need));
  }
  if (parsed.success) problems.push(...(usesDigitalOcean ? digitalOceanContradictions(parsed.data) : []), ...contradictions(parsed.data));
  if (!parsed.success || problems.length > 0) {
    throw refusal(problems);
  }
  return toConfig(parsed.data);
}

/**
 * Returns the module that ARCADIA_APP names; null: none. It is read separately, because the app determines what else has
 * to be set.
 */
export function appFileIn(environment: NodeJS.ProcessEnv): string | null {
  return environment['ARCADIA_APP'] === '' ? null : (environment['ARCADIA_APP'] ?? null);
}

/**
 * Checks that a configuration has what a process requires.
 *
 * @throws {ConfigError} naming each variable that is not set
 */
export function requireNeeds({ databaseUrl, digitalOcean }: Pick<Config, 'databaseUrl' | 'digitalOcean'>, needs: readonly ConfigNeed[]): void {
  const values: Readonly<Record<ConfigNeed, string | null>> = { DATABASE_URL: databaseUrl, DIGITALOCEAN_TOKEN: digitalOcean.token };
  const missing = needs.filter((need) => values[need] === null);
  if (missing.length > 0) throw refusal(missing.map(notSet));
}

function notSet(need: ConfigNeed): string {
  return `${need}: not set, but required`;
}

function toConfig(env: Environment): Config {
  return {
    databaseUrl: env.DATABASE_URL ?? null,
    databasePoolMax: env.DATABASE_POOL_MAX,
    redisNodes: env.REDIS_URL ?? null,
    queuePrefix: env.QUEUE_PREFIX,
    environment: env.ARCADIA_ENV,
    digitalOcean: {
      token: env.DIGITALOCEAN_TOKEN ?? null,
      apiUrl: env.DIGITALOCEAN_API_URL,
      timeoutMs: env.DIGITALOCEAN_TIMEOUT_MS,
      requestsPerMinute: env.DIGITALOCEAN_REQUESTS_PER_MINUTE,
      requestsPerHour: env.DIGITALOCEAN_REQUESTS_PER_HOUR,
      requesterWeights: env.REQUESTER_WEIGHTS,
      probes: PROBES,
      whenFull: env.DIGITALOCEAN_WHEN_FULL,
    },
    worker: { concurrency: env.WORKER_CONCURRENCY, lockMs: env.WORKER_LOCK_MS, shutdownMs: env.WORKER_SHUTDOWN_MS, metricsPort: env.WORKER_METRICS_PORT ?? null, metricsOpen: env.WORKER_METRICS_OPEN },
    publicUrl: env.PUBLIC_URL ?? null,
    readyProbeAllow: env.READY_PROBE_ALLOW,
    wait: { pollIntervalMs: env.WAIT_POLL_INTERVAL_MS, maxPolls: env.WAIT_MAX_POLLS },
    retry: {
      stepAttempts: env.STEP_ATTEMPTS,
      stepBackoffMs: env.STEP_BACKOFF_MS,
      compensationAttempts: env.COMPENSATION_ATTEMPTS,
    },
    adoptionGraceMs: env.ADOPTION_GRACE_MS,
    orphanGraceMs: env.ORPHAN_GRACE_MS,
    keyRing: env.ARCADIA_ENCRYPTION_KEYS,
    reconcileIntervalMs: env.RECONCILE_INTERVAL_MS,
    inventorySyncIntervalMs: env.INVENTORY_SYNC_INTERVAL_MS,
    lease: { defaultS: env.LEASE_DEFAULT_S ?? null, maxS: env.LEASE_MAX_S ?? null, warnS: env.LEASE_WARN_S ?? null, checkMs: LEASE_CHECK_MS },
    sagaRetentionDays: env.SAGA_RETENTION_DAYS,
    auditRetentionDays: env.AUDIT_RETENTION_DAYS,
    outcomes: {
      webhook: env.OUTCOME_WEBHOOK_URL === undefined || env.OUTCOME_WEBHOOK_SECRETS === undefined ? null : { url: env.OUTCOME_WEBHOOK_URL, secrets: env.OUTCOME_WEBHOOK_SECRETS },
      queue: env.OUTCOME_QUEUE ?? null,
      notify: env.OUTCOME_NOTIFY,
    },
    web: {
      port: env.PORT,
      host: env.HOST,
      person: env.DASHBOARD_USER === undefined || env.DASHBOARD_PASSWORD === undefined ? null : { user: env.DASHBOARD_USER, password: env.DASHBOARD_PASSWORD },
      usersFile: env.DASHBOARD_USERS_FILE ?? null,
      proxyLogin: env.AUTH_PROXY_HEADER === undefined ? null : { header: env.AUTH_PROXY_HEADER, role: env.AUTH_PROXY_ROLE ?? 'read' },
      tokens: env.API_TOKENS ?? [],
      impliedDestroy: env.API_TOKENS_START_MAY_DESTROY ? (env.API_TOKENS ?? []).filter(impliesDestroy).map(({ name }) => name) : [],
      trustedProxies: env.TRUSTED_PROXIES,
      basePath: env.WEB_BASE_PATH,
      allowedHosts: env.WEB_ALLOWED_HOSTS.map((host) => host.toLowerCase()),
    },
    logLevel: env.LOG_LEVEL,
  };
}
