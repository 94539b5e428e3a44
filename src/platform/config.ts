// The environment, parsed once at start by one schema. Nothing else in the project reads process.env.
import { isIP } from 'node:net';
import { z } from 'zod';
import { ConfigError } from './config-error.ts';
import { readDatabaseUrl } from './database-url.ts';
import type { KeyRing } from './key-ring.ts';
import { KeyRingError, emptyKeyRing, parseKeyRing } from './key-ring.ts';
import { problemsOf, sentenceOf } from './request-problems.ts';
import { RedisUrlError, readRedisNodes, splitRedisUrl } from './redis-url.ts';

// A dozen an hour, once they are rare.
const PROBES = { firstMs: 15_000, maxMs: 300_000 } as const;

/** Exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h). */
export const EXIT_CONFIG = 78;

export { ConfigError } from './config-error.ts';

const milliseconds = (fallback: number) => wholeNumber(fallback, 1, 2_147_483_647);

function flag(fallback: 'true' | 'false') {
  return z.enum(['true', 'false'], 'expected true or false').default(fallback).transform((value) => value === 'true');
}

function wholeNumber(fallback: number, min: number, max: number) {
  return numberBetween(min, max).prefault(String(fallback));
}

function numberBetween(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,15}$/, `expected a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `expected a whole number from ${min} to ${max}`);
}

const isUrlOf = (protocols: readonly string[]) => (value: string) =>
  URL.canParse(value) && protocols.includes(new URL(value).protocol);

const redisNodes = z.string().transform((value, context) => {
  const nodes = splitRedisUrl(value);
  try {
    readRedisNodes(nodes);
    return nodes;
  } catch (error) {
    if (!(error instanceof RedisUrlError)) throw error;
    context.addIssue({ code: 'custom', message: error.message });
    return z.NEVER;
  }
});

/** What a bearer token may do: look, start sagas, start those that destroy, cancel and retry sagas, and operate queues. */
export type Scope = 'read' | 'start' | 'destroy' | 'operate';

export const scopes: readonly Scope[] = ['read', 'start', 'destroy', 'operate'];

/** One of API_TOKENS. The name is for the record, and for taking a token out of use. */
export type ApiToken = Readonly<{ name: string; scopes: readonly Scope[]; secret: string }>;

const API_TOKEN_SYNTAX =
  'expected bearer tokens separated by commas, each either a secret (which may do everything) or name:scopes:secret, ' +
  'with scopes of read, start, destroy and operate joined by +, such as billing:read+start:…; names of a-z, 0-9, - and _, each once; ' +
  'secrets without blanks and commas';

const apiTokens = z
  .string()
  .transform((value) => value.split(',').map((entry, index) => parseApiToken(entry.trim(), index)))
  .refine((tokens) => tokens.every((token) => token !== null), API_TOKEN_SYNTAX)
  .transform((tokens) => tokens.filter((token) => token !== null))
  .refine((tokens) => new Set(tokens.map(({ name }) => name)).size === tokens.length, API_TOKEN_SYNTAX);

const secretPattern = /^[\x21-\x7e]+$/;

function parseApiToken(entry: string, index: number): ApiToken | null {
  if (!entry.includes(':')) return secretPattern.test(entry) ? { name: `token-${index + 1}`, scopes, secret: entry } : null;
  const [, name = '', list = '', secret = ''] = /^([a-z0-9][a-z0-9_-]*):([a-z+]+):(.+)$/.exec(entry) ?? [];
  const granted = list.split('+');
  const known = scopes.filter((scope) => granted.includes(scope));
  return name !== '' && known.length === granted.length && secretPattern.test(secret) ? { name, scopes: known, secret } : null;
}

/** Tokens from before there was the scope `destroy`: with `start`, they could destroy droplets too. */
function withImpliedDestroy(tokens: readonly ApiToken[]): ApiToken[] {
  return tokens.map((token) => (impliesDestroy(token) ? { ...token, scopes: scopes.filter((scope) => scope === 'destroy' || token.scopes.includes(scope)) } : token));
}

function impliesDestroy({ scopes: granted }: ApiToken): boolean {
  return granted.includes('start') && !granted.includes('destroy');
}

/** A list whose entries are separated by commas. */
function listOf(isEntry: (entry: string) => boolean, expected: string) {
  return z
    .string()
    .transform((value) => value.split(',').map((entry) => entry.trim()))
    .refine((entries) => entries.every(isEntry), expected)
    .default([]);
}

/** An address, or a range of them. Not the range of all: then anybody could claim to be anybody. */
function isAddressRange(text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  return prefix === undefined || (/^[1-9]\d{0,2}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

const keyRing = z.string().transform((value, context) => {
  try {
    return parseKeyRing(value);
  } catch (error) {
    if (!(error instanceof KeyRingError)) throw error;
    context.addIssue({ code: 'custom', message: error.message });
    return z.NEVER;
  }
});

const databaseUrl = z.string().superRefine((value, context) => {
  try {
    readDatabaseUrl(value);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const line of error.message.split('\n')) context.addIssue({ code: 'custom', message: line.trim().replace(/^DATABASE_URL: /, '') });
  }
});

const environmentSchema = z.object({
  DATABASE_URL: databaseUrl.optional(),
  DATABASE_POOL_MAX: wholeNumber(20, 1, 1_000),
  REDIS_URL: redisNodes.optional(),
  QUEUE_PREFIX: z
    .string()
    .regex(/^[^:\s]{1,100}$/, 'expected a key prefix without colons and blanks, such as {arcadia}')
    .default('{arcadia}'),
  ARCADIA_APP: z.string().optional(),
  ARCADIA_ENV: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, 'expected lower-case letters, digits, - and _, such as production')
    .default('default'),
  DIGITALOCEAN_TOKEN: z
    .string()
    .regex(/^[\x21-\x7e]+$/, 'expected an API token without blanks')
    .optional(),
  DIGITALOCEAN_API_URL: z
    .string()
    .refine(isUrlOf(['http:', 'https:']), 'expected https://host')
    .default('https://api.digitalocean.com'),
  DIGITALOCEAN_TIMEOUT_MS: milliseconds(10_000),
  DIGITALOCEAN_REQUESTS_PER_MINUTE: wholeNumber(250, 1, 1_000_000),
  DIGITALOCEAN_REQUESTS_PER_HOUR: wholeNumber(5_000, 1, 10_000_000),
  WORKER_CONCURRENCY: wholeNumber(50, 1, 1_000),
  WORKER_LOCK_MS: milliseconds(30_000),
  WAIT_POLL_INTERVAL_MS: milliseconds(5_000),
  WAIT_MAX_POLLS: wholeNumber(96, 1, 1_000_000),
  STEP_ATTEMPTS: wholeNumber(5, 1, 1_000),
  STEP_BACKOFF_MS: milliseconds(1_000),
  COMPENSATION_ATTEMPTS: wholeNumber(20, 1, 1_000),
  ADOPTION_GRACE_MS: milliseconds(60_000),
  ORPHAN_GRACE_MS: milliseconds(900_000),
  WORKER_SHUTDOWN_MS: milliseconds(25_000),
  ARCADIA_ENCRYPTION_KEYS: keyRing.default(emptyKeyRing),
  RECONCILE_INTERVAL_MS: milliseconds(15_000),
  INVENTORY_SYNC_INTERVAL_MS: milliseconds(900_000),
  SAGA_RETENTION_DAYS: wholeNumber(90, 1, 36_500),
  AUDIT_RETENTION_DAYS: wholeNumber(365, 1, 36_500),
  PORT: wholeNumber(3_000, 0, 65_535),
  HOST: z
    .string()
    .regex(/^[0-9A-Za-z.:_-]{1,255}$/, 'expected an address to listen on, such as 127.0.0.1 or 0.0.0.0')
    .default('127.0.0.1'),
  DASHBOARD_USER: z
    .string()
    .regex(/^[^:\p{Cc}]{1,100}$/u, 'expected a user name without colons')
    .optional(),
  DASHBOARD_PASSWORD: z.string().optional(),
  API_TOKENS: apiTokens.optional(),
  API_TOKENS_START_MAY_DESTROY: flag('true'),
  TRUSTED_PROXIES: listOf(isAddressRange, 'expected addresses or CIDRs separated by commas, such as 127.0.0.1,10.0.0.0/8'),
  WEB_BASE_PATH: z
    .string()
    .regex(/^(\/|(\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)$/, 'expected a path without a slash at its end, such as /arcadia')
    .transform((path) => (path === '/' ? '' : path))
    .default(''),
  WEB_ALLOWED_HOSTS: listOf((host) => /^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?$/.test(host), 'expected hosts separated by commas, such as arcadia.example.com or localhost:8080'),
  WORKER_METRICS_PORT: numberBetween(0, 65_535).optional(),
  WORKER_METRICS_OPEN: flag('false'),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
});

/** The parsed environment, in camel case; durations are milliseconds unless the name says otherwise. */
export type Config = Readonly<{
  databaseUrl: string | null;
  /** Connections that a process's pool may hold; queues in Postgres have a pool of their own, of the same size. */
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
    /** How long after a refusal that only a person can put right DigitalOcean is asked again: the first time, and at most. */
    probes: Readonly<{ firstMs: number; maxMs: number }>;
  }>;
  /** `metricsOpen`: the metrics ask for no token, wherever they are served. `metricsPort`: where the worker's own metrics are to be had, on `web.host`; 0 for any port, null for none. */
  worker: Readonly<{ concurrency: number; lockMs: number; shutdownMs: number; metricsPort: number | null; metricsOpen: boolean }>;
  wait: Readonly<{ pollIntervalMs: number; maxPolls: number }>;
  retry: Readonly<{ stepAttempts: number; stepBackoffMs: number; compensationAttempts: number }>;
  adoptionGraceMs: number;
  orphanGraceMs: number;
  /** Seals the secrets of sagas, such as `user_data`, at rest; empty: none is accepted. */
  keyRing: KeyRing;
  reconcileIntervalMs: number;
  inventorySyncIntervalMs: number;
  sagaRetentionDays: number;
  auditRetentionDays: number;
  web: Readonly<{
    port: number;
    host: string;
    /** Who may log in at the dashboard; null: nobody. */
    person: Readonly<{ user: string; password: string }> | null;
    tokens: readonly ApiToken[];
    /** Names of tokens that may destroy only because they may start: a later version takes that from them. */
    impliedDestroy: readonly string[];
    /** Addresses and CIDRs of proxies whose X-Forwarded-* headers are believed. */
    trustedProxies: readonly string[];
    /** Path under which a proxy serves the web, without a slash at its end; empty: at the root. */
    basePath: string;
    /** Hosts, with their ports where those are not the usual ones, by which people reach the web. */
    allowedHosts: readonly string[];
  }>;
  logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
}>;

/** What a command cannot do without. */
export type ConfigNeed = 'DATABASE_URL' | 'DIGITALOCEAN_TOKEN';

/**
 * Parses the environment.
 *
 * @param needs variables that this command cannot do without
 * @param how.usesDigitalOcean whether the times of requests to DigitalOcean have to fit the others
 * @throws {ConfigError} naming every variable that is wrong, and what was expected of it
 */
export function loadConfig(environment: NodeJS.ProcessEnv, needs: readonly ConfigNeed[] = [], { usesDigitalOcean = true }: { usesDigitalOcean?: boolean } = {}): Config {
  // An empty variable is what `VAR= command` and empty lines of an env file make: unset, not wrong.
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

/** The module that ARCADIA_APP names; null: none. Read by itself, as the app says what else has to be set. */
export function appFileIn(environment: NodeJS.ProcessEnv): string | null {
  return environment['ARCADIA_APP'] === '' ? null : (environment['ARCADIA_APP'] ?? null);
}

/**
 * Checks that a configuration has what a process cannot do without.
 *
 * @throws {ConfigError} naming each variable that is not set
 */
export function requireNeeds({ databaseUrl, digitalOcean }: Pick<Config, 'databaseUrl' | 'digitalOcean'>, needs: readonly ConfigNeed[]): void {
  const values: Readonly<Record<ConfigNeed, string | null>> = { DATABASE_URL: databaseUrl, DIGITALOCEAN_TOKEN: digitalOcean.token };
  const missing = needs.filter((need) => values[need] === null);
  if (missing.length > 0) throw refusal(missing.map(notSet));
}

function notSet(need: ConfigNeed): string {
  return `${need}: not set; this command needs it`;
}

type Environment = z.infer<typeof environmentSchema>;

/**
 * A request must end before its worker may lose the job, and the job must be lost before another worker may POST
 * again: else two workers could be creating the same droplet at once.
 */
function digitalOceanContradictions(env: Environment): string[] {
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
  if (apiUrl.protocol === 'http:' && !isLoopback(apiUrl.hostname.replace(/^\[|\]$/g, ''))) {
    problems.push('DIGITALOCEAN_API_URL: expected https, as the token would cross the network in plain text; http is for 127.0.0.1 alone');
  }
  return problems;
}

function contradictions(env: Environment): string[] {
  const problems: string[] = [];
  if ((env.DASHBOARD_USER === undefined) !== (env.DASHBOARD_PASSWORD === undefined)) {
    problems.push(
      env.DASHBOARD_USER === undefined
        ? 'DASHBOARD_USER: not set, though DASHBOARD_PASSWORD is; set both or neither'
        : 'DASHBOARD_PASSWORD: not set, though DASHBOARD_USER is; set both or neither',
    );
  }
  if (env.API_TOKENS?.some(({ name }) => name === env.DASHBOARD_USER) === true) {
    problems.push(`API_TOKENS: a token has the name of DASHBOARD_USER (${env.DASHBOARD_USER}); give it another one, as the record tells them apart by their names`);
  }
  return problems;
}

// A secret that others can try to guess: shorter ones are guessed.
const SHORTEST_SECRET = 16;

/**
 * Checks that `web` may listen where it is told to: beyond this machine only with credentials, each long enough and none
 * used twice.
 *
 * @throws {ConfigError}
 */
export function requireClosedWeb({ host, person, tokens }: Config['web']): void {
  if (isLoopback(host)) return;
  const reach = `HOST: ${host} can be reached from other machines`;
  if (person === null && tokens.length === 0) {
    throw refusal([`${reach}, so credentials are needed; set DASHBOARD_USER and DASHBOARD_PASSWORD, or API_TOKENS, or listen on 127.0.0.1`]);
  }
  const secrets = [...tokens.map(({ name, secret }) => ({ of: `API_TOKENS ${name}`, secret })), ...(person === null ? [] : [{ of: 'DASHBOARD_PASSWORD', secret: person.password }])];
  const problems = secrets.flatMap(({ of, secret }, index) => [
    ...(secret.length < SHORTEST_SECRET ? [`${of}: expected at least ${SHORTEST_SECRET} characters, as ${reach.replace('HOST: ', '')}; \`openssl rand -base64 24\` makes one`] : []),
    ...secrets.slice(0, index).filter((other) => other.secret === secret).map((other) => `${of}: expected a secret of its own, found that of ${other.of}`),
  ]);
  if (problems.length > 0) throw refusal(problems);
}

