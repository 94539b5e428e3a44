// arcadia.start_saga: sagas started by SQL, as any language can.

import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Client as PgClient } from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { catalog } from '../../src/steps/catalog.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { parseKeyRing } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { runJob } from '../../src/saga/runner.ts';
import { openSecret } from '../../src/saga/open-secret.ts';
import { reconcile } from '../../src/saga/reconciler.ts';
import type { NextJob } from '../../src/saga/saga.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { startSaga } from '../../src/saga/start.ts';
import { IdempotencyConflictError } from '../../src/saga/start-errors.ts';
import type { Engine } from '../support/engine.ts';
import { claimOf, fakeStep, openEngine, reconcileGraceMs } from '../support/engine.ts';

const input = z.strictObject({ name: z.string('expected a host name'), size: z.string().default('small') });
const fake = { fake: { input, steps: [fakeStep('one'), fakeStep('two')] } };

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine(fake);
  await engine.db.sql`insert into arcadia.saga_definitions (name, steps) values ('fake', ${['one', 'two']}::text[])`;
});
afterAll(() => engine[Symbol.asyncDispose]());

type Call = [given: unknown, key?: string | null, requestedBy?: string | null, name?: string | null];

async function startBySql(...[given, key = null, requestedBy = null, name = 'fake']: Call): Promise<string> {
  const json = given === undefined ? null : JSON.stringify(given);
  const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga(${name}, ${json}::text::jsonb, ${key}, ${requestedBy}) as id`;
  return row?.id ?? '';
}

const first = (sagaId: string) => ({ sagaId, revision: 0 });
const countSagas = async (): Promise<number> => (await engine.db.sql`select 1 from arcadia.sagas`).length;
const pgClient = async (connectionString = engine.directUrl): Promise<PgClient> => {
  const client = new PgClient({ connectionString });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
};

const nested = (levels: number): unknown => JSON.parse('['.repeat(levels) + '1' + ']'.repeat(levels));
const nestedObjects = (levels: number): unknown => JSON.parse('{"a":'.repeat(levels) + '1' + '}'.repeat(levels));

describe('start_saga', () => {
  test('takes 32 levels of nesting, as all other callers may send', async () => {
    await expect(startBySql({ name: nested(31) })).resolves.not.toBe('');
  });

  test('knows the sagas of this version, with their steps', async () => {
    const rows = await engine.db.sql<{ name: string; steps: string[] }[]>`select name, steps from arcadia.saga_definitions where name <> 'fake' order by name`;
    expect([...rows]).toEqual(Object.entries(catalog).map(([name, { steps }]) => ({ name, steps: steps.map((step) => step.name) })).toSorted((a, b) => a.name.localeCompare(b.name)));
  });

  test('makes a saga that is due at once, with its first event and its audit', async () => {
    const sagaId = await startBySql({ name: 'web' }, null, 'billing');
    const { saga, inputChecked, wakeAt } = await engine.load(sagaId);
    expect(saga).toMatchObject({ name: 'fake', status: 'pending', steps: ['one', 'two'], input: { name: 'web' }, requestedBy: 'billing', revision: 0, saga8: sagaId.slice(0, 8) });
    expect(inputChecked).toBe(false);
    expect(wakeAt?.getTime()).toBeLessThanOrEqual(saga.createdAt.getTime() + 1_000);
    expect(await engine.events(sagaId)).toMatchObject([{ seq: 0, kind: 'saga_created', detail: { status: 'pending', requestedBy: 'billing' } }]);
    expect([...(await engine.db.sql`select actor, action from arcadia.audit where saga_id = ${sagaId}`)]).toEqual([{ actor: 'billing', action: 'saga_created' }]);
  });

  test('gives a saga a priority, if asked to', async () => {
    const start = async (priority: string | null) => {
      const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga_with_priority('fake', '{"name": "web"}', ${priority}, requested_by => 'billing') as id`;
      return (await engine.load(row?.id ?? '')).saga;
    };
    expect(await start('high')).toMatchObject({ priority: 'high', requestedBy: 'billing', status: 'pending' });
    expect((await engine.load(await startBySql({ name: 'web' }))).saga.priority).toBe('normal');
    for (const priority of ['urgent', null]) await expect(start(priority)).rejects.toMatchObject({ code: 'SG400', message: 'priority: expected high, normal or low' });
  });

  test('who could start sagas before there were priorities may give one', async () => {
    const role = `producer_${randomUUID().slice(0, 8)}`;
    await engine.db.sql.unsafe(`create role ${role}; grant execute on function arcadia.start_saga to ${role}`);
    const path = fileURLToPath(new URL('../../migrations/0031.do.priority.sql', import.meta.url));
    const granting = (await readFile(path, 'utf8')).split('do $$').at(-1) ?? '';
    await engine.db.sql.unsafe(`do $$${granting}`);
    const [may] = await engine.db.sql`select has_function_privilege(${role}, 'arcadia.start_saga_with_priority(text, jsonb, text, text, text)', 'execute') as starts`;
    expect(may).toEqual({ starts: true });
    await engine.db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  });

  test('says which role of Postgres asked, where the caller does not say who did', async () => {
    const { saga } = await engine.load(await startBySql({ name: 'web' }));
    expect(saga.requestedBy).toMatch(/^sql:\w+$/);
  });

  test('is rolled back with the transaction of its caller', async () => {
    const client = await pgClient();
    await client.query('begin');
    const { rows } = await client.query<{ id: string }>(`select arcadia.start_saga('fake', '{"name": "gone"}') as id`);
    await client.query('rollback');
    expect([...(await engine.db.sql`select id from arcadia.sagas where id = ${rows[0]?.id ?? ''}`)]).toEqual([]);
  });

  test('tells the workers once it is committed, not before', async () => {
    const [caller, listener] = [await pgClient(), await pgClient()];
    const heard: (string | undefined)[] = [];
    listener.on('notification', ({ payload }) => heard.push(payload));
    await listener.query('listen arcadia_sagas');
    await caller.query('begin');
    const { rows } = await caller.query<{ id: string }>(`select arcadia.start_saga('fake', '{"name": "web"}') as id`);
    await listener.query('select 1');
    expect(heard).toEqual([]);
    await caller.query('commit');
    await expect.poll(async () => listener.query('select 1').then(() => heard)).toEqual([rows[0]?.id]);
  });

  test('is found by the reconciler where nobody heard of it', async () => {
    const sagaId = await startBySql({ name: 'unheard' });
    const jobs: NextJob[] = [];
    const ensure = async (job: NextJob): Promise<null> => {
      jobs.push(job);
      return Promise.resolve(null);
    };
    await reconcile({ store: createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), ensure, log: silentLog });
    expect(jobs).toContainEqual(expect.objectContaining({ sagaId, revision: 0, step: 'one' }));
  });

  test('gives the same saga for the same key, also when asked fifty times at once', async () => {
    const key = randomUUID();
    const ids = await Promise.all(Array.from({ length: 50 }, () => startBySql({ name: 'web' }, key)));
    ids.push(await startBySql({ name: 'web' }, key));
    expect(new Set(ids).size).toBe(1);
  });

  test('agrees with the other ways to start a saga on what is the same request', async () => {
    const key = randomUUID();
    const bySql = await startBySql({ name: 'web', size: 'small' }, key);
    const request = (name: string) => startSaga(engine.db, fake, { name: 'fake', input: { name, size: 'small' }, idempotencyKey: key }, reconcileGraceMs);
    expect(await request('web')).toEqual({ sagaId: bySql, firstJob: null });
    await expect(request('db')).rejects.toThrow(IdempotencyConflictError);

    const other = randomUUID();
    const { sagaId } = await startSaga(engine.db, fake, { name: 'fake', input: { name: 'web' }, idempotencyKey: other }, reconcileGraceMs);
    expect(await startBySql({ name: 'web', size: 'small' }, other)).toBe(sagaId);
    await expect(startBySql({ name: 'db', size: 'small' }, other)).rejects.toMatchObject({ code: 'SG409' });
  });

  test('refuses the same key with another input or for another saga, and says whose it is', async () => {
    const key = randomUUID();
    const sagaId = await startBySql({ name: 'web' }, key);
    const conflict = { code: 'SG409', message: `idempotency_key: "${key}" was used before with another input, by saga ${sagaId}; use a new key for a new request` };
    await expect(startBySql({ name: 'db' }, key)).rejects.toMatchObject(conflict);
    await expect(startBySql({ name: 'web' }, key, null, 'destroy_droplet')).rejects.toMatchObject(conflict);
  });

  test.each<[string, Call, string, string]>([
    ['a saga that there is not', [{}, null, null, 'nothing'], 'SG404', 'name: no saga is called "nothing"; expected one of adopt_droplet, destroy_droplet, fake, provision_droplet'],
    ['no name', [{}, null, null, null], 'SG404', 'name: no saga is called null; expected one of adopt_droplet, destroy_droplet, fake, provision_droplet'],
    ['no input', [undefined], 'SG400', 'input: expected an object with the fields of the saga, found null'],
    ['a list as input', [[]], 'SG400', 'input: expected an object with the fields of the saga, found array'],
    ['an input that is too large', [{ name: 'x'.repeat(524_288) }], 'SG400', 'input: expected at most 524288 bytes'],
    ['lists nested too deep', [{ name: nested(32) }], 'SG400', 'input: expected at most 32 levels of nesting'],
    ['objects nested far too deep', [nestedObjects(3_000)], 'SG400', 'input: expected at most 32 levels of nesting'],
    ['an empty key', [{}, ''], 'SG400', 'idempotency_key: expected 1 to 255 characters'],
    ['several things at once', ['text', 'k'.repeat(256), 'r'.repeat(256)], 'SG400', 'input: expected an object with the fields of the saga, found string; idempotency_key: expected 1 to 255 characters; requested_by: expected at most 255 characters'],
  ])('refuses %s', async (_what, args, code, message) => {
    const before = await countSagas();
    await expect(startBySql(...args)).rejects.toMatchObject({ code, message });
    expect(await countSagas()).toBe(before);
  });

  test('needs no right but to execute it, and gives no other', async () => {
    const role = `starter_${randomUUID().slice(0, 8)}`;
    await engine.db.sql.unsafe(`
      create role ${role} login password 'secret';
      grant usage on schema arcadia to ${role};
      grant execute on function arcadia.start_saga to ${role}`);
    const { rows: before } = await (await pgClient()).query(`select has_function_privilege('public', 'arcadia.start_saga(text, jsonb, text, text)', 'execute') as "isPublic"`);
    expect(before).toEqual([{ isPublic: false }]);
    const client = await pgClient();
    await client.query(`set session authorization ${role}`);
    // What it would meet if it looked for names where the caller does.
    await client.query('set search_path = pg_temp, public');
    await client.query('create temp table sagas (id int)');
    const { rows } = await client.query<{ id: string }>(`select arcadia.start_saga('fake', '{"name": "web"}') as id`);
    await expect(client.query('select * from arcadia.sagas')).rejects.toMatchObject({ code: '42501' });
    await client.query('reset session authorization');
    expect((await engine.load(rows[0]?.id ?? '')).saga.requestedBy).toBe(`sql:${role}`);
    await client.query(`drop owned by ${role}`);
    await client.query(`drop role ${role}`);
  });
});

