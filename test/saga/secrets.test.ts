// Secrets at rest: sealed before they are written, known again by their fingerprints, erased when they can't be needed any more.

import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { generateKey, open, parseKeyRing } from '../../src/platform/key-ring.ts';
import type { KeyRing } from '../../src/platform/key-ring.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { openSecret } from '../../src/saga/open-secret.ts';
import { redactionOf } from '../../src/saga/redact.ts';
import { runJob } from '../../src/saga/runner.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { startSaga } from '../../src/saga/start.ts';
import { IdempotencyConflictError, InvalidRequestError } from '../../src/saga/start-errors.ts';
import { StepFailure } from '../../src/saga/step.ts';
import { sealInput } from '../../src/saga/secrets.ts';
import type { Engine, Ledger } from '../support/engine.ts';
import { catalogOf, claimOf, fakeStep, jobOf, makeSaga, openEngine, reconcileGraceMs } from '../support/engine.ts';
import { encryptionKeys, keyRing } from '../support/keys.ts';

const USER_DATA = '#cloud-config\npassword: hush-ü';
const SHOWN = '[sealed, 31 bytes]';
const input = { name: 'web', user_data: USER_DATA };

const failing = fakeStep('two', {
  execute: async (run) => {
    if (run.saga.input['fails'] !== true) return Promise.resolve({ kind: 'done', outputs: {} });
    throw new StepFailure({ code: 'no', message: 'no', retryable: false });
  },
});
const stuck = fakeStep('one', {
  compensate: async (run) => {
    if (run.saga.input['sticks'] !== true) return Promise.resolve({ kind: 'done', outputs: {} });
    throw new StepFailure({ code: 'no', message: 'no', retryable: false });
  },
});
const catalog = catalogOf(stuck, failing);

let engine: Engine;

beforeAll(async () => {
  engine = await openEngine(catalog);
});

afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});

const start = (more: JsonObject = {}, idempotencyKey?: string, ring: KeyRing = keyRing) =>
  startSaga(engine.db, catalog, { name: 'fake', input: { ...input, ...more }, idempotencyKey }, reconcileGraceMs, ring);

const bareStart = (idempotencyKey: string) => startSaga(engine.db, catalog, { name: 'fake', input: { name: 'web' }, idempotencyKey }, reconcileGraceMs, keyRing);

async function startJob(more: JsonObject = {}) {
  const { firstJob } = await start(more);
  if (firstJob === null) throw new Error('the saga was there before');
  return firstJob;
}

async function rowOf(sagaId: string) {
  const [row] = await engine.db.sql<{ input: JsonObject; sealed: string | null; everything: string }[]>`
    select input, sealed_user_data as sealed, sagas::text as everything from arcadia.sagas where id = ${sagaId}`;
  if (row === undefined) throw new Error(`saga ${sagaId} not found`);
  return row;
}

describe('sealInput', () => {
  test('leaves nothing of user data in the input but its size in bytes, and seals it for this saga alone', () => {
    const sagaId = randomUUID();
    const { input: shown, sealed } = sealInput(keyRing, sagaId, input, ['user_data']);
    expect(shown).toEqual({ name: 'web', user_data: SHOWN });
    expect(open(keyRing, sagaId, sealed?.value ?? '')).toBe(USER_DATA);
    expect(() => open(keyRing, randomUUID(), sealed?.value ?? '')).toThrow('copied from elsewhere');
  });

  test('leaves an input without user data as it is', () => {
    expect(sealInput({ keys: [] }, randomUUID(), { name: 'web' }, ['user_data'])).toEqual({ input: { name: 'web' }, sealed: null });
  });

  test('seals an empty text too', () => {
    expect(sealInput(keyRing, randomUUID(), { user_data: '' }, ['user_data'])).toMatchObject({ input: { user_data: '[sealed, 0 bytes]' }, sealed: { value: expect.any(String) } });
  });
});