/**
 * Checks that a worker may serve its metrics where it is told to: beyond this machine only to who shows a token with the
 * scope `read`, or where `WORKER_METRICS_OPEN` says that the network keeps others out.
 *
 * @returns the tokens that open the metrics; null: they are open to all
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

function refusal(problems: readonly string[]): ConfigError {
  return new ConfigError(`The environment cannot be used:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
}

/** Whether only this machine reaches an address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
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
      probes: PROBES,
    },
    worker: { concurrency: env.WORKER_CONCURRENCY, lockMs: env.WORKER_LOCK_MS, shutdownMs: env.WORKER_SHUTDOWN_MS, metricsPort: env.WORKER_METRICS_PORT ?? null, metricsOpen: env.WORKER_METRICS_OPEN },
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
    sagaRetentionDays: env.SAGA_RETENTION_DAYS,
    auditRetentionDays: env.AUDIT_RETENTION_DAYS,
    web: {
      port: env.PORT,
      host: env.HOST,
      person: env.DASHBOARD_USER === undefined || env.DASHBOARD_PASSWORD === undefined ? null : { user: env.DASHBOARD_USER, password: env.DASHBOARD_PASSWORD },
      tokens: env.API_TOKENS_START_MAY_DESTROY ? withImpliedDestroy(env.API_TOKENS ?? []) : (env.API_TOKENS ?? []),
      impliedDestroy: env.API_TOKENS_START_MAY_DESTROY ? (env.API_TOKENS ?? []).filter(impliesDestroy).map(({ name }) => name) : [],
      trustedProxies: env.TRUSTED_PROXIES,
      basePath: env.WEB_BASE_PATH,
      allowedHosts: env.WEB_ALLOWED_HOSTS.map((host) => host.toLowerCase()),
    },
    logLevel: env.LOG_LEVEL,
  };
}
