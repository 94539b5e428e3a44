// The variables of the environment, each with its form and its default.
import { z } from 'zod';
import { apiTokens } from './api-tokens.ts';
import { databaseUrl, flag, isAddressRange, isPublicUrl, isUrlOf, keyRing, listOf, milliseconds, numberBetween, redisNodes, requesterWeights, roles, userHeader, webhookSecrets, webhookUrl, wholeNumber } from './config-fields.ts';
import { emptyKeyRing } from './key-ring.ts';
import { MAX_LEASE_S } from './longest-lease.ts';

/** Values are strings, as in the environment; what is unset takes its default. */
export const environmentSchema = z.object({
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
  DIGITALOCEAN_WHEN_FULL: z.enum(['fail', 'wait'], 'expected fail or wait').default('fail'),
  REQUESTER_WEIGHTS: requesterWeights.default({}),
  WORKER_CONCURRENCY: wholeNumber(50, 1, 1_000),
  WORKER_LOCK_MS: milliseconds(30_000),
  WAIT_POLL_INTERVAL_MS: milliseconds(5_000),
  WAIT_MAX_POLLS: wholeNumber(96, 1, 1_000_000),
  STEP_ATTEMPTS: wholeNumber(5, 1, 1_000),
  STEP_BACKOFF_MS: milliseconds(1_000),
  COMPENSATION_ATTEMPTS: wholeNumber(20, 1, 1_000),
  PUBLIC_URL: z
    .string()
    .max(500, 'expected at most 500 characters')
    .refine(isPublicUrl, 'expected the address by which others reach the web, such as https://arcadia.example.com, without credentials, query and fragment')
    .transform((value) => value.replace(/\/+$/, ''))
    .optional(),
  READY_PROBE_ALLOW: listOf(isAddressRange, 'expected addresses or CIDRs separated by commas, such as 10.0.0.0/8,fd00::/8'),
  ADOPTION_GRACE_MS: milliseconds(60_000),
  ORPHAN_GRACE_MS: milliseconds(900_000),
  WORKER_SHUTDOWN_MS: milliseconds(25_000),
  ARCADIA_ENCRYPTION_KEYS: keyRing.default(emptyKeyRing),
  RECONCILE_INTERVAL_MS: milliseconds(15_000),
  INVENTORY_SYNC_INTERVAL_MS: milliseconds(900_000),
  LEASE_DEFAULT_S: numberBetween(1, MAX_LEASE_S).optional(),
  LEASE_MAX_S: numberBetween(1, MAX_LEASE_S).optional(),
  LEASE_WARN_S: numberBetween(1, MAX_LEASE_S).optional(),
  SAGA_RETENTION_DAYS: wholeNumber(90, 1, 36_500),
  AUDIT_RETENTION_DAYS: wholeNumber(365, 1, 36_500),
  OUTCOME_WEBHOOK_URL: webhookUrl.optional(),
  OUTCOME_WEBHOOK_SECRETS: webhookSecrets.optional(),
  OUTCOME_QUEUE: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,100}$/, 'expected the name of a queue: letters, digits, ., _ and -')
    .optional(),
  OUTCOME_NOTIFY: flag('true'),
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
  DASHBOARD_USERS_FILE: z.string().optional(),
  AUTH_PROXY_HEADER: userHeader.optional(),
  AUTH_PROXY_ROLE: z.enum(roles, `expected ${roles.join(', ')}`).optional(),
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

/** The parsed variables, under their own names. */
export type Environment = z.infer<typeof environmentSchema>;
