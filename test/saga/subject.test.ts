// What a saga of one's own is about is found by search, though no column is made for it.
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { DROPLET_FIELD } from '../../src/inventory/droplet-of-saga.ts';
import type { Json } from '../../src/platform/json.ts';
import { textOf } from '../../src/platform/json.ts';
import { defineSaga, defineStep } from '../../src/saga/app.ts';
import type { SagaFilter } from '../../src/saga/filter.ts';
import { countSagas, searchSagas } from '../../src/saga/search.ts';
import { insertSaga } from '../../src/saga/new-saga.ts';
import { done } from '../../src/saga/step.ts';
import { fieldSql, subjectFieldsOf } from '../../src/saga/subject.ts';
import type { SagaFacts, Subject } from '../../src/saga/saga-words.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(2);

const reserve = defineStep<object>({ name: 'reserve', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) });
const about = (subject: (saga: SagaFacts) => Partial<Subject>) => ({ one: defineSaga({ name: 'one', input: z.record(z.string(), z.json()), steps: [reserve], subject }) });
const text = (value: Json | undefined) => textOf(value) || null;

describe('the fields that a subject is taken from', () => {
  test('of the droplet sagas: the name, and the id of the droplet', () => {
    expect(subjectFieldsOf(catalog)).toEqual({ names: ['name'], ids: [DROPLET_FIELD] });
  });

  test.each<[string, (saga: SagaFacts) => Partial<Subject>, object]>([
    ['fields as they stand', ({ input, context }) => ({ name: text(input['customer']), id: text(context['subscription_id']) }), { names: ['customer'], ids: ['subscription_id'] }],
    ['the first of several that is there', ({ input, context }) => ({ id: textOf(context['order'] ?? input['order']) }), { names: [], ids: ['order'] }],
    ['what is made of several fields', ({ input }) => ({ name: `${textOf(input['first'])} ${textOf(input['last'])}` }), { names: [], ids: [] }],
    ['words of its own', () => ({ name: 'the nightly backup' }), { names: [], ids: [] }],
    ['a field whose name is none of SQL\'s', ({ input }) => ({ name: text(input["o'clock"]) }), { names: [], ids: [] }],
    ['nothing, as it throws', () => { throw new Error('no'); }, { names: [], ids: [] }],
  ])('of one that takes %s', (_what, subject, fields) => {
    expect(subjectFieldsOf(about(subject))).toEqual(fields);
  });

  test('go into SQL only as names', () => {
    expect(() => fieldSql(database().sql, "a' or true --")).toThrow('expected the name of a field');
  });
});

test('a saga is found by the name and the id of its subject, and by its name alone where nobody knows what it is about', async () => {
  const db = database();
  const insert = async (input: Record<string, string | number>) => {
    const id = randomUUID();
    await insertSaga(db, { id, name: 'one', steps: ['reserve'], input, sealed: null, idempotencyKey: null, requestedBy: null, startedBy: null, traceparent: null }, 60_000);
    return id;
  };
  const acme = await insert({ customer: 'Acme & Sons', subscription_id: 'sub_9' });
  const plain = await insert({ name: 'acme-web' });
  await insert({ customer: 'Other', subscription_id: 12 });
  const subjectFields = subjectFieldsOf(about(({ input, context }) => ({ name: text(input['customer']), id: text(context['subscription_id']) })));
  const found = async (filter: SagaFilter) => {
    const { sagas } = await searchSagas(db, filter, { limit: 10 });
    expect(await countSagas(db, filter)).toBe(sagas.length);
    return sagas.map(({ id }) => id).toSorted();
  };
  expect(await found({ query: 'ACME', subjectFields })).toEqual([acme, plain].toSorted());
  expect(await found({ text: 'acme &', subjectFields })).toEqual([acme]);
  expect(await found({ query: 'sub_9', subjectFields })).toEqual([acme]);
  expect(await found({ query: 'sub_', subjectFields })).toEqual([]);
  expect(await found({ query: '12', subjectFields })).toHaveLength(1);
  expect(await found({ query: 'acme' })).toEqual([plain]);
  expect(await found({ query: acme.slice(0, 8) })).toEqual([acme]);
  expect(await found({ field: { name: 'subscription_id', value: 'sub_9' } })).toEqual([acme]);
});
