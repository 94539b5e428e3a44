// Schemas that change what they are given: a request is known again on every channel, and the schema is applied once.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { defineSaga } from '../../src/saga/app.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import type { RunnerOptions } from '../../src/saga/runner.ts';
import { runJob } from '../../src/saga/runner.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import { startSaga } from '../../src/saga/start.ts';
import { IdempotencyConflictError } from '../../src/saga/start-errors.ts';
import type { Ledger } from '../support/engine.ts';
import { claimOf, fakeStep, reconcileGraceMs } from '../support/engine.ts';
import { keyRing } from '../support/keys.ts';
import type { Fleet } from '../queues/stage.ts';
import { backends, openQueueStage } from '../queues/stage.ts';
import type { Channels, Start } from './channels.ts';
import { openChannels } from './channels.ts';

const steps = [fakeStep('reserve'), fakeStep('publish')];
const trimmed = z.string().trim();
const openSite = defineSaga({ name: 'open_site', input: z.strictObject({ name: trimmed, plan: z.string().default('small'), token: trimmed.optional() }), secrets: ['token'], steps });
const tagSite = defineSaga({ name: 'tag_site', input: z.object({ tag: z.string().transform((tag) => `${tag}!`), size: z.string().transform(Number) }), steps });
const stamped = defineSaga({ name: 'stamped', input: z.object({ id: z.string().default(() => randomUUID()) }), steps });
const renamed = defineSaga({
  name: 'renamed',
  input: z.object({ name: z.string(), old_token: z.string() }).transform(({ name, old_token }): JsonObject => ({ name: name.trim(), token: old_token })),
  secrets: ['token'],
  steps,
});
const redeem = fakeStep('redeem', { onlyWith: 'coupon' });
const order = defineSaga({ name: 'order', input: z.object({ coupon: z.string().transform((coupon) => (coupon === '' ? null : coupon)).default('welcome') }), steps: [...steps, redeem] });
const catalog = { open_site: openSite, tag_site: tagSite, stamped, renamed, order };

let fleet: Fleet;
let channels: Channels & AsyncDisposable;
let options: RunnerOptions<Ledger>;

beforeAll(async () => {
  fleet = await openQueueStage(backends[0] ?? 'redis', catalog);
  options = { ...fleet.engine.options, keyRing };
  await migrate(fleet.engine.db, 'test', catalog);
  channels = await openChannels(fleet, catalog);
});