describe('a saga with user data', () => {
  test('has it sealed in the database from the start', async () => {
    const { sagaId } = await start();
    const row = await rowOf(sagaId);
    expect(row.input).toEqual({ name: 'web', user_data: SHOWN });
    expect(row.everything).not.toContain('hush');
    expect(open(keyRing, sagaId, row.sealed ?? '')).toBe(USER_DATA);
  });

  test('is refused without a key, saying what to do; one without user data is not', async () => {
    const refused = start({}, undefined, { keys: [] });
    await expect(refused).rejects.toThrow(InvalidRequestError);
    await expect(refused).rejects.toThrow(/^user_data: cannot be encrypted: set ARCADIA_ENCRYPTION_KEYS/);
    await expect(startSaga(engine.db, catalog, { name: 'fake', input: { name: 'web' } }, reconcileGraceMs)).resolves.toMatchObject({ firstJob: {} });
  });

  test('has it erased by the transition that completes it, and not before', async () => {
    const first = await startJob();
    const second = jobOf(await engine.run(claimOf(first)));
    expect((await rowOf(first.sagaId)).sealed).not.toBeNull();
    await engine.run(claimOf(second));
    expect((await engine.load(first.sagaId)).saga.status).toBe('completed');
    expect(await rowOf(first.sagaId)).toMatchObject({ sealed: null, input: { user_data: SHOWN } });
  });

  test.each([
    ['fails', { fails: true }, 'compensated'],
    ['gets stuck', { fails: true, sticks: true }, 'stuck'],
  ])('has it erased as soon as it turns back, when it %s', async (_how, more, end) => {
    const first = await startJob(more);
    const second = jobOf(await engine.run(claimOf(first)));
    const back = jobOf(await engine.run(claimOf(second)));
    expect((await engine.load(first.sagaId)).saga.status).toBe('compensating');
    expect((await rowOf(first.sagaId)).sealed).toBeNull();
    await engine.drive(back);
    expect((await engine.load(first.sagaId)).saga.status).toBe(end);
  });

  test('has it erased by a cancel, before its first step too', async () => {
    const { sagaId } = await start();
    await cancelSaga(engine.options.store, sagaId, 'test');
    expect((await engine.load(sagaId)).saga.status).toBe('compensated');
    expect((await rowOf(sagaId)).sealed).toBeNull();
  });

  test('loses it at its end even where it was never sealed', async () => {
    const { sagaId } = await start();
    await engine.db.sql`
      update arcadia.sagas set sealed_user_data = null, user_data_fingerprint = null, input = jsonb_set(input, '{user_data}', ${JSON.stringify(USER_DATA)}::text::jsonb)
      where id = ${sagaId}`;
    await cancelSaga(engine.options.store, sagaId, 'test');
    const row = await rowOf(sagaId);
    expect(row.input['user_data']).toBe('[erased, 31 bytes]');
    expect(row.everything).not.toContain('hush');
  });
});

test('the migration erases what earlier versions left in sagas that need it no more, and nothing else', async () => {
  const [ended, running] = [await start(), await start()];
  await cancelSaga(engine.options.store, ended.sagaId, 'test');
  await engine.db.sql`
    update arcadia.sagas set sealed_user_data = null, user_data_fingerprint = null, input = jsonb_set(input, '{user_data}', ${JSON.stringify(USER_DATA)}::text::jsonb)
    where id in ${engine.db.sql([ended.sagaId, running.sagaId])}`;
  const { sagaId: bare } = await bareStart(randomUUID());
  const migration = await readFile(new URL('../../migrations/0005.do.sealed-user-data.sql', import.meta.url), 'utf8');
  await engine.db.sql.unsafe(migration.slice(migration.indexOf('update arcadia.sagas')));
  const rows = await Promise.all([ended.sagaId, running.sagaId, bare].map(rowOf));
  expect(rows.map(({ input: { user_data: userData } }) => userData)).toEqual(['[erased, 31 bytes]', USER_DATA, undefined]);
});

