// No secret anywhere: every kind of failure at log level `trace`, and then a search through all that was printed, kept
// and answered.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import type { Job } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { Rule } from '../../src/sandbox/server.ts';
import { generateKey } from '../../src/platform/key-ring.ts';
import { runCommand } from '../support/fleet.ts';
import { waitFor } from '../support/wait-for.ts';
import { dumpPostgres, dumpRedis } from './dumps.ts';
import { leaks } from './search.ts';
import type { SecretStage } from './stage.ts';
import { openSecretStage } from './stage.ts';

const droplet = { region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

// Seven processes that start at once, on a machine that may be busy.
const COMMAND_WITHIN_MS = 60_000;

let stage: SecretStage;
let folder: string;
const answers: string[] = [];
const told: string[] = [];

beforeAll(async () => {
  stage = await openSecretStage();
  folder = await mkdtemp(join(tmpdir(), 'arcadia-secrets-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await stage[Symbol.asyncDispose]();
});

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<{ status: number; text: string }> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const response = await fetch(`${stage.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${stage.secrets['the API token']}`, ...(text === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(text === undefined ? {} : { body: text }),
  });
  const answer = { status: response.status, text: await response.text() };
  answers.push(`${method} ${path.split('?')[0]} ${answer.status} ${JSON.stringify([...response.headers])} ${answer.text}`);
  return answer;
}

async function provision(name: string, more: object = {}): Promise<string> {
  const answer = await call('POST', '/v1/sagas/provision_droplet', { ...droplet, name, user_data: stage.userData, ...more });
  expect(answer).toMatchObject({ status: 202 });
  return z.object({ sagaId: z.string() }).parse(JSON.parse(answer.text)).sagaId;
}

async function command(args: readonly string[], changes: NodeJS.ProcessEnv = {}): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const ended = await runCommand(args, { ...stage.environment, ...changes }, COMMAND_WITHIN_MS);
  told.push(`${args[0]} ${ended.code}`, ended.stdout, ended.stderr);
  return ended;
}

const refused = (message: string): Rule['effect'] => ({ status: 422, body: { id: 'unprocessable_entity', message, request_id: 'r-1' } });

/** Sagas that hold on until somebody does something. */
const holding = ['answer-401', 'answer-403', 'other-key'];

/** Answers of DigitalOcean that go wrong, by the name of the droplet that is asked for. */
function faultRules(): Rule[] {
  const { userData } = stage;
  const token = stage.secrets['the token'] ?? '';
  const request = JSON.stringify({ ...droplet, name: 'x', user_data: userData });
  const effects: Record<string, Rule['effect']> = {
    'echo-plain': refused(`not good: ${userData}`),
    'echo-json': refused(`not good: ${request}`),
    'echo-twice': refused(`not good: ${JSON.stringify(request)}`),
    'echo-url': refused(`not good: ${encodeURIComponent(userData)}`),
    'echo-base64': refused(`not good: ${Buffer.from(userData).toString('base64')}`),
    'echo-request-base64': refused(`not good: ${Buffer.from(request).toString('base64')}`),
    'echo-token': refused(`not good: Authorization: Bearer ${token}`),
    'echo-token-base64': refused(`not good: ${Buffer.from(`Bearer ${token}`).toString('base64')}`),
    'echo-id': { status: 422, body: { id: token, message: 'no', request_id: stage.secrets['user_data'] }, headers: { 'x-request-id': token } },
    'echo-text': { status: 422, body: request },
    'echo-page': { status: 500, body: `<html><body>${request} ${token}</body></html>`, headers: { 'content-type': 'text/html' } },
    'answer-401': { status: 401, body: { id: 'Unauthorized', message: `${token} is not known` } },
    'answer-403': { status: 403, body: { id: 'forbidden', message: `${token} may not` } },
    'answer-429': { retryAfterS: 0 },
    'answer-500': { status: 500, body: { id: 'server_error', message: request } },
    'answer-html': { html: 502 },
    'answer-truncated': { truncate: true },
    'answer-mangled': { mangleId: 'string' },
    'answer-lost': { lostAnswer: true },
    'no-answer': { hang: true },
    'no-connection': { reset: true },
  };
  return Object.entries(effects).map(([name, effect]) => ({ match: { method: 'POST', path: '/v2/droplets', name }, ...(holding.includes(name) ? {} : { times: 1 }), effect }));
}

/** What other backends put into the queue themselves, most of it wrong. */
function poisons(): [name: string, data: unknown][] {
  const { userData } = stage;
  const input = { ...droplet, name: 'queued', user_data: userData };
  return [
    ['provision_droplet', { input }],
    ['provision_droplet', { input: { ...input, name: 'not a name' } }],
    ['provision_droplet', { input: { ...input, user_data: { text: userData } } }],
    ['provision_droplet', { input: { ...input, user_data: [userData] } }],
    ['provision_droplet', { input: { ...input, user_data: `${userData}\0` } }],
    ['provision_droplet', { input: { ...input, user_data: userData.repeat(2_000) } }],
    ['provision_droplet', { input: { ...input, userData } }],
    ['provision_droplet', { input, more: 1 }],
    ['provision_droplet', { input, idempotencyKey: 'the same' }],
    ['provision_droplet', { input: { ...input, user_data: `${userData} ` }, idempotencyKey: 'the same' }],
    ['provision_droplet', input],
    ['provision_droplet', JSON.stringify({ input })],
    ['no_such_saga', { input }],
  ];
}

async function invalidRequests(sagaId: string): Promise<void> {
  const { userData, secrets } = stage;
  const valid = { ...droplet, name: 'invalid', user_data: userData };
  const start = (body: unknown, headers?: Record<string, string>) => call('POST', '/v1/sagas/provision_droplet', body, headers);
  await Promise.all([
    start({ ...valid, name: 'not a name' }),
    start({ ...valid, user_data: { text: userData } }),
    start({ ...valid, user_data: [userData] }),
    start({ ...valid, user_data: `${userData}\0` }),
    start({ ...valid, user_data: userData.repeat(2_000) }),
    start({ ...valid, user_data: userData.repeat(20_000) }),
    start({ ...valid, userData }),
    start({ ...valid, region: { user_data: userData } }),
    start({ user_data: userData }),
    start([valid]),
    start(JSON.stringify(JSON.stringify(valid))),
    start(`{"user_data": "${secrets['user_data']}`),
    start(valid, { 'content-type': 'text/plain' }),
    start(valid, { 'idempotency-key': 'k'.repeat(300) }),
    start(valid, { authorization: `Bearer ${secrets['the API token']}x` }),
    start(valid, { authorization: `Basic ${Buffer.from(`ada:${secrets['the password of the dashboard']}x`).toString('base64')}` }),
    start(valid, { authorization: `${secrets['the API token']}` }),
    call('POST', '/v1/sagas/no_such_saga', valid),
    call('GET', `/v1/sagas?token=${secrets['the API token']}&limit=many`),
    call('GET', `/nothing?token=${secrets['the API token']}`),
    call('POST', `/v1/sagas/${sagaId}/cancel`, { user_data: userData }),
    call('POST', '/v1/bulk/cancel', { filter: { user_data: userData }, dryRun: true }),
    call('PATCH', `/queues/api/queues/sagas/1/update-data`, { jobData: { user_data: '[redacted]' } }),
    call('GET', '/v1/sagas', undefined, { authorization: `Basic ${Buffer.from(`ada:${secrets['the password of the dashboard']}`).toString('base64')}` }),
  ]);
}

/** Throws an error that nobody catches, with what libraries put into theirs, once the program is there to see it. */
const throwing = `
  const since = Date.now();
  const wait = setInterval(() => {
    if (process.listenerCount('uncaughtException') === 0 && Date.now() - since < 2_000) return;
    throw Object.assign(new Error('nobody catches this'), { command: { args: [JSON.stringify(process.env)] } });
  }, 20);
`;

/** Processes that cannot start, and commands that work. */
async function commands(): Promise<void> {
  const { secrets, environment } = stage;
  const file = join(folder, 'user-data');
  await writeFile(file, stage.userData);
  await writeFile(join(folder, 'throwing.mjs'), throwing);
  const from = (name: string) => ['provision', '--name', name, '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64', '--user-data-file', file];
  const malformed = Object.fromEntries(
    ['DATABASE_URL', 'REDIS_URL', 'DIGITALOCEAN_TOKEN', 'DIGITALOCEAN_API_URL', 'ARCADIA_ENCRYPTION_KEYS', 'API_TOKENS', 'DASHBOARD_USER'].map((name) => [
      name,
      `a:b:${Object.values(secrets).join(' ')}`,
    ]),
  );
  const ended = await Promise.all([
    command(['worker'], malformed),
    command(['worker'], { DATABASE_URL: environment['DATABASE_URL']?.replace('@', 'x@') }),
    command(['web'], { REDIS_URL: environment['REDIS_URL']?.replace('@', 'x@') }),
    command(['worker'], { NODE_OPTIONS: `--import=${join(folder, 'throwing.mjs')}` }),
    command([...from('by-command'), '--json']),
    command([...from('keyless'), '--detach'], { ARCADIA_ENCRYPTION_KEYS: undefined }),
    command([...from('other-key'), '--detach'], { ARCADIA_ENCRYPTION_KEYS: generateKey() }),
  ]);
  expect(ended.map(({ code }) => code)).toEqual([78, 1, 1, 1, 0, 2, 0]);
}

async function outages(): Promise<void> {
  const { links, redis, secrets } = stage;
  links.postgres.down();
  const without = await Promise.all([call('POST', '/v1/sagas/provision_droplet', { ...droplet, name: 'down', user_data: stage.userData }), call('GET', '/readyz')]);
  expect(without.map(({ status }) => status)).toEqual([503, 503]);
  links.postgres.up();
  await waitFor(async () => (await call('GET', '/v1/sagas')).status === 200, { what: 'Postgres to be back' });
  links.redis.down();
  await provision('without-redis');
  links.redis.up();
  await redis.config('SET', 'requirepass', 'another');
  await redis.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
  await provision('wrong-redis-password');
  await call('GET', '/queues/api/queues?activeQueue=sagas&status=latest&page=1&jobsPerPage=10');
  await sleep(500);
  await redis.config('SET', 'requirepass', secrets['the password of Redis'] ?? '');
}

/** The intake queue, as another backend opens it. */
async function withIntake(use: (queue: Queue) => Promise<unknown>): Promise<void> {
  const connection = new Redis(stage.redisUrl, { maxRetriesPerRequest: null });
  const queue = new Queue('sagas', { connection, prefix: '{arcadia}' });
  try {
    await use(queue);
  } finally {
    await queue.close();
    connection.disconnect();
  }
}

async function unfinished(): Promise<string[]> {
  const rows = await stage.db.sql<{ name: string }[]>`select input->>'name' as name from arcadia.sagas where status in ('pending', 'running', 'compensating')`;
  return rows.map(({ name }) => name);
}

test('no secret is printed, kept or answered, whatever goes wrong; and DigitalOcean gets what it needs', async () => {
  const rules = faultRules();
  stage.sandbox.setFaults({ rules });
  const ids = await Promise.all([...rules.map(({ match }) => provision(match.name ?? '')), provision('fine')]);
  const fine = ids.at(-1) ?? '';
  const stream = call('GET', `/v1/sagas/${fine}/events`);
  stream.catch(() => undefined);
  await invalidRequests(fine);
  await withIntake((queue) => Promise.all(poisons().map(([name, data]) => queue.add(name, data))));

  await commands();
  await outages();
  const unfired = () => stage.sandbox.faults().rules.filter(({ fired }) => fired === 0).map(({ match }) => match.name);
  await waitFor(async () => Promise.resolve(unfired().length === 0), { what: 'every fault to have struck', deadlineMs: 25_000 });
  for (const name of holding) {
    const [held] = await stage.db.sql<{ id: string }[]>`select id from arcadia.sagas where input->>'name' = ${name} and status = 'running'`;
    expect({ name, held }).toMatchObject({ held: { id: expect.any(String) } });
    await call('POST', `/v1/sagas/${held?.id}/cancel`, {});
  }
  await waitFor(async () => (await unfinished()).length === 0, { what: 'all sagas to come to rest', deadlineMs: 25_000 }).catch(async (error: unknown) => {
    throw new Error(`still under way: ${(await unfinished()).join(', ')}`, { cause: error });
  });
  await withIntake((queue) => waitFor(async () => ((await queue.getJobs(['waiting', 'active', 'delayed'])) as Job[]).length === 0, { what: 'the intake to be done' }));
  await stream;
  const shown = ['/v1/sagas?limit=200', '/v1/resources', '/sagas', '/metrics', '/readyz', '/openapi.json', '/queues', ...ids.flatMap((id) => [`/v1/sagas/${id}`, `/sagas/${id}`])];
  await Promise.all(shown.map((path) => call('GET', path)));
  const board = ['sagas', 'saga-steps', 'saga-compensations'].flatMap((name) =>
    ['latest', 'failed', 'completed', 'delayed'].map((status) => `/queues/api/queues?activeQueue=${name}&status=${status}&page=1&jobsPerPage=200`),
  );
  await Promise.all(board.map((path) => call('GET', path)));
  const logs = await stage.db.sql<{ path: string }[]>`
    select '/queues/api/queues/saga-steps/' || saga_id || '_' || seq || '/logs' as path from arcadia.saga_events`;
  const jobLogs = await Promise.all(logs.map(({ path }) => call('GET', path)));
  expect(jobLogs.some(({ text }) => text.includes('rolling back'))).toBe(true);
  expect(jobLogs.filter(({ status, text }) => status !== 200 || text.includes('could not be read'))).toEqual([]);
  await Promise.all([command(['sagas', '--json']), command(['saga', ids[0] ?? ''])]);

  // What was sent to DigitalOcean holds two of them: the search finds them there.
  expect(leaks(stage.secrets, { 'what was sent': stage.sent() }).map((leak) => leak.split(' in what')[0])).toEqual(
    expect.arrayContaining(['the token (plain)', 'user_data (plain)']),
  );
  const [tables, keys] = await Promise.all([dumpPostgres(stage.db), dumpRedis(stage.redis)]);
  expect(tables).toContain('[sealed, ');
  expect(keys).toContain('refused');
  expect(leaks(stage.secrets, { ...stage.printed(), 'what the commands printed': told.join('\n'), 'what web answered': answers.join('\n'), Redis: keys, Postgres: tables })).toEqual([]);
});

test('the search finds a secret in whatever form, and the dumps show it wherever it is kept', async () => {
  const { secrets, db, redis } = stage;
  const hidden = 'canaryhidden4711';
  for (const [form, text] of [
    ['plain', `x${hidden}x`],
    ['base64 at 0', Buffer.from(hidden).toString('base64')],
    ['base64 at 1', Buffer.from(`a${hidden}bc`).toString('base64')],
    ['base64url at 2', Buffer.from(`>?${hidden}`).toString('base64url')],
    ['hexadecimal', Buffer.from(`>${hidden}`).toString('hex')],
  ] as const) {
    expect(leaks({ it: hidden }, { here: text }).join('\n')).toContain(`it (${form})`);
  }
  expect(leaks({ it: 'a"b/c' }, { here: `{"x":"${String.raw`a\"b/c`}"}`, there: '/?x=a%22b%2Fc' }).length).toBe(2);
  await redis.hset('planted:hash', 'field', hidden);
  await redis.xadd('planted:stream', '*', 'field', hidden);
  await redis.lpush('planted:list', hidden);
  await redis.zadd('planted:zset', 1, hidden);
  await db.sql`create schema planted`;
  await db.sql`create table planted.rows (id int, value jsonb)`;
  await db.sql`insert into planted.rows values (1, ${JSON.stringify({ deep: [hidden] })}::text::jsonb)`;
  const keys = await dumpRedis(redis);
  expect(['hash', 'stream', 'list', 'zset'].filter((type) => !keys.includes(`planted:${type}\t`))).toEqual([]);
  expect(keys.split(hidden)).toHaveLength(5);
  expect((await dumpPostgres(db)).split(hidden)).toHaveLength(2);
  expect(Object.values(secrets).every((secret) => secret.length > 20)).toBe(true);
});