afterAll(async () => {
  await channels[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
});

const named = (['client', 'sql', 'http', 'queue'] as const).map((channel): [string, Start] => [channel, (...request) => channels[channel](...request)]);

async function rowOf(sagaId: string) {
  const [row] = await fleet.engine.db.sql<{ input: JsonObject; givenInput: JsonObject | null; steps: string[]; everything: string }[]>`
    select input, given_input, steps, sagas::text as everything from arcadia.sagas where id = ${sagaId}`;
  if (row === undefined) throw new Error(`saga ${sagaId} not found`);
  return row;
}

/** Runs the first job of a saga, so that it is admitted. */
const admit = (sagaId: string) => runJob(claimOf({ sagaId, revision: 0 }), options);

async function drive(sagaId: string): Promise<string> {
  const { saga } = await fleet.engine.load(sagaId);
  if (['completed', 'compensated', 'stuck'].includes(saga.status)) return saga.status;
  await runJob(claimOf({ sagaId, revision: saga.revision }), options);
  return drive(sagaId);
}

/** What each channel answers to the same request: the saga, or why not. */
const repeated = async (input: JsonObject, key: string) =>
  Object.fromEntries(await Promise.all(named.map(async ([channel, start]) => [channel, await start('open_site', input, key).catch(String)] as const)));

describe.each(named)('a request that came by %s', (_channel, start) => {
  test('is known again on every channel, before and after a worker has taken its saga', async () => {
    const [key, input] = [randomUUID(), { name: ' my-site ', token: ' hush-token ' }];
    const sagaId = await start('open_site', input, key);
    const same = { client: sagaId, sql: sagaId, http: sagaId, queue: sagaId };
    expect(await repeated(input, key)).toEqual(same);
    await admit(sagaId);
    expect(await repeated(input, key)).toEqual(same);
    const row = await rowOf(sagaId);
    expect(row).toMatchObject({ input: { name: 'my-site', plan: 'small', token: '[sealed, 10 bytes]' }, givenInput: { name: ' my-site ', token: '[sealed, 12 bytes]' } });
    expect(row.everything).not.toContain('hush');
    // As the schema makes it, it is the same request too.
    expect(await repeated({ name: 'my-site', plan: 'small', token: 'hush-token' }, key)).toMatchObject({ client: sagaId, http: sagaId, queue: sagaId, sql: sagaId });
    await drive(sagaId);
    expect(await repeated(input, key)).toEqual(same);
    expect((await rowOf(sagaId)).everything).not.toContain('hush');
  });

  test('is another one with another input or another secret', async () => {
    const [key, input] = [randomUUID(), { name: ' my-site ', token: ' hush-token ' }];
    const sagaId = await start('open_site', input, key);
    const other = async () => Object.values(await repeated({ ...input, name: 'other' }, key));
    expect(await other()).toEqual(Array.from(named, () => expect.stringContaining('was used before with another input')));
    await admit(sagaId);
    expect(await other()).toEqual(Array.from(named, () => expect.stringContaining('was used before with another input')));
    expect(Object.values(await repeated({ name: ' my-site ' }, key))).toEqual(Array.from(named, () => expect.stringContaining('was used before with another input')));
  });

  test('has its input parsed once, also when it is run again', async () => {
    const parsed = { tag: 't!', size: 7 };
    const runAgain = async (sagaId: string) => {
      expect(await rowOf(sagaId)).toMatchObject({ input: parsed, givenInput: { tag: 't', size: '7' } });
      await cancelSaga(options.store, sagaId, 'test');
      expect(await drive(sagaId)).toBe('compensated');
      const again = await rerunSaga(fleet.engine.db, catalog, { sagaId }, reconcileGraceMs, keyRing);
      expect(again).toMatchObject({ kind: 'accepted', saga: { input: parsed } });
      return again.kind === 'accepted' ? again.saga.id : '';
    };
    const sagaId = await start('tag_site', { tag: 't', size: '7' });
    await admit(sagaId);
    await runAgain(await runAgain(sagaId));
  });

  test('has the steps that fit its input as the schema makes it', async () => {
    const withDefault = await start('order', {});
    const withoutCoupon = await start('order', { coupon: '' });
    expect([await drive(withDefault), await drive(withoutCoupon)]).toEqual(['completed', 'completed']);
    expect(fleet.engine.ledger.historyOf(withDefault)).toEqual(['reserve', 'publish', 'redeem']);
    expect(fleet.engine.ledger.historyOf(withoutCoupon)).toEqual(['reserve', 'publish']);
    expect(await rowOf(withDefault)).toMatchObject({ steps: ['reserve', 'publish', 'redeem'], input: { coupon: 'welcome' } });
  });

  test('leaves nothing beside its input if the schema changes nothing', async () => {
    const sagaId = await start('open_site', { token: 'hush-token', plan: 'large', name: 'my-site' });
    await admit(sagaId);
    expect(await rowOf(sagaId)).toMatchObject({ givenInput: null });
  });

  test('is known again although the schema makes something else of it each time', async () => {
    const key = randomUUID();
    const sagaId = await start('stamped', {}, key);
    expect(await channels.http('stamped', {}, key)).toBe(sagaId);
    await admit(sagaId);
    expect([await channels.client('stamped', {}, key), await channels.sql('stamped', {}, key)]).toEqual([sagaId, sagaId]);
  });

  test('leaves no secret in plain text that the schema takes from a field of another name', async () => {
    const sagaId = await start('renamed', { name: ' my-site ', old_token: 'hush-token' });
    await admit(sagaId);
    const row = await rowOf(sagaId);
    expect(row).toMatchObject({ input: { name: 'my-site', token: '[sealed, 10 bytes]' }, givenInput: null });
    expect(row.everything).not.toContain('hush');
  });
});

test('a secret that a saga started by SQL still has in plain text is compared as it was given', async () => {
  const key = randomUUID();
  const sagaId = await channels.sql('open_site', { name: 'my-site', token: ' hush-token ' }, key);
  expect(await channels.client('open_site', { name: 'my-site', token: ' hush-token ' }, key)).toBe(sagaId);
  await expect(channels.client('open_site', { name: 'my-site', token: ' hash-token ' }, key)).rejects.toThrow(IdempotencyConflictError);
});

test('a rerun seals the secrets that are given again, and asks for no others', async () => {
  const sagaId = await channels.client('open_site', { name: ' my-site ', token: ' hush-token ' });
  await cancelSaga(options.store, sagaId, 'test');
  const rerun = (secrets?: Record<string, string>) => rerunSaga(fleet.engine.db, catalog, { sagaId, secrets }, reconcileGraceMs, keyRing);
  expect(await rerun()).toMatchObject({ kind: 'refused', missing: ['token'] });
  const again = await rerun({ token: ' hush-token ' });
  expect(again).toMatchObject({ kind: 'accepted', saga: { input: { name: 'my-site', plan: 'small', token: '[sealed, 10 bytes]' } } });
  expect((await rowOf(again.kind === 'accepted' ? again.saga.id : '')).everything).not.toContain('hush');
});

test('a saga of an older version, which kept only what the schema made of its input, is repeated and run again as before', async () => {
  const key = randomUUID();
  const sagaId = await channels.client('open_site', { name: 'my-site' }, key);
  await fleet.engine.db.sql`update arcadia.sagas set given_input = null where id = ${sagaId}`;
  expect(await channels.http('open_site', { name: 'my-site' }, key)).toBe(sagaId);
  expect(await channels.sql('open_site', { name: 'my-site', plan: 'small' }, key)).toBe(sagaId);
  await cancelSaga(options.store, sagaId, 'test');
  expect(await rerunSaga(fleet.engine.db, catalog, { sagaId }, reconcileGraceMs, keyRing)).toMatchObject({ kind: 'accepted', saga: { input: { name: 'my-site', plan: 'small' } } });
});

test('a saga that SQL started with the steps of another version keeps them', async () => {
  const sagaId = await channels.sql('order', {});
  await fleet.engine.db.sql`update arcadia.sagas set steps = '{reserve,audit,publish}' where id = ${sagaId}`;
  await admit(sagaId);
  expect((await rowOf(sagaId)).steps).toEqual(['reserve', 'audit', 'publish']);
});

test('an input that is no JSON is taken as far as the schema makes JSON of it', async () => {
  const counted = defineSaga({ name: 'counted', input: z.object({ count: z.bigint().transform(Number) }), steps });
  const { sagaId } = await startSaga(fleet.engine.db, { counted }, { name: 'counted', input: { count: 7n } }, reconcileGraceMs);
  expect(await rowOf(sagaId)).toMatchObject({ input: { count: 7 }, givenInput: null });
});