describe('an idempotency key', () => {
  const newKey = generateKey();
  const rotated = parseKeyRing(`${newKey},${encryptionKeys}`);

  test('gives the same saga for the same user data: after a rotation, and after it was erased', async () => {
    const key = randomUUID();
    const { sagaId } = await start({}, key);
    expect(await start({}, key)).toEqual({ sagaId, firstJob: null });
    expect((await start({}, key, rotated)).sagaId).toBe(sagaId);
    await cancelSaga(engine.options.store, sagaId, 'test');
    expect((await start({}, key, rotated)).sagaId).toBe(sagaId);
  });

  test.each<[string, JsonObject]>([
    ['other user data of the same size', { user_data: USER_DATA.replace('hush', 'hash') }],
    ['other user data of another size', { user_data: 'x' }],
    ['what is shown in its place', { user_data: SHOWN }],
    ['another name', { name: 'db' }],
  ])('is refused with %s', async (_what, more) => {
    const key = randomUUID();
    await start({}, key);
    await expect(start(more, key)).rejects.toThrow(IdempotencyConflictError);
  });

  test('is refused without user data where there was some, and with some where there was none', async () => {
    const [key, other] = [randomUUID(), randomUUID()];
    await start({}, key);
    await expect(bareStart(key)).rejects.toThrow(IdempotencyConflictError);
    await bareStart(other);
    await expect(start({}, other)).rejects.toThrow(IdempotencyConflictError);
  });

  test('is refused, saying why, once nobody can tell whether the user data is the same', async () => {
    const key = randomUUID();
    await start({}, key);
    const refused = start({}, key, parseKeyRing(newKey));
    await expect(refused).rejects.toThrow(IdempotencyConflictError);
    await expect(refused).rejects.toThrow(/user_data that can't be compared any more \(it was sealed with the key [0-9a-f]{8}, which is not among/);
  });
});

/** Moves the text of a secret to where `to` says. */
const moves = (to: (password: string) => JsonObject) => z.object({ user: z.string(), password: z.string() }).transform(({ user, password }): JsonObject => ({ user, ...to(password) }));

describe('a saga with secrets of its own', () => {
  const ownInput = { name: 'web', api_key: 'hush-key', password: 'hush-ü' };
  const opened: (string | undefined)[] = [];
  const read = fakeStep('one', {
    execute: async (run) => {
      opened.push(await run.secret('api_key'), await run.secret('password'), await run.secret('other'));
      return { kind: 'done', outputs: {} };
    },
    compensate: async (run) => {
      opened.push(await run.secret('api_key'));
      return { kind: 'done', outputs: {} };
    },
  });
  const own: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [read, failing], secrets: ['api_key', 'password'] } };
  const begin = (more: JsonObject = {}, idempotencyKey?: string, ring: KeyRing = keyRing) => startSaga(engine.db, own, { name: 'fake', input: { ...ownInput, ...more }, idempotencyKey }, reconcileGraceMs, ring);
  const startMoved = (schema: z.ZodType<JsonObject>, given: JsonObject) => startSaga(engine.db, { fake: { ...own['fake'], steps: [read], input: schema, secrets: ['password'] } }, { name: 'fake', input: given }, reconcileGraceMs, keyRing);
  const runOwn = (sagaId: string, revision: number, ring = keyRing) =>
    runJob({ sagaId, revision, memo: {} }, { ...engine.options, catalog: own, keyRing: ring, openSecret: (claim, field) => openSecret(engine.db, ring, claim, field) });

  test('has each sealed for itself, opens them for its steps, and has them erased when it is completed', async () => {
    opened.length = 0;
    const { sagaId } = await begin();
    const row = await rowOf(sagaId);
    expect(row.input).toEqual({ name: 'web', api_key: '[sealed, 8 bytes]', password: '[sealed, 7 bytes]' });
    expect(row.everything).not.toContain('hush');
    await runOwn(sagaId, 0);
    expect(opened).toEqual(['hush-key', 'hush-ü', undefined]);
    await runOwn(sagaId, 2);
    expect((await engine.load(sagaId)).saga.status).toBe('completed');
    expect(await rowOf(sagaId)).toMatchObject({ sealed: null, input: { api_key: '[sealed, 8 bytes]' } });
  });

  test('has them for its compensations too, and erased once it is rolled back', async () => {
    opened.length = 0;
    const { sagaId } = await begin({ fails: true });
    for (const revision of [0, 2, 3]) await runOwn(sagaId, revision);
    expect((await rowOf(sagaId)).sealed).not.toBeNull();
    await runOwn(sagaId, 4);
    expect((await engine.load(sagaId)).saga.status).toBe('compensated');
    expect(opened.at(-1)).toBe('hush-key');
    const row = await rowOf(sagaId);
    expect(row.sealed).toBeNull();
    expect(row.everything).not.toContain('hush');
  });

  test('keeps those that a step opened out of what the step says, in whatever form a provider repeats them', async () => {
    const secret = 'hush "ü" & more';
    const telling = fakeStep('one', {
      execute: async (run) => {
        await run.secret('api_key');
        await run.record(`asked with ${secret}`, { asked: true });
        if (run.saga.attempt === 0) throw new Error(`GET /v1?key=${encodeURIComponent(secret)} was answered ${JSON.stringify({ given: secret })}`);
        return run.saga.attempt === 1 ? { kind: 'waiting', delayMs: 5, reason: `${secret} is not there yet` } : { kind: 'done', outputs: {} };
      },
    });
    const catalogOfOne: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [telling], secrets: ['api_key'] } };
    const { sagaId } = await startSaga(engine.db, catalogOfOne, { name: 'fake', input: { api_key: secret } }, reconcileGraceMs, keyRing);
    const run = (revision: number) =>
      runJob({ sagaId, revision, memo: {} }, { ...engine.options, catalog: catalogOfOne, openSecret: (claim, field) => openSecret(engine.db, keyRing, claim, field), toOutcome: (error) => ({ kind: 'failed', error: { code: 'unexpected', message: String(error), retryable: true } }) });
    await run(0);
    const { revision } = (await engine.load(sagaId)).saga;
    const verdict = await run(revision);
    expect(verdict.kind === 'complete' ? '' : verdict.note).toBe('[api_key] is not there yet');
    const told = JSON.stringify(await engine.events(sagaId));
    expect(told).toContain('asked with [api_key]');
    expect(told).toContain('GET /v1?key=[api_key] was answered');
    expect(`${told} ${(await rowOf(sagaId)).everything}`).not.toContain('hush');
  });

  test('must be given again, each by its name, to run the saga again, and are sealed anew', async () => {
    const { sagaId } = await begin();
    await cancelSaga(engine.options.store, sagaId, 'test');
    const rerun = (secrets?: Record<string, string>) => rerunSaga(engine.db, own, { sagaId, secrets }, reconcileGraceMs, keyRing);
    expect(await rerun()).toMatchObject({ kind: 'refused', missing: ['api_key', 'password'], why: expect.stringMatching(/^api_key and password were erased/) });
    expect(await rerun({ api_key: 'hush-key' })).toMatchObject({ kind: 'refused', missing: ['password'] });
    await expect(rerun({ api_key: 'hush-key', password: 'hush-pw', name: 'db' })).rejects.toThrow(`secrets.name: saga ${sagaId} had no such secret`);
    const again = await rerun({ api_key: 'hush-key', password: 'hush-pw' });
    expect(again).toMatchObject({ kind: 'accepted', saga: { input: { name: 'web', api_key: '[sealed, 8 bytes]', password: '[sealed, 7 bytes]' } } });
    expect(await rerun()).toMatchObject({ kind: 'already' });
    expect((await rowOf(sagaId)).everything).not.toContain('hush');
  });

  test('cannot be given one field for another', async () => {
    const { sagaId } = await begin();
    await engine.db.sql`
      update arcadia.sagas set sealed_user_data = jsonb_set(sealed_user_data::jsonb, '{api_key}', sealed_user_data::jsonb->'password')::text where id = ${sagaId}`;
    await runOwn(sagaId, 0);
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'compensating', error: { code: 'api_key_unreadable', retryable: false } });
  });

  test('is held where a worker lacks the key, and goes on with it', async () => {
    const { sagaId } = await begin();
    await runOwn(sagaId, 0, parseKeyRing(generateKey()));
    const { saga } = await engine.load(sagaId);
    expect(saga).toMatchObject({ status: 'running', attempt: 0, context: { missing_encryption_key: expect.any(String) } });
    await runOwn(sagaId, saga.revision);
    expect((await engine.load(sagaId)).saga).toMatchObject({ cursor: 1, context: { missing_encryption_key: null } });
  });

  test('is refused where its schema moves the text of a secret to a field that is none', async () => {
    const given = { user: 'web', password: 'hush' };
    for (const to of [(pw: string) => ({ pw }), (pw: string) => ({ login: { ways: [pw] } })]) {
      await expect(startMoved(moves(to), given)).rejects.toThrow(/^password: is a secret, but the saga's schema moves its text to another field, .* name that field in `secrets`$/);
    }
    for (const [schema, same] of [[moves((pw) => ({ size: pw.length })), given], [moves(() => ({})), { user: 'hush', password: 'hush' }], [moves((password) => ({ password })), given]] as const) {
      await expect(startMoved(schema, same)).resolves.toMatchObject({ firstJob: {} });
    }
  });

  test('is reported, where a step opens what its definition does not declare', async () => {
    const errors: unknown[] = [];
    const log = pino({ level: 'error' }, { write: (line: string) => void errors.push(JSON.parse(line)) });
    const misspelled: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [read], secrets: ['api_key', 'pasword'] } };
    const { sagaId } = await startSaga(engine.db, misspelled, { name: 'fake', input: ownInput }, reconcileGraceMs, keyRing);
    await runJob({ sagaId, revision: 0, memo: {} }, { ...engine.options, log, catalog: misspelled, keyRing, openSecret: (claim, field) => openSecret(engine.db, keyRing, claim, field) });
    expect(errors).toEqual([expect.objectContaining({ sagaId, field: 'password', msg: 'a step opened a field that the saga does not declare in `secrets`: it is stored in plain text' })]);
  });

  test('is held no longer for the key once it is cancelled', async () => {
    const { sagaId } = await begin();
    await runOwn(sagaId, 0, parseKeyRing(generateKey()));
    await cancelSaga(engine.options.store, sagaId, 'test');
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'compensating', context: { missing_encryption_key: null } });
  });

  test('is refused without a key, and with a secret that is no text, naming the fields', async () => {
    await expect(begin({}, undefined, { keys: [] })).rejects.toMatchObject({ problems: [{ field: 'api_key', message: expect.stringMatching(/^cannot be encrypted/) }, { field: 'password' }] });
    await expect(begin({ password: { text: 'hush' } })).rejects.toThrow('password: expected text: a secret is sealed as text');
    await expect(startSaga(engine.db, own, { name: 'fake', input: { name: 'web', password: null } }, reconcileGraceMs)).resolves.toMatchObject({ firstJob: {} });
  });

  test.each<[string, JsonObject]>([
    ['another key of the same size', { api_key: 'hash-key' }],
    ['another password', { password: 'other' }],
    ['what is shown in the place of one', { api_key: '[sealed, 8 bytes]' }],
    ['the two exchanged', { api_key: ownInput.password, password: ownInput.api_key }],
    ['user data besides', { user_data: 'x' }],
  ])('is known again under its idempotency key by its secrets: not with %s', async (_what, more) => {
    const key = randomUUID();
    const { sagaId } = await begin({}, key);
    expect(await begin({}, key)).toEqual({ sagaId, firstJob: null });
    await expect(begin(more, key)).rejects.toThrow(IdempotencyConflictError);
  });

  test('by SQL is known again by the lengths, sealed by the worker that takes it, and erased by a cancel of whoever does not know it', async () => {
    await engine.db.sql`
      insert into arcadia.saga_definitions (name, steps, secrets) values ('fake', ${['one', 'two']}::text[], ${['api_key', 'password']}::text[])
      on conflict (name) do update set steps = excluded.steps, secrets = excluded.secrets`;
    const bySql = async (more: JsonObject, key: string) => {
      const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga('fake', ${JSON.stringify({ ...ownInput, ...more })}::text::jsonb, ${key}) as id`;
      return row?.id ?? '';
    };
    const key = randomUUID();
    const sagaId = await bySql({}, key);
    await runOwn(sagaId, 0);
    const row = await rowOf(sagaId);
    expect(row.input).toMatchObject({ api_key: '[sealed, 8 bytes]', password: '[sealed, 7 bytes]' });
    expect(row.everything).not.toContain('hush');
    expect(await bySql({}, key)).toBe(sagaId);
    await expect(bySql({ password: 'longer than it was' }, key)).rejects.toMatchObject({ code: 'SG409' });
    await expect(begin({ api_key: 'hash-key' }, key)).rejects.toThrow(/conflict|was used before/);

    const bare = await bySql({}, randomUUID());
    // This store knows no definition.
    await cancelSaga(engine.options.store, bare, 'test');
    const erased = await rowOf(bare);
    expect(erased.input).toEqual({ name: 'web', api_key: '[erased, 8 bytes]', password: '[erased, 7 bytes]' });
    expect(erased.everything).not.toContain('hush');
  });

  test('is shown without them, also where they are bare, and by a process that does not know it', () => {
    const bare = makeSaga({ name: 'fake', input: ownInput, context: { 'apiKey': 'hush', note: { Password: 'hush' } } });
    const shown = redactionOf(own).saga(bare);
    expect(shown).toMatchObject({ input: { name: 'web', api_key: '[redacted]', password: '[redacted]' }, context: { apiKey: '[redacted]', note: { Password: '[redacted]' } } });
    expect(redactionOf({}).saga({ ...bare, context: {} }).input).toEqual({ name: '[redacted]', api_key: '[redacted]', password: '[redacted]' });
  });
});
