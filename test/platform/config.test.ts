import { describe, expect, test } from 'vitest';
import { requireClosedMetrics } from '../../src/platform/closed-ports.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { ConfigError } from '../../src/platform/config-error.ts';
import { encryptionKeys } from '../support/keys.ts';

/** The message that an environment is refused with. */
function refusal(...args: Parameters<typeof loadConfig>): string {
  try {
    loadConfig(...args);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error('the environment was accepted');
}

const secret = 'hunter2-hunter2';

describe('loadConfig', () => {
  test('has a default for everything but the database and the token', () => {
    expect(loadConfig({})).toMatchObject({
      databaseUrl: null,
      redisNodes: null,
      queuePrefix: '{arcadia}',
      environment: 'default',
      digitalOcean: { token: null, apiUrl: 'https://api.digitalocean.com', timeoutMs: 10_000, requestsPerMinute: 250, requestsPerHour: 5_000 },
      worker: { concurrency: 50, lockMs: 30_000, shutdownMs: 25_000 },
      wait: { pollIntervalMs: 5_000, maxPolls: 96 },
      retry: { stepAttempts: 5, stepBackoffMs: 1_000, compensationAttempts: 20 },
      adoptionGraceMs: 60_000,
      orphanGraceMs: 900_000,
      reconcileIntervalMs: 15_000,
      inventorySyncIntervalMs: 900_000,
      sagaRetentionDays: 90,
      auditRetentionDays: 365,
      lease: { defaultS: null, maxS: null, warnS: null },
      keyRing: { keys: [] },
      logLevel: 'info',
    });
  });

  test('reads every variable', () => {
    const environment = {
      DATABASE_URL: 'postgresql://app:pw@db:5432/arcadia',
      REDIS_URL: 'rediss://one:6379, rediss://two:6379',
      QUEUE_PREFIX: '{other}',
      ARCADIA_ENV: 'production',
      DIGITALOCEAN_TOKEN: 'dop_v1_0',
      DIGITALOCEAN_API_URL: 'http://127.0.0.1:9999',
      DIGITALOCEAN_TIMEOUT_MS: '1',
      DIGITALOCEAN_REQUESTS_PER_MINUTE: '2',
      DIGITALOCEAN_REQUESTS_PER_HOUR: '3',
      REQUESTER_WEIGHTS: 'http:web=3, cli:a=b=0.5',
      WORKER_CONCURRENCY: '4',
      WORKER_LOCK_MS: '5',
      WORKER_SHUTDOWN_MS: '6',
      WAIT_POLL_INTERVAL_MS: '7',
      WAIT_MAX_POLLS: '8',
      STEP_ATTEMPTS: '9',
      STEP_BACKOFF_MS: '10',
      COMPENSATION_ATTEMPTS: '11',
      ADOPTION_GRACE_MS: '12',
      ORPHAN_GRACE_MS: '13',
      RECONCILE_INTERVAL_MS: '14',
      INVENTORY_SYNC_INTERVAL_MS: '15',
      SAGA_RETENTION_DAYS: '16',
      AUDIT_RETENTION_DAYS: '17',
      LEASE_DEFAULT_S: '18',
      LEASE_MAX_S: '19',
      LEASE_WARN_S: '20',
      LOG_LEVEL: 'debug',
    };
    expect(loadConfig(environment)).toMatchObject({
      databaseUrl: 'postgresql://app:pw@db:5432/arcadia',
      redisNodes: ['rediss://one:6379', 'rediss://two:6379'],
      queuePrefix: '{other}',
      environment: 'production',
      digitalOcean: { token: 'dop_v1_0', apiUrl: 'http://127.0.0.1:9999', timeoutMs: 1, requestsPerMinute: 2, requestsPerHour: 3 },
      worker: { concurrency: 4, lockMs: 5, shutdownMs: 6 },
      wait: { pollIntervalMs: 7, maxPolls: 8 },
      lease: { defaultS: 18, maxS: 19, warnS: 20 },
      retry: { stepAttempts: 9, stepBackoffMs: 10, compensationAttempts: 11 },
      adoptionGraceMs: 12,
      orphanGraceMs: 13,
      reconcileIntervalMs: 14,
      inventorySyncIntervalMs: 15,
      sagaRetentionDays: 16,
      auditRetentionDays: 17,
      logLevel: 'debug',
    });
  });

  test.each(['http://api.digitalocean.com', 'http://10.0.0.5:4000', 'http://localhost.evil.example'])('refuses %s for the API: the token would cross the network in plain text', (DIGITALOCEAN_API_URL) => {
    expect(refusal({ DIGITALOCEAN_API_URL, DIGITALOCEAN_TOKEN: 'dop_v1_0123456789' })).toContain('DIGITALOCEAN_API_URL: expected https');
    // Nothing can cross.
    expect(() => loadConfig({ DIGITALOCEAN_API_URL })).not.toThrow();
  });

  test('takes http beyond this machine with the token sandbox, which is no secret, and with no other', () => {
    const sandbox = { DIGITALOCEAN_API_URL: 'http://sandbox:4010', DIGITALOCEAN_TOKEN: 'sandbox' };
    expect(loadConfig(sandbox).digitalOcean).toMatchObject({ apiUrl: 'http://sandbox:4010', token: 'sandbox' });
    for (const DIGITALOCEAN_TOKEN of ['dop_v1_0123456789abcdef', 'sandbox2', 'Sandbox']) {
      expect(refusal({ ...sandbox, DIGITALOCEAN_TOKEN })).toContain('DIGITALOCEAN_API_URL: expected https');
    }
  });

  test.each(['http://127.0.0.1:4000', 'http://[::1]:4000', 'http://localhost:4000', 'https://10.0.0.5'])('takes %s for the API', (DIGITALOCEAN_API_URL) => {
    expect(loadConfig({ DIGITALOCEAN_API_URL }).digitalOcean.apiUrl).toBe(DIGITALOCEAN_API_URL);
  });

  test("serves a worker's metrics beyond this machine only to readers, or where it is told that the network is closed", () => {
    const given = { WORKER_METRICS_PORT: '9464', HOST: '0.0.0.0' };
    expect(() => requireClosedMetrics(loadConfig(given))).toThrow(/WORKER_METRICS_PORT: 0\.0\.0\.0 can be reached .* WORKER_METRICS_OPEN=true/);
    expect(() => requireClosedMetrics(loadConfig({ ...given, API_TOKENS: 'prometheus:start:a-secret-long-enough' }))).toThrow(ConfigError);
    expect(requireClosedMetrics(loadConfig({ ...given, API_TOKENS: 'prometheus:read:a-secret-long-enough' }))).toMatchObject([{ name: 'prometheus' }]);
    expect(requireClosedMetrics(loadConfig({ ...given, WORKER_METRICS_OPEN: 'true' }))).toBeNull();
    expect(requireClosedMetrics(loadConfig({ WORKER_METRICS_PORT: '9464' }))).toBeNull();
    expect(requireClosedMetrics(loadConfig({ HOST: '0.0.0.0' }))).toBeNull();
  });

  test('takes an empty variable for one that is not set', () => {
    expect(loadConfig({ REDIS_URL: '', DATABASE_URL: '', DIGITALOCEAN_TOKEN: '', WORKER_CONCURRENCY: '', LOG_LEVEL: '' })).toEqual(loadConfig({}));
  });

  test('reads the weights of requesters, whose names may contain any character but a comma', () => {
    const { requesterWeights } = loadConfig({ REQUESTER_WEIGHTS: 'http:web=3, cli:a=b = 0.5' }).digitalOcean;
    expect(requesterWeights).toEqual({ 'http:web': 3, 'cli:a=b': 0.5 });
    expect(loadConfig({}).digitalOcean.requesterWeights).toEqual({});
  });

  test.each(['http:web', 'http:web=', '=2', 'http:web=0', 'http:web=-1', 'http:web=1001', 'http:web=1e3', 'http:web=2,', 'http:web=two'])('refuses %s as a weight of a requester', (REQUESTER_WEIGHTS) => {
    expect(refusal({ REQUESTER_WEIGHTS })).toMatch(/REQUESTER_WEIGHTS: expected name=weight, separated by commas, such as .*; a weight is a number from 0\.01 to 1000$/);
  });

  test('refuses two weights for one requester', () => {
    expect(refusal({ REQUESTER_WEIGHTS: 'a=1,a=2' })).toContain('REQUESTER_WEIGHTS: expected each name once');
  });

  test('does not mind variables that are not ours', () => {
    expect(loadConfig({ HOME: '/root', PATH: '/bin' })).toEqual(loadConfig({}));
  });

  test('names all problems together, each with its variable and what was expected', () => {
    const message = refusal(
      { REDIS_URL: 'localhost:6379', WORKER_CONCURRENCY: 'many', QUEUE_PREFIX: 'a:b', ARCADIA_ENV: 'Production!', LOG_LEVEL: 'loud', WAIT_MAX_POLLS: '0' },
      ['DATABASE_URL', 'DIGITALOCEAN_TOKEN'],
    );
    const lines = message.split('\n').slice(1).toSorted();
    expect(lines).toEqual([
      expect.stringMatching(/^ {2}ARCADIA_ENV: expected lower-case letters/),
      '  DATABASE_URL: not set, but required',
      '  DIGITALOCEAN_TOKEN: not set, but required',
      expect.stringMatching(/^ {2}LOG_LEVEL: .*expected one of/),
      expect.stringMatching(/^ {2}QUEUE_PREFIX: expected a key prefix/),
      expect.stringMatching(/^ {2}REDIS_URL: expected redis:\/\/host:port/),
      '  WAIT_MAX_POLLS: expected a whole number from 1 to 1000000',
      '  WORKER_CONCURRENCY: expected a whole number from 1 to 1000',
    ]);
  });

  test.each(['-1', '0', '1.5', '1e3', ' 5', '0x10', '999999999999999999999', 'NaN', '१'])('refuses %j as a number of milliseconds', (value) => {
    expect(refusal({ WAIT_POLL_INTERVAL_MS: value })).toBe(
      'Invalid configuration:\n  WAIT_POLL_INTERVAL_MS: expected a whole number from 1 to 2147483647',
    );
  });

  test.each([
    ['DATABASE_URL', `mysql://arcadia:${secret}@db/arcadia`],
    ['DATABASE_URL', `postgres://arcadia:${secret}@db:port/arcadia`],
    ['REDIS_URL', `http://:${secret}@redis:6379`],
    ['REDIS_URL', `redis://:${secret}@one:6379,two:6379`],
    ['DIGITALOCEAN_TOKEN', `${secret} with a blank`],
    ['DIGITALOCEAN_TOKEN', `${secret}\n`],
    ['DIGITALOCEAN_API_URL', `ftp://user:${secret}@host`],
    ['ARCADIA_ENCRYPTION_KEYS', secret],
    ['ARCADIA_ENCRYPTION_KEYS', `${encryptionKeys},${secret}`],
    ['ARCADIA_ENCRYPTION_KEYS', `${encryptionKeys},${encryptionKeys}`],
    ['ARCADIA_ENCRYPTION_KEYS', `${encryptionKeys},`],
  ])('never says the value of a wrong %s', (variable, value) => {
    const message = refusal({ [variable]: value });
    expect(message).toContain(`${variable}: expected`);
    expect(message).not.toContain(secret);
    expect(message).not.toContain(encryptionKeys);
  });

  test('never says a secret that is right beside another variable that is wrong', () => {
    const message = refusal({
      DATABASE_URL: `postgres://arcadia:${secret}@db/arcadia`,
      REDIS_URL: `redis://:${secret}@redis:6379`,
      DIGITALOCEAN_TOKEN: secret,
      WORKER_LOCK_MS: '1',
      WAIT_MAX_POLLS: 'x',
    });
    expect(message).not.toContain(secret);
  });

  test.each([
    [{ DIGITALOCEAN_TIMEOUT_MS: '30000' }, 'WORKER_LOCK_MS: expected more than DIGITALOCEAN_TIMEOUT_MS (30000), found 30000'],
    [{ WORKER_LOCK_MS: '10000' }, 'WORKER_LOCK_MS: expected more than DIGITALOCEAN_TIMEOUT_MS (10000), found 10000'],
    [{ WORKER_LOCK_MS: '60000' }, 'ADOPTION_GRACE_MS: expected more than WORKER_LOCK_MS (60000), found 60000'],
    [{ ADOPTION_GRACE_MS: '29999' }, 'ADOPTION_GRACE_MS: expected more than WORKER_LOCK_MS (30000), found 29999'],
    [{ LEASE_DEFAULT_S: '120', LEASE_MAX_S: '60' }, 'LEASE_DEFAULT_S: expected at most LEASE_MAX_S (60), found 120'],
  ])('refuses times that contradict each other: %j', (environment, problem) => {
    expect(refusal(environment)).toBe(`Invalid configuration:\n  ${problem}`);
  });

  test('accepts times that are just far enough apart', () => {
    expect(() => loadConfig({ DIGITALOCEAN_TIMEOUT_MS: '10', WORKER_LOCK_MS: '11', ADOPTION_GRACE_MS: '12' })).not.toThrow();
  });
});

describe('outcomes', () => {
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
  const webhook = { OUTCOME_WEBHOOK_URL: 'https://billing.example/hooks', OUTCOME_WEBHOOK_SECRETS: `${secret}, ${secret}` };

  test('go to a webhook with its secrets, newest first, and to a queue', () => {
    expect(loadConfig({ ...webhook, OUTCOME_QUEUE: 'told' }).outcomes).toEqual({ webhook: { url: 'https://billing.example/hooks', secrets: [secret, secret] }, queue: 'told', notify: true });
    expect(loadConfig({}).outcomes).toEqual({ webhook: null, queue: null, notify: true });
    expect(loadConfig({ OUTCOME_NOTIFY: 'false' }).outcomes.notify).toBe(false);
  });

  test.each([
    [{ OUTCOME_WEBHOOK_URL: webhook.OUTCOME_WEBHOOK_URL }, 'OUTCOME_WEBHOOK_SECRETS: not set, though OUTCOME_WEBHOOK_URL is'],
    [{ OUTCOME_WEBHOOK_SECRETS: secret }, 'OUTCOME_WEBHOOK_URL: not set, though OUTCOME_WEBHOOK_SECRETS is'],
    [{ ...webhook, OUTCOME_WEBHOOK_URL: 'http://billing.example/hooks' }, 'OUTCOME_WEBHOOK_URL: expected https'],
    [{ ...webhook, OUTCOME_WEBHOOK_URL: 'ftp://billing.example' }, 'OUTCOME_WEBHOOK_URL: expected https://host/path'],
    [{ ...webhook, OUTCOME_WEBHOOK_URL: 'https://me:pass@billing.example/hooks' }, 'OUTCOME_WEBHOOK_URL: expected no user name and password'],
    [{ ...webhook, OUTCOME_WEBHOOK_SECRETS: 'whsec_c2hvcnQ=' }, 'OUTCOME_WEBHOOK_SECRETS: expected secrets'],
    [{ OUTCOME_QUEUE: 'saga-steps' }, 'OUTCOME_QUEUE: saga-steps is a queue of arcadia-cloud itself'],
  ])('are refused where they cannot be sent: %o', (environment, message) => {
    expect(() => loadConfig(environment)).toThrow(message);
  });

  test.each([{ OUTCOME_WEBHOOK_URL: 'http://127.0.0.1:8080/' }, { OUTCOME_WEBHOOK_URL: 'http://[::1]:8080/' }, { OUTCOME_WEBHOOK_URL: 'http://receiver:8080/', ARCADIA_ENV: 'test' }])('may go over http where that is safe: %o', (environment) => {
    expect(loadConfig({ ...webhook, ...environment }).outcomes.webhook?.url).toBe(environment.OUTCOME_WEBHOOK_URL);
  });
});
