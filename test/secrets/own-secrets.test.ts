// Secrets of a saga of one's own: two fields, through every door, with real processes' parts, and a search through all that was
// kept, logged and shown.
import { randomBytes } from 'node:crypto';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import type { Config } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { textOf } from '../../src/platform/json.ts';
import { generateKey, parseKeyRing } from '../../src/platform/key-ring.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import { done, failed, waiting } from '../../src/saga/step.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';
import { dumpPostgres, dumpRedis } from './dumps.ts';
import { leaks } from './search.ts';

const canary = (what: string): string => `canary${what}${randomBytes(12).toString('hex')}`;
const secrets = { api_key: canary('key'), password: `${canary('password')}"ü\\` };
const key = generateKey();

/** What the steps opened, and whether they may go on. */
const seen: string[] = [];
let mayGoOn = false;

const verify = defineStep<object>({
  name: 'verify_partner',
  execute: async (run) => {
    seen.push(`${await run.secret('api_key')} ${await run.secret('password')}`);
    run.log.info({ input: run.saga.input }, 'verified');
    return done({ partner_id: 'p-7' }, 'verified');
  },
  compensate: async (run) => {
    seen.push(`undo ${await run.secret('api_key')}`);
    return done();
  },
});
const connect = defineStep<object>({
  name: 'connect_partner_account',
  execute: async ({ saga }) => {
    await Promise.resolve();
    if (!mayGoOn) return waiting(100, 'the partner is not ready');
    return saga.input['fails'] === true ? failed('refused', 'the partner refuses', { retryable: false }) : done();
  },
  compensate: async () => Promise.resolve(done()),
});
const connectPartner = defineSaga({
  name: 'connect_partner',
  input: z.strictObject({ partner: z.string(), api_key: z.string(), password: z.string(), fails: z.boolean().optional() }),
  secrets: ['api_key', 'password'],
  steps: [verify, connect],
  subject: ({ input, context }) => ({ kind: 'partner', name: textOf(input['partner']), id: textOf(context['partner_id']) || null }),
});
const app = defineApp({ sagas: [connectPartner], deps: () => ({}) });

const stack = new AsyncDisposableStack();
let config: Config;
let db: Database;
let redis: Redis;
let url = '';
const logged: string[] = [];
const answers: string[] = [];

beforeAll(async () => {
  const database = stack.use(await createEngineDatabase());
  const server = await startPrivateRedis();
  stack.defer(() => server.stop());
  redis = new Redis(server.url);
  stack.defer(() => redis.disconnect());
  const sandbox = await startSandbox({ ratePerMinute: null, ratePerHour: null });
  stack.defer(() => sandbox.close());
  config = loadConfig({
    ARCADIA_ENV: 'test', DATABASE_URL: database.url, REDIS_URL: server.url, PORT: '0', RECONCILE_INTERVAL_MS: '500', ARCADIA_ENCRYPTION_KEYS: key,
    API_TOKENS: 'tester:read+start+operate+destroy:secret-of-the-tester', DIGITALOCEAN_TOKEN: 'any', DIGITALOCEAN_API_URL: sandbox.url, STEP_BACKOFF_MS: '50',
  });
  db = openDatabase(database.url, { max: 3 });
  stack.defer(() => db.close());
  await migrate(db, 'test', app.catalog);
  const log = pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) });
  const web = await startWeb(config, log, { app });
  stack.defer(() => web.close());
  ({ url } = web);
  const worker = await startWorker(config, log, undefined, app);
  stack.defer(() => worker.close());
});
afterAll(() => stack.disposeAsync());

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<{ status: number; text: string }> {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: 'Bearer secret-of-the-tester', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  answers.push(`${method} ${path} ${response.status} ${text}`);
  return { status: response.status, text };
}

const idOf = ({ text }: { text: string }): string => z.object({ sagaId: z.string() }).parse(JSON.parse(text)).sagaId;
const inputOf = (partner: string, more: object = {}) => ({ partner, ...secrets, ...more });
const isAt = (id: string, status: string) =>
  waitFor(async () => (await db.sql`select from arcadia.sagas where id = ${id} and status = ${status}`).length === 1, { what: `saga ${id} to be ${status}`, deadlineMs: 20_000 });
