// A new version changes a saga's schema and secrets, or no longer has the saga: a repeated key still finds its saga, and
// secrets stay secrets.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { defineSaga } from '../../src/saga/app.ts';
import { openSecret } from '../../src/saga/open-secret.ts';
import { redactionOf } from '../../src/saga/redact.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { Starter } from '../../src/saga/start.ts';
import { startSaga } from '../../src/saga/start.ts';
import { IdempotencyConflictError, IdempotencyKeyTakenError } from '../../src/saga/start-errors.ts';
import { claimOf, fakeStep, reconcileGraceMs } from '../support/engine.ts';
import { keyRing } from '../support/keys.ts';
import type { Fleet } from '../queues/stage.ts';
import { backends, openQueueStage } from '../queues/stage.ts';
import type { Channels } from './channels.ts';
import { openChannels } from './channels.ts';

const steps = [fakeStep('reserve')];
const name = z.string();
const trimmed = z.string().trim();

const before = {
  tiered: defineSaga({ name: 'tiered', input: z.strictObject({ name }), steps }),
  owned: defineSaga({ name: 'owned', input: z.strictObject({ name: trimmed, token: trimmed.optional() }), secrets: ['token'], steps }),
  opened: defineSaga({ name: 'opened', input: z.strictObject({ name, token: z.string() }), secrets: ['token'], steps }),
  gone: defineSaga({ name: 'gone', input: z.strictObject({ name, token: z.string().optional() }), secrets: ['token'], steps }),
  opaque: defineSaga({ name: 'opaque', input: z.object({ tag: z.string(), token: z.string() }).transform(({ tag, token }) => ({ tag: `${tag}!`, token })), secrets: ['token'], steps }),
  noted: defineSaga({ name: 'noted', input: z.strictObject({ note: z.string() }), steps }),
};
const after = {
  tiered: defineSaga({ name: 'tiered', input: z.strictObject({ name, tier: z.string().default('basic') }), steps }),
  owned: defineSaga({ name: 'owned', input: z.strictObject({ name: trimmed, token: trimmed.optional(), owner: z.string() }), secrets: ['token'], steps }),
  opened: defineSaga({ name: 'opened', input: z.strictObject({ name, token: z.string() }), steps }),
  opaque: before.opaque,
  noted: defineSaga({ name: 'noted', input: z.strictObject({ note: z.string() }), secrets: ['note'], steps }),
};

type Version = typeof before | typeof after;
type Name = keyof typeof before;

let fleet: Fleet;
let channels: Channels & AsyncDisposable;

beforeAll(async () => {
  fleet = await openQueueStage(backends[0] ?? 'redis', before);
  await migrate(fleet.engine.db, 'test', before);
  pending['owned'] = await startBySql('owned', { name: 'web' }, 'pending owned');
  for (const saga of ['gone', 'opened'] as const) pending[saga] = await startBySql(saga, { name: 'web', token: 'hush-token' }, `pending ${saga}`);
  pending['refused'] = await startBySql('opened', { name: 7, token: 'hush-token' }, 'pending refused');
  await migrate(fleet.engine.db, 'test', after);
  channels = await openChannels(fleet, after);
});

