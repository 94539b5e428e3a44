// What is kept of an input that its schema refused: names of unknown fields, and no value that may be anything.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { withoutUnknownFields } from '../../src/saga/refused-input.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import { provisionDropletInput } from '../../src/steps/inputs.ts';
import type { Engine } from '../support/engine.ts';
import { claimOf, fakeStep, openEngine, reconcileGraceMs } from '../support/engine.ts';
import { keyRing } from '../support/keys.ts';

const HUSH = 'DB_PW=hunter2';

const way = z.union([z.strictObject({ port: z.int() }), z.strictObject({ path: z.string() }), z.string()]);
const kind = z.discriminatedUnion('type', [z.strictObject({ type: z.literal('a'), size: z.int() }), z.strictObject({ type: z.literal('b') })]);
const site = z.strictObject({ name: z.string(), plan: z.enum(['small', 'large']).optional(), list: z.array(z.strictObject({ id: z.int() })).optional(), way: way.optional(), kind: kind.optional() });

const parse = (text: string): JsonObject => z.custom<JsonObject>().parse(JSON.parse(text));
const keptOf = (input: z.ZodType, given: JsonObject): JsonObject => withoutUnknownFields({ input }, given);

describe('of a refused input', () => {
  test.each<[string, JsonObject, JsonObject]>([
    ['fields that are wrong are kept', { name: 7, plan: 'huge', way: { port: 'x' } }, { name: 7, plan: 'huge', way: { port: 'x' } }],
    ['unknown fields are marked', { name: 7, a: HUSH, b: [HUSH], c: { d: HUSH }, e: null, f: 1, g: true }, { name: 7, a: '[a string]', b: '[a list of 1]', c: '[an object]', e: '[null]', f: '[a number]', g: '[a boolean]' }],
    ['unknown fields of an object in a list are marked', { name: 'a', list: [{ id: 1 }, { id: 'x', key: HUSH }] }, { name: 'a', list: [{ id: 1 }, { id: 'x', key: '[a string]' }] }],
    ['an object in place of a text has no known field', { name: { first: HUSH }, plan: { size: HUSH } }, { name: { first: '[a string]' }, plan: { size: '[a string]' } }],
    ['a field that no variant knows is marked', { name: 'a', way: { port: 'x', path: 7, key: HUSH } }, { name: 'a', way: { port: 'x', path: 7, key: '[a string]' } }],
    ['of a variant that does not exist only its name is kept', { name: 'a', kind: { type: HUSH.slice(0, 2), size: 1, key: HUSH } }, { name: 'a', kind: { type: 'DB', size: '[a number]', key: '[a string]' } }],
    ['a field called __proto__ is marked', { name: 'a', ...parse(`{"list": [{"id": 1, "__proto__": {"key": "${HUSH}"}}]}`) }, { name: 'a', ...parse('{"list": [{"id": 1, "__proto__": "[an object]"}]}') }],
    ['the mark of a secret stays', { name: 1, user_data: '[erased, 7 bytes]' }, { name: 1, user_data: '[erased, 7 bytes]' }],
  ])('%s', (_what, given, kept) => {
    expect(keptOf(site, given)).toEqual(kept);
  });

  test('the fields that a schema would leave out are marked too', () => {
    expect(keptOf(z.object({ name: z.string() }), { name: 7, extra: HUSH })).toEqual({ name: 7, extra: '[a string]' });
    expect(keptOf(z.looseObject({ name: z.string() }), { name: 7, extra: 'b' })).toEqual({ name: 7, extra: 'b' });
  });

  test.each<[string, z.ZodType]>([
    ['fails', z.strictObject({ name: z.string().refine(() => { throw new Error('no'); }) })],
    ['changes the input first', z.preprocess((given) => ({ wrapped: given }), z.strictObject({ other: z.string().optional() }))],
  ])('no value is kept if the schema %s', (_how, schema) => {
    expect(keptOf(schema, { name: 'a', extra: HUSH })).toEqual({ name: '[a string]', extra: '[a string]' });
  });

  test('no value is kept if it is too deep or too much to be checked', () => {
    const deep = parse(`${'{"a":'.repeat(40)}1${'}'.repeat(40)}`);
    expect(keptOf(site, { name: HUSH, deep })).toEqual({ name: '[a string]', deep: '[an object]' });
    const much = Object.fromEntries(Array.from({ length: 20_001 }, (_, at) => [`field-${at}`, HUSH]));
    expect(Object.keys(keptOf(site, much))).toHaveLength(51);
  });

  test('thousands of unknown fields are marked within a moment', () => {
    const many = Object.fromEntries(Array.from({ length: 19_000 }, (_, at) => [`field-${at}`, HUSH]));
    const startedAt = performance.now();
    expect(JSON.stringify(keptOf(site, { name: 'a', way: many }))).not.toContain('hunter2');
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  test('of a droplet, what is wrong is kept and what is unknown is not', () => {
    const given = { name: 'web 1', region: 'fra1', size: '', image: { slug: HUSH }, ready: { http: { port: 80, password: HUSH } }, cloud_init: HUSH };
    expect(keptOf(provisionDropletInput, given)).toEqual({ name: 'web 1', region: 'fra1', size: '', image: { slug: '[a string]' }, ready: { http: { port: 80, password: '[a string]' } }, cloud_init: '[a string]' });
  });
});

describe('a saga that SQL started', () => {
  const fake = { fake: { input: z.strictObject({ name: z.string(), token: z.string().optional() }), secrets: ['token'], steps: [fakeStep('one')] } };
  let engine: Engine;
  beforeAll(async () => {
    engine = await openEngine(fake);
    await engine.db.sql`insert into arcadia.saga_definitions (name, steps, secrets) values ('fake', '{one}', '{token}')`;
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  const start = async (input: JsonObject, key: string | null = null): Promise<string> => {
    const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga('fake', ${JSON.stringify(input)}::text::jsonb, ${key}) as id`;
    return row?.id ?? '';
  };
  const refused = async (input: JsonObject, key: string | null = null): Promise<string> => {
    const sagaId = await start(input, key);
    expect(await engine.run(claimOf({ sagaId, revision: 0 }))).toMatchObject({ kind: 'complete', note: expect.stringContaining('cloud_init: unknown field') });
    return sagaId;
  };
  const textOf = async (sagaId: string): Promise<string> => {
    const [row] = await engine.db.sql<{ text: string }[]>`select sagas::text || (select string_agg(saga_events::text, '') from arcadia.saga_events where saga_id = id) as text from arcadia.sagas where id = ${sagaId}`;
    return row?.text ?? '';
  };

  test('keeps no value of an unknown field once it is refused', async () => {
    const sagaId = await refused({ name: 'web', token: 'hush', cloud_init: HUSH });
    expect((await engine.load(sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'invalid_request' }, input: { name: 'web', token: '[erased, 4 bytes]', cloud_init: '[a string]' } });
    expect(await textOf(sagaId)).not.toMatch(/hunter2|hush/);
  });

  test('is found again by the same request, by that alone, and shows no value', async () => {
    const key = randomUUID();
    const input = { name: 'web', token: 'hush', cloud_init: HUSH };
    const sagaId = await refused(input, key);
    expect((await engine.load(sagaId)).saga.input).toEqual({ name: 'web', token: '[erased, 4 bytes]', cloud_init: '[a string]' });
    expect(await textOf(sagaId)).not.toContain('hush');
    expect(await start(input, key)).toBe(sagaId);
    await expect(start({ ...input, cloud_init: 'other' }, key)).rejects.toMatchObject({ code: 'SG409' });
    await expect(start({ ...input, token: 'longer' }, key)).rejects.toMatchObject({ code: 'SG409' });
  });

  test('is not run again with marks in place of its values by a version that knows the field', async () => {
    const newer = { fake: { ...fake.fake, input: z.strictObject({ name: z.string(), cloud_init: z.string() }), secrets: [] } };
    const sagaId = await refused({ name: 'web', cloud_init: HUSH });
    expect(await rerunSaga(engine.db, newer, { sagaId }, reconcileGraceMs, keyRing)).toMatchObject({ kind: 'refused', why: expect.stringContaining('Start a new saga') });
    const known = await refused({ name: 'web', cloud_init: HUSH }, randomUUID());
    expect(await rerunSaga(engine.db, newer, { sagaId: known }, reconcileGraceMs, keyRing)).toMatchObject({ kind: 'accepted', saga: { input: { name: 'web', cloud_init: HUSH } } });
  });
});