const places = async () => ({ 'Postgres': await dumpPostgres(db), 'Redis': await dumpRedis(redis), 'the log': logged.join(''), 'the answers': answers.join('\n') });

async function lookAtEverything(ids: readonly string[]): Promise<void> {
  const paths = ['/sagas', '/sagas?q=p-7', '/v1/sagas?limit=200', '/queues/api/queues?activeQueue=sagas&status=latest', '/queues/api/queues?activeQueue=saga-steps&status=latest', ...ids.flatMap((id) => [`/sagas/${id}`, `/v1/sagas/${id}`])];
  for (const path of paths) expect(await call('GET', path)).toMatchObject({ status: 200 });
}

test('stand nowhere in the clear, are opened by the steps, known again by what they are, and gone in the end', async () => {
  const over = { http: await call('POST', '/v1/sagas/connect_partner', inputOf('over-http'), { 'idempotency-key': 'one' }) };
  expect(over.http.status).toBe(202);
  const [bySql] = await db.sql<{ id: string }[]>`select arcadia.start_saga('connect_partner', ${JSON.stringify(inputOf('by-sql', { fails: true }))}::text::jsonb) as id`;
  const client = stack.use({ client: openClient({ databaseUrl: config.databaseUrl ?? '', keyRing: parseKeyRing(key) }), async [Symbol.asyncDispose]() { await this.client.close(); } }).client;
  const { sagaId: byClient } = await client.start(connectPartner, inputOf('by-client'));
  const intake = new Queue('sagas', { connection: { host: redis.options.host ?? '', port: redis.options.port ?? 0 }, prefix: config.queuePrefix });
  await intake.add('connect_partner', { input: inputOf('by-queue') });
  await intake.close();
  const byQueue = await waitFor(async () => (await db.sql<{ id: string }[]>`select id from arcadia.sagas where input->>'partner' = 'by-queue'`)[0]?.id, { what: 'the saga of the queue', deadlineMs: 20_000 });
  const ids = [idOf(over.http), bySql?.id ?? '', byClient, byQueue];

  await waitFor(() => seen.length >= ids.length, { what: 'the steps to open the secrets', deadlineMs: 20_000 });
  expect(new Set(seen)).toEqual(new Set([`${secrets.api_key} ${secrets.password}`]));
  await waitFor(async () => (await db.sql`select from arcadia.sagas where cursor = 1`).length === ids.length, { what: 'all to wait in their second step' });
  await lookAtEverything(ids);
  expect(leaks(secrets, await places())).toEqual([]);
  const sealed = await db.sql<{ sealed: string | null }[]>`select sealed_user_data as sealed from arcadia.sagas`;
  expect(sealed.every((row) => row.sealed !== null)).toBe(true);

  // The same request is the same saga; with another secret it is another one.
  expect(await call('POST', '/v1/sagas/connect_partner', inputOf('over-http'), { 'idempotency-key': 'one' })).toMatchObject({ status: 202, text: expect.stringContaining(ids[0] ?? '') });
  expect(await call('POST', '/v1/sagas/connect_partner', inputOf('over-http', { password: 'other' }), { 'idempotency-key': 'one' })).toMatchObject({ status: 409 });
  expect(await call('POST', '/v1/sagas/connect_partner', inputOf('over-http', { api_key: 7 }))).toMatchObject({ status: 422 });

  mayGoOn = true;
  await Promise.all(ids.map((id) => isAt(id, id === bySql?.id ? 'compensated' : 'completed')));
  expect(seen).toContain(`undo ${secrets.api_key}`);
  expect(await db.sql`select id from arcadia.sagas where sealed_user_data is not null`).toEqual([]);
  await lookAtEverything(ids);
  expect(leaks(secrets, await places())).toEqual([]);
  // Found by the name, and by the id, of its subject.
  expect((await call('GET', '/sagas?q=over-http')).text).toContain('>over-http</a>');
  expect((await call('GET', '/sagas?q=p-7')).text).toContain('>over-http</a>');
});

test('are refused at the border by a process without keys', async () => {
  const keyless = openClient({ databaseUrl: config.databaseUrl ?? '' });
  try {
    await expect(keyless.start(connectPartner, inputOf('keyless'))).rejects.toThrow(/api_key: cannot be encrypted.*password: cannot be encrypted/s);
  } finally {
    await keyless.close();
  }
});
