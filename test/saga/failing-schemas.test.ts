// A schema or a refusal is its author's code. Where it fails, a request is refused with a sentence, over each channel.
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { startSaga } from '../../src/saga/start.ts';
import { InvalidRequestError, StartRefusedError } from '../../src/saga/start-errors.ts';
import type { Ledger } from '../support/engine.ts';
import { claimOf, fakeStep, openEngine, reconcileGraceMs } from '../support/engine.ts';

const someInput = z.strictObject({ name: z.string() });
const steps = [fakeStep('one')];
/** What no type lets through. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- on purpose
const untyped = (schema: z.ZodType) => schema as z.ZodType<JsonObject>;

describe.each([
  ['with an asynchronous check', someInput.refine(async () => Promise.resolve(true)), 'cannot be checked: the saga\'s schema failed'],
  ['whose check throws', someInput.refine(() => { throw new TypeError('customer is undefined'); }), 'TypeError: customer is undefined'],
  ['that makes a BigInt', someInput.transform(({ name }) => ({ name: BigInt(name.length) })), 'Do not know how to serialize a BigInt'],
  ['that makes a text', someInput.transform(({ name }) => name), 'cannot be stored: the saga\'s schema makes something else of it than a JSON object'],
])('a schema %s', (_what, schema, expected) => {
  test('refuses the request of a caller', async () => {
    await using engine = await openEngine({ fake: { input: untyped(schema), steps } });
    const started = startSaga(engine.db, { fake: { input: untyped(schema), steps } }, { name: 'fake', input: { name: 'a' } }, reconcileGraceMs);
    await expect(started).rejects.toThrow(InvalidRequestError);
    await expect(started).rejects.toThrow(expected);
  });

  test('rejects a saga that SQL started', async () => {
    await using engine = await openEngine({ fake: { input: untyped(schema), steps } });
    await engine.db.sql`insert into arcadia.saga_definitions (name, steps) values ('fake', '{one}') on conflict do nothing`;
    const [row] = await engine.db.sql<{ id: string }[]>`select arcadia.start_saga('fake', '{"name": "a"}') as id`;
    await engine.run(claimOf({ sagaId: row?.id ?? '', revision: 0 }));
    const { saga } = await engine.load(row?.id ?? '');
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'invalid_request', message: expect.stringContaining(expected) } });
    expect(engine.ledger.history).toEqual([]);
  });
});

test('a refusal that throws refuses the start; where our database is out of reach, nothing is decided', async () => {
  const throwing: Catalog<Ledger> = { fake: { input: someInput, steps, refusal: async () => Promise.reject(new TypeError('no such table')) } };
  await using engine = await openEngine(throwing);
  const started = startSaga(engine.db, throwing, { name: 'fake', input: { name: 'a' } }, reconcileGraceMs);
  await expect(started).rejects.toThrow(StartRefusedError);
  await expect(started).rejects.toMatchObject({ code: 'refusal_failed', message: expect.stringContaining('TypeError: no such table') });
  const asks: Catalog<Ledger> = { fake: { input: someInput, steps, refusal: async (db) => db.run('asks', (sql) => sql<never[]>`select 1 from arcadia.nowhere`).then(() => null) } };
  await expect(startSaga(engine.db, asks, { name: 'fake', input: { name: 'a' } }, reconcileGraceMs)).rejects.toThrow('relation "arcadia.nowhere" does not exist');
});
