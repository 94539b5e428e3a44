// Versions side by side: what a worker of the version before does with a request while the next version is being deployed.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { migrate } from '../../src/processes/migrate.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { runJob } from '../../src/saga/runner.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { createWrittenDefinitions, mayBeForOthers, withWrittenSecrets } from '../../src/saga/written-definitions.ts';
import type { Engine, Ledger } from '../support/engine.ts';
import { claimOf, fakeStep, openEngine, reconcileGraceMs } from '../support/engine.ts';
import { keyRing } from '../support/keys.ts';

const steps = [fakeStep('one')];
const fields = { name: z.string(), api_key: z.string().optional() };
const old: Catalog<Ledger> = { fake: { input: z.object(fields), secrets: ['api_key'], steps } };
const withOwner: Catalog<Ledger> = { fake: { input: z.object({ ...fields, owner: z.string() }), secrets: ['api_key'], steps } };
const withNote: Catalog<Ledger> = { fake: { input: z.object({ ...fields, note: z.string().optional() }), secrets: ['api_key', 'note'], steps } };
const withStep: Catalog<Ledger> = { fake: { input: z.object(fields), secrets: ['api_key'], steps: [...steps, fakeStep('two')] } };
const strict: Catalog<Ledger> = { fake: { input: z.strictObject(fields), secrets: ['api_key'], steps } };

let engine: Engine;

beforeEach(async () => {
  engine = await openEngine(old, { keyRing });
});
afterEach(() => engine[Symbol.asyncDispose]());

const migrated = async (catalog: Catalog<Ledger>) => void (await migrate(engine.db, 'test', catalog));
const longAgo = async () => void (await engine.db.sql`update arcadia.saga_definitions set changed_at = changed_at - interval '2 hours'`);