describe('the worker that first runs a saga started by SQL', () => {
  test('checks the input, writes it as the schema has it, and goes on', async () => {
    const sagaId = await startBySql({ name: 'web' });
    await engine.drive({ ...first(sagaId), step: 'one', direction: 'forward', position: 1, of: 2, attempt: 1, saga: { name: 'fake', input: {}, context: {} }, traceparent: null, delayMs: 0 });
    const { saga, inputChecked } = await engine.load(sagaId);
    expect(saga).toMatchObject({ status: 'completed', input: { name: 'web', size: 'small' } });
    expect(inputChecked).toBe(true);
    expect((await engine.events(sagaId)).map(({ kind }) => kind)).toEqual(['saga_created', 'saga_started', 'step_completed', 'step_completed']);
  });

  test.each<[string, JsonObject, string]>([
    ['a wrong field', { name: 7 }, 'name: expected a host name'],
    ['several wrong fields', { size: 1, colour: 'red' }, 'name: expected a host name; size: Invalid input: expected string, received number; colour: unknown field'],
  ])('ends a saga with %s, naming each, without any step having run', async (_what, given, message) => {
    const sagaId = await startBySql(given);
    const verdict = await engine.run(claimOf(first(sagaId)));
    expect(verdict).toEqual({ kind: 'complete', note: `rejected: ${message}` });
    const { saga, wakeAt } = await engine.load(sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'invalid_request', message, retryable: false }, revision: 1 });
    expect(saga.finishedAt).not.toBeNull();
    expect(wakeAt).toBeNull();
    expect(engine.ledger.historyOf(sagaId)).toEqual([]);
    expect(await engine.events(sagaId)).toMatchObject([{ kind: 'saga_created' }, { kind: 'saga_rejected', detail: { code: 'invalid_request', status: 'compensated' } }]);
  });

  test('seals user data at the same moment, and knows the same request by its length afterwards', async () => {
    const withUserData = { fake: { input: z.strictObject({ user_data: z.string() }), steps: fake.fake.steps } };
    const key = randomUUID();
    const sagaId = await startBySql({ user_data: '#!/bin/sh canary' }, key);
    const keyRing = parseKeyRing(randomBytes(32).toString('base64'));
    await runJob(claimOf(first(sagaId)), { ...engine.options, catalog: withUserData, keyRing });
    const { saga } = await engine.load(sagaId);
    expect(saga.input).toEqual({ user_data: '[sealed, 16 bytes]' });
    const rows = await engine.db.sql`select sagas.*, saga_events.* from arcadia.sagas join arcadia.saga_events on saga_id = id where id = ${sagaId}`;
    expect(JSON.stringify(rows)).not.toContain('canary');
    expect(await openSecret(engine.db, keyRing, { sagaId, revision: saga.revision }, 'user_data')).toBe('#!/bin/sh canary');
    expect(await startBySql({ user_data: '#!/bin/sh canary' }, key)).toBe(sagaId);
    await expect(startBySql({ user_data: '#!/bin/sh another' }, key)).rejects.toMatchObject({ code: 'SG409' });
    const again = startSaga(engine.db, withUserData, { name: 'fake', input: { user_data: '#!/bin/sh canary' }, idempotencyKey: key }, reconcileGraceMs, keyRing);
    expect(await again).toEqual({ sagaId, firstJob: null });
  });

  test('rejects user data that it has no key for, and keeps none of it', async () => {
    const withUserData = { fake: { input: z.strictObject({ user_data: z.string() }), steps: fake.fake.steps } };
    const sagaId = await startBySql({ user_data: 'canary' });
    await runJob(claimOf(first(sagaId)), { ...engine.options, catalog: withUserData });
    const { saga } = await engine.load(sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'invalid_request', message: expect.stringMatching(/^user_data: cannot be encrypted/) }, input: { user_data: '[erased, 6 bytes]' } });
  });

  test('leaves a saga that its version does not know to a newer worker', async () => {
    await engine.db.sql`insert into arcadia.saga_definitions (name, steps) values ('newer', ${['one']}::text[])`;
    const sagaId = await startBySql({ name: 'web' }, null, null, 'newer');
    expect(await engine.run(claimOf(first(sagaId)))).toMatchObject({ kind: 'postpone' });
    expect((await engine.load(sagaId)).saga.status).toBe('pending');
    await engine.db.sql`delete from arcadia.saga_definitions where name = 'newer'`;
  });
});