afterAll(async () => {
  await channels[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
});

/** Sagas that SQL started before the change, and that no worker has taken. */
const pending: Record<string, string> = {};

async function startBySql(saga: Name, input: JsonObject, key: string): Promise<string> {
  const [row] = await fleet.engine.db.sql<{ id: string }[]>`select arcadia.start_saga(${saga}, ${JSON.stringify(input)}::text::jsonb, ${key}) as id`;
  return row?.id ?? '';
}

const startIn = async (version: Version, saga: Name, input: JsonObject, { key, starter }: { key?: string; starter?: Starter } = {}) =>
  (await startSaga(fleet.engine.db, version, { name: saga, input, idempotencyKey: key, starter }, reconcileGraceMs, keyRing)).sagaId;

const rerun = (sagaId: string, secrets?: Record<string, string>) => rerunSaga(fleet.engine.db, after, { sagaId, secrets }, reconcileGraceMs, keyRing);

/** What each channel of the new version answers. */
const repeated = async (saga: Name, input: JsonObject, key: string) =>
  Object.fromEntries(await Promise.all((['client', 'sql', 'http', 'queue'] as const).map(async (channel) => [channel, await channels[channel](saga, input, key).catch(String)] as const)));

const all = (answer: unknown) => ({ client: answer, sql: answer, http: answer, queue: answer });
const conflict = all(expect.stringContaining('was used before'));

async function rowOf(sagaId: string): Promise<{ input: JsonObject; everything: string }> {
  const [row] = await fleet.engine.db.sql<{ input: JsonObject; everything: string }[]>`select input, sagas::text as everything from arcadia.sagas where id = ${sagaId}`;
  if (row === undefined) throw new Error(`saga ${sagaId} not found`);
  return row;
}

describe('a repeated key finds its saga', () => {
  test.each<[string, Name, JsonObject]>([
    ['gained a default', 'tiered', { name: 'web' }],
    ['gained a required field', 'owned', { name: 'web' }],
    ['gained a required field, and its schema changes the input', 'owned', { name: ' web ', token: ' hush ' }],
    ['names a secret no longer', 'opened', { name: 'web', token: 'hush' }],
    ['names a new secret', 'noted', { note: 'plain' }],
    ['has left the app', 'gone', { name: 'web', token: 'hush' }],
  ])('after the saga %s', async (_how, saga, input) => {
    const key = randomUUID();
    const sagaId = await startIn(before, saga, input, { key });
    expect(await repeated(saga, input, key)).toEqual(all(sagaId));
    expect(await repeated(saga, { ...input, ...(saga === 'noted' ? { more: 1 } : { name: 'other' }) }, key)).toEqual(conflict);
    await cancelSaga(fleet.engine.options.store, sagaId, 'test');
    expect(await repeated(saga, input, key)).toEqual(all(sagaId));
  });

  test('that SQL started and no worker has taken', async () => {
    expect(await repeated('gone', { name: 'web', token: 'hush-token' }, 'pending gone')).toEqual(all(pending['gone']));
    expect(await repeated('gone', { name: 'other', token: 'hush-token' }, 'pending gone')).toEqual(conflict);
    expect(await repeated('owned', { name: 'web' }, 'pending owned')).toEqual(all(pending['owned']));
  });

  test('whose schema shows no fields only by what the schema makes of them', async () => {
    const key = randomUUID();
    const sagaId = await startIn(before, 'opaque', { tag: 't', token: 'hush' }, { key });
    expect(await startIn(after, 'opaque', { tag: 't', token: 'hush' }, { key })).toBe(sagaId);
    await expect(startIn(after, 'opaque', { tag: 't!', token: 'hush' }, { key })).rejects.toThrow(IdempotencyConflictError);
  });
});

describe('a key whose saga today’s version would refuse', () => {
  test.each<[string, Name]>([
    ['gained a required field', 'owned'],
    ['names the secret no longer', 'opened'],
    ['has left the app', 'gone'],
  ])('tells another secret from the first one, where the saga %s', async (_how, saga) => {
    const key = randomUUID();
    await startIn(before, saga, { name: 'web', token: 'hush' }, { key });
    await expect(startIn(after, saga, { name: 'web', token: 'hash' }, { key })).rejects.toThrow(IdempotencyConflictError);
  });

  test.each<Name>(['owned', 'opened', 'gone'])('says nothing of secrets to another caller (%s)', async (saga) => {
    const key = randomUUID();
    const sagaId = await startIn(before, saga, { name: 'web', token: 'hush' }, { key });
    const starter: Starter = { name: 'http:other', mayRead: true };
    expect(await startIn(after, saga, { name: 'web', token: 'hush' }, { key, starter })).toBe(sagaId);
    expect(await startIn(after, saga, { name: 'web', token: 'guessed' }, { key, starter })).toBe(sagaId);
    await expect(startIn(after, saga, { name: 'web', token: 'hush' }, { key, starter: { ...starter, mayRead: false } })).rejects.toThrow(IdempotencyKeyTakenError);
  });

  test('says nothing of a secret in plain text to another caller', async () => {
    const starter: Starter = { name: 'http:other', mayRead: true };
    for (const token of ['hush-token', 'guessed']) expect(await startIn(after, 'gone', { name: 'web', token }, { key: 'pending gone', starter })).toBe(pending['gone']);
  });
});

test('what is new is refused as before', async () => {
  for (const channel of ['client', 'http', 'queue'] as const) await expect(channels[channel]('owned', { name: 'web' }, randomUUID())).rejects.toThrow('owner');
  expect(await repeated('gone', { name: 'web' }, randomUUID())).toEqual(all(expect.stringContaining('no saga is called')));
  await expect(channels.http('gone', {})).rejects.toThrow('404');
  await expect(startBySql('gone', {}, randomUUID())).rejects.toMatchObject({ code: 'SG404' });
});

test('the mark of a secret is refused as an input on every channel, and is no repeat of its saga', async () => {
  const marked = { name: 'web', token: '[sealed, 4 bytes]', owner: 'ada' };
  expect(await repeated('owned', marked, randomUUID())).toEqual(all(expect.stringContaining('token: looks like the mark that stands in the place of a secret; expected the value itself')));
  await expect(startBySql('opened', { name: '[erased, 3 bytes]', token: 'x' }, randomUUID())).rejects.toMatchObject({ code: 'SG400', message: expect.stringContaining('name: looks like the mark that stands in the place of a secret; expected the value itself') });
  const key = randomUUID();
  await startIn(before, 'opened', { name: 'web', token: 'hush' }, { key });
  expect(await repeated('opened', { name: 'web', token: '[sealed, 4 bytes]' }, key)).toEqual(conflict);
});

describe('a rerun', () => {
  test('asks for a secret that was erased, although it is none today', async () => {
    const sagaId = await startIn(before, 'opened', { name: 'web', token: 'hush' });
    await cancelSaga(fleet.engine.options.store, sagaId, 'test');
    expect(await rerun(sagaId)).toMatchObject({ kind: 'refused', missing: ['token'] });
    expect(await rerun(sagaId, { token: 'new' })).toMatchObject({ kind: 'accepted', saga: { input: { name: 'web', token: 'new' } } });
  });

  test('takes what is a secret today from the row, where it was none', async () => {
    const sagaId = await startIn(before, 'noted', { note: 'plain' });
    await cancelSaga(fleet.engine.options.store, sagaId, 'test');
    expect(await rerun(sagaId)).toMatchObject({ kind: 'accepted', saga: { input: { note: '[sealed, 5 bytes]' } } });
  });
});

test('the mark of a secret is never opened in its place', async () => {
  const sagaId = await startIn(before, 'noted', { note: 'plain' });
  await fleet.engine.db.sql`update arcadia.sagas set input = '{"note": "[sealed, 5 bytes]"}' where id = ${sagaId}`;
  await expect(openSecret(fleet.engine.db, keyRing, { sagaId, revision: 0 }, 'note')).rejects.toThrow('changed');
});

describe('a secret of a saga that SQL started', () => {
  test('is hidden and erased, although its definition has left the app', async () => {
    const sagaId = pending['gone'] ?? '';
    expect(redactionOf(after).saga((await fleet.engine.load(sagaId)).saga).input).toEqual({ name: '[redacted]', token: '[redacted]' });
    await cancelSaga(fleet.engine.options.store, sagaId, 'test');
    expect(await rowOf(sagaId)).toEqual({ input: { name: 'web', token: '[erased, 10 bytes]' }, everything: expect.not.stringContaining('hush') });
    expect(await repeated('gone', { name: 'web', token: 'hush-token' }, 'pending gone')).toEqual(all(sagaId));
  });

  test('is erased by a cancel, although its definition names it no longer', async () => {
    const sagaId = pending['opened'] ?? '';
    await cancelSaga(fleet.engine.options.store, sagaId, 'test');
    expect((await rowOf(sagaId)).everything).not.toContain('hush');
  });

  test('is erased if a worker refuses the saga, although its definition names it no longer', async () => {
    const sagaId = pending['refused'] ?? '';
    await runJob(claimOf({ sagaId, revision: 0 }), { ...fleet.engine.options, catalog: after, keyRing });
    expect(await rowOf(sagaId)).toEqual({ input: { name: 7, token: '[erased, 10 bytes]' }, everything: expect.not.stringContaining('hush') });
  });
});