async function startBySql(input: JsonObject): Promise<string> {
  const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga('fake', ${JSON.stringify(input)}::text::jsonb) as id`;
  return row?.id ?? '';
}

const runBy = (catalog: Catalog<Ledger>, sagaId: string, left = 0) => runJob({ ...claimOf({ sagaId, revision: 0 }), memo: left === 0 ? {} : { left_to_others: left } }, { ...engine.options, catalog });

const textOf = async (sagaId: string): Promise<string> => {
  const [row] = await engine.db.sql<{ text: string }[]>`select sagas::text || (select string_agg(saga_events::text, '') from arcadia.saga_events where saga_id = id) as text from arcadia.sagas where id = ${sagaId}`;
  return row?.text ?? '';
};

describe('a saga of SQL that is meant for the next version', () => {
  test.each([['a new required field', withOwner], ['a new secret', withNote], ['a new step', withStep]])('with %s is left to others by a worker of the version before', async (_what, next) => {
    await migrated(old);
    await migrated(next);
    const sagaId = await startBySql({ name: 'web', owner: 'ann', note: 'hush' });
    const verdict = await runBy(old, sagaId);
    expect(verdict).toMatchObject({ kind: 'postpone', memo: { left_to_others: 1 }, note: 'saga fake was started for another version than that of this worker' });
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'pending', revision: 0 });
    await runBy(next, sagaId);
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: expect.stringMatching(/running|completed/) });
  });

  test('is decided over in the end, with the secrets of both versions', async () => {
    await migrated(withNote);
    const sagaId = await startBySql({ name: 'web', note: 'hush-note', api_key: 'hush-key' });
    expect((await runBy({ fake: { ...old['fake'], input: z.record(z.string(), z.json()), steps } }, sagaId, 30)).kind).toBe('complete');
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'completed', input: { name: 'web', note: '[sealed, 9 bytes]', api_key: '[sealed, 8 bytes]' } });
    expect(await textOf(sagaId)).not.toContain('hush');
  });

  test('keeps no secret of either version once it is refused', async () => {
    await migrated({ fake: { input: z.object({ ...fields, note: z.string() }), secrets: ['note'], steps } });
    const sagaId = await startBySql({ name: 'web', note: 'hush-note', api_key: 'hush-key' });
    expect((await runBy(strict, sagaId, 30)).kind).toBe('complete');
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'invalid_request' }, input: { name: 'web', note: '[erased, 9 bytes]', api_key: '[erased, 8 bytes]' } });
    expect(await textOf(sagaId)).not.toContain('hush');
  });

  test('is taken at once where nothing differs, and where no deploy is under way', async () => {
    await migrated(old);
    expect((await runBy(old, await startBySql({ name: 'web' }))).kind).toBe('complete');
    // Another way to write the same schema.
    expect((await runBy({ fake: { input: z.object({ ...fields }), secrets: ['api_key'], steps } }, await startBySql({ name: 'web' }))).kind).toBe('complete');
    await migrated(withOwner);
    await longAgo();
    expect((await runBy(old, await startBySql({ name: 'web' }))).kind).toBe('complete');
    await engine.db.sql`update arcadia.saga_definitions set changed_at = null`;
    expect((await runBy(old, await startBySql({ name: 'web' }))).kind).toBe('complete');
  });
});

test('a migration that changes no definition begins no deploy', async () => {
  await migrated(withOwner);
  await longAgo();
  await migrated(withOwner);
  expect(await createWrittenDefinitions(engine.db)('fake')).toMatchObject({ isRecent: false });
  await migrated(old);
  expect(await createWrittenDefinitions(engine.db)('fake')).toMatchObject({ isRecent: true, steps: ['one'], secrets: ['api_key'], optionalSteps: {}, inputDigest: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

test('the written definitions are read once a second, however many ask, and afresh for what would be refused', async () => {
  let reads = 0;
  const counted: Parameters<typeof createWrittenDefinitions>[0] = { run: async (name, statement) => { reads += 1; return engine.db.run(name, statement); } };
  const read = createWrittenDefinitions(counted, 60_000);
  await Promise.all(Array.from({ length: 20 }, () => read('fake')));
  expect([reads, await read('nothing')]).toEqual([1, null]);
  await migrated(old);
  expect([await read('fake'), (await read('fake', { fresh: true }))?.steps, reads]).toEqual([null, ['one'], 2]);
});

const writtenOf = async (input: z.ZodType<JsonObject>) => {
  await migrated({ fake: { input, steps } });
  return createWrittenDefinitions(engine.db)('fake');
};

describe('of a schema', () => {
  test('a default that is made anew each time is no difference, and what cannot be shown none either', async () => {
    let made = 0;
    const withDefault = () => z.object({ name: z.string().default(() => `web-${(made += 1)}`) });
    expect(mayBeForOthers({ input: withDefault(), steps }, await writtenOf(withDefault()))).toBe(false);
    const other = JSON.parse('{}') as z.ZodType<JsonObject>; // oxlint-disable-line typescript/no-unsafe-type-assertion -- of another library
    expect(mayBeForOthers({ input: other, steps }, await writtenOf(z.object({ name: z.string() })))).toBe(false);
  });

  test('a field more and another type are differences', async () => {
    const written = await writtenOf(z.object({ name: z.string() }));
    expect([z.object({ name: z.string(), more: z.string().optional() }), z.object({ name: z.int() })].map((input) => mayBeForOthers({ input, steps }, written))).toEqual([true, true]);
    expect([mayBeForOthers(undefined, written), mayBeForOthers(undefined, null), mayBeForOthers({ input: z.object({}), steps }, null)]).toEqual([true, false, false]);
  });
});

test('secrets are those of both versions, once each', () => {
  const own = { secrets: ['api_key'] };
  expect(withWrittenSecrets(own, { secrets: ['note', 'api_key', 'user_data'] })).toEqual({ secrets: ['api_key', 'note'] });
  expect(withWrittenSecrets(own, { secrets: [] })).toBe(own);
  expect(withWrittenSecrets(own, null)).toBe(own);
});

test('a store asks for what is written only for sagas that are not admitted, in the statement that claims them', async () => {
  await migrated(old);
  const store = createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs });
  expect((await store.claim({ sagaId: await startBySql({ name: 'web' }), revision: 0 }))?.written).toMatchObject({ steps: ['one'], isRecent: true });
  const admitted = await engine.start({ name: 'web' });
  expect((await store.claim(admitted))?.written).toBeUndefined();
  expect(await store.load(await startBySql({ name: 'web' }))).not.toHaveProperty('written');
});
