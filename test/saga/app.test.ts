// What authors of sagas and steps are told when they write one wrong.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { z as zod3 } from 'zod/v3';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { directIo } from '../../src/platform/io.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { textOf } from '../../src/platform/json.ts';
import { silentLog } from '../../src/platform/log.ts';
import { defineApp, defineSaga, defineStep, isApp } from '../../src/saga/app.ts';
import type { WorkerHost } from '../../src/saga/extension.ts';
import { StepFailure, done, failed, failureOf } from '../../src/saga/step.ts';
import { surfaceOf, titleOf } from '../../src/saga/words.ts';

const input = z.strictObject({ customer: z.string() });
const step = (name: string) => defineStep<object>({ name, execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) });
const reserve = step('reserve');

describe('defineStep', () => {
  test.each(['', 'Reserve', 'reserve-it', '7th', 'x'.repeat(64)])('refuses the name %j', (name) => {
    expect(() => step(name)).toThrow(`step ${JSON.stringify(name)}: expected a name of lower-case letters`);
  });

  test('says what is missing', () => {
    // @ts-expect-error -- as a program in plain JavaScript has it
    expect(() => defineStep({ name: 'reserve', execute: async () => Promise.resolve(done()) })).toThrow('step reserve: compensate is missing; expected a function');
  });
});

/** A definition as plain JavaScript may have it. */
// oxlint-disable-next-line typescript/no-explicit-any, typescript/no-unsafe-type-assertion
const untyped = (given: unknown) => given as any;

describe('what is wrong in plain JavaScript', () => {
  const right = { name: 'reserve', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) };
  // A schema of another copy of zod is no instance of a class of this one.
  const ofOtherCopy = { safeParse: () => ({ success: true }), shape: {}, def: { type: 'object' } };

  test.each([
    ['no definition', undefined, 'step: expected an object; found undefined'],
    ['no name', { ...right, name: undefined }, 'step undefined: expected a name of lower-case letters'],
    ['the name null', { ...right, name: null }, 'step null: expected a name of lower-case letters'],
    ['needs that are no schema', { ...right, needs: { name: 'text' } }, 'step reserve: needs: expected a zod object, such as'],
    ['needs that are no object', { ...right, needs: z.string() }, 'step reserve: needs: expected a zod object, such as'],
    ['adds that are null', { ...right, adds: null }, 'step reserve: adds: expected a zod object, such as'],
    ['a date that it adds', { ...right, adds: z.object({ at: z.date().optional() }) }, 'step reserve: adds: at is a date, which JSON cannot hold'],
    ['a BigInt deep in what it adds', { ...right, adds: z.object({ order: z.object({ prices: z.array(z.bigint()) }) }) }, 'step reserve: adds: order.prices\\[\\] is a bigint, which JSON cannot hold'],
    ['remains that are a record', { ...right, remains: z.record(z.string(), z.string()) }, 'step reserve: remains: expected a zod object, such as'],
    ['onlyWith that is no text', { ...right, onlyWith: ['coupon'] }, 'step reserve: onlyWith: expected the name of a field of the input'],
    ['superseded that is no function', { ...right, superseded: true }, 'step reserve: superseded: expected a function'],
    ['words that are text', { ...right, words: 'reserving' }, 'step reserve: words: expected an object; found reserving'],
    ['a part of another name', { ...right, onlywith: 'coupon' }, 'step reserve: there is no part "onlywith"; did you mean onlyWith\\?'],
    ['a part that no step has', { ...right, timeoutMs: 5 }, 'step reserve: there is no part "timeoutMs"; expected name, needs, adds,'],
    ['forwardOnly as text', { ...right, forwardOnly: 'no' }, 'step reserve: forwardOnly: expected true or false'],
    ['recordsFirst as text', { ...right, recordsFirst: 'false' }, 'step reserve: recordsFirst: expected true or false'],
    ['words of another name', { ...right, words: { doing: 'reserving', notyet: () => 'not reserved' } }, 'step reserve: words: there is no part "notyet"; did you mean notYet\\?'],
    ['words that should be text', { ...right, words: { doing: () => 'reserving' } }, 'step reserve: words: doing: expected text'],
    ['carriedOutBy of no names', { ...right, carriedOutBy: { lease: right } }, 'step reserve: carriedOutBy: lease: expected text'],
    ['needs of zod 3', { ...right, needs: zod3.object({ name: zod3.string() }) }, 'step reserve: needs: this is a schema of zod 3; expected one of zod 4'],
    ['adds of zod 3', { ...right, adds: zod3.object({ id: zod3.string() }) }, 'step reserve: adds: this is a schema of zod 3; expected one of zod 4'],
    ['a field of zod 3 in what it adds', { ...right, adds: z.object({ id: untyped(zod3.string()) }) }, 'step reserve: adds: id is a schema of zod 3; expected one of zod 4'],
    ['words that should be functions', { ...right, words: { doing: 'reserving', notYet: 'not reserved' } }, 'step reserve: words: notYet: expected a function'],
  ])('a step with %s is refused', (_what, given, message) => {
    expect(() => defineStep(untyped(given))).toThrow(new RegExp(`^${message}`));
    expect(() => defineStep(untyped(given))).toThrow(TypeError);
  });

  const saga = { name: 'onboard', input, steps: [right] };
  test.each([
    ['no definition', undefined, 'saga: expected an object; found undefined'],
    ['no name', { ...saga, name: undefined }, 'saga undefined: expected a name of lower-case letters'],
    ['the name null', { ...saga, name: null }, 'saga null: expected a name of lower-case letters'],
    ['no input', { ...saga, input: undefined }, 'saga onboard: input: expected a zod schema of an object'],
    ['an input that is no schema', { ...saga, input: { customer: 'text' } }, 'saga onboard: input: expected a zod schema of an object'],
    ['an input that is text', { ...saga, input: z.string() }, 'saga onboard: input: expected a zod schema of an object'],
    ['an input that may be left out, and is a list', { ...saga, input: z.array(z.string()).default([]) }, 'saga onboard: input: expected a zod schema of an object'],
    ['no steps', { ...saga, steps: undefined }, 'saga onboard: steps: expected an array'],
    ['a step that its file does not export', { ...saga, steps: [right, undefined] }, 'saga onboard: step 2: expected a step, as defineStep returns it; found undefined'],
    ['a step that defineStep would refuse', { ...saga, steps: [{ ...right, compensate: undefined }] }, 'step reserve: compensate is missing'],
    ['a subject that is text', { ...saga, subject: 'customer' }, 'saga onboard: subject: expected a function'],
    ['a resource that is text', { ...saga, resource: 'customer' }, 'saga onboard: resource: expected a function'],
    ['words that are null', { ...saga, words: null }, 'saga onboard: words: expected an object; found null'],
    ['words that are text', { ...saga, words: { completed: 'On board.' } }, 'saga onboard: words: completed: expected a function'],
    ['a part of another name', { ...saga, secret: ['customer'] }, 'saga onboard: there is no part "secret"; did you mean secrets\\?'],
    ['a part with two letters wrong', { ...saga, resorse: () => 'x' }, 'saga onboard: there is no part "resorse"; did you mean resource\\?'],
    ['words of another name', { ...saga, words: { complted: () => 'On board.' } }, 'saga onboard: words: there is no part "complted"; did you mean completed\\?'],
    ['causes that are a list', { ...saga, words: { causes: ['a lock'] } }, 'saga onboard: words: causes: expected text'],
    ['isDestructive as text', { ...saga, isDestructive: 'yes' }, 'saga onboard: isDestructive: expected true or false'],
    ['an input of zod 3', { ...saga, input: zod3.object({ customer: zod3.string() }), secrets: ['customer'] }, 'saga onboard: input: this is a schema of zod 3; expected one of zod 4'],
    ['an input with a field of zod 3', { ...saga, input: z.object({ customer: untyped(zod3.string()) }) }, 'saga onboard: input: customer is a schema of zod 3; expected one of zod 4'],
    ['secrets that are one name', { ...saga, secrets: 'customer' }, 'saga onboard: secrets: expected an array'],
  ])('a saga with %s is refused', (_what, given, message) => {
    expect(() => defineSaga(untyped(given))).toThrow(new RegExp(`^${message}`));
    expect(() => defineSaga(untyped(given))).toThrow(TypeError);
  });

  test.each([
    ['no definition', undefined, 'app: expected an object; found undefined'],
    ['no sagas', { deps: () => ({}) }, 'app: sagas: expected an array'],
    ['a saga that its file does not export', { sagas: [undefined], deps: () => ({}) }, 'app: saga 1: expected a saga, as defineSaga returns it; found undefined'],
    ['a saga of a name alone', { sagas: [{ name: 'onboard' }], deps: () => ({}) }, 'saga onboard: input: expected a zod schema of an object'],
    ['no deps', { sagas: [defineSaga(saga)] }, 'app: deps: expected a function'],
    ['a part of another name', { saga: [defineSaga(saga)], deps: () => ({}) }, 'app: there is no part "saga"; did you mean sagas\\?'],
    ['deps that are opened already', { sagas: [defineSaga(saga)], deps: {} }, 'app: deps: expected a function'],
  ])('an app with %s is refused', (_what, given, message) => {
    expect(() => defineApp(untyped(given))).toThrow(new RegExp(`^${message}`));
    expect(() => defineApp(untyped(given))).toThrow(TypeError);
  });

  test('a date made of the stored text may be added', () => {
    expect(defineStep(untyped({ ...right, adds: z.object({ at: z.coerce.date(), what: z.json(), lazy: z.lazy(() => z.string()) }) })).name).toBe('reserve');
  });

  test('schemas are known by their form', () => {
    expect(defineStep(untyped({ ...right, needs: ofOtherCopy, adds: ofOtherCopy, remains: ofOtherCopy })).name).toBe('reserve');
    for (const schema of [ofOtherCopy, z.any(), z.record(z.string(), z.json()), z.union([z.strictObject({}), input]), input.readonly(), z.preprocess((given) => given, input), z.lazy(() => input)]) {
      expect(defineSaga(untyped({ ...saga, input: schema })).name).toBe('onboard');
    }
  });
});

describe('defineSaga', () => {
  test('refuses a name that cannot stand in a route, no steps, and a step twice', () => {
    expect(() => defineSaga({ name: 'on board', input, steps: [reserve] })).toThrow('saga "on board": expected a name');
    expect(() => defineSaga({ name: 'onboard', input, steps: [] })).toThrow('saga onboard: expected at least one step');
    expect(() => defineSaga({ name: 'onboard', input, steps: [reserve, step('charge'), reserve] })).toThrow('saga onboard: step reserve is listed twice');
  });

  test('refuses a secret that the input does not have: it would be kept in the clear', () => {
    expect(() => defineSaga({ name: 'onboard', input, steps: [reserve], secrets: ['customer', 'api_kee'] })).toThrow('saga onboard: secret api_kee is no field of the input');
    expect(defineSaga({ name: 'onboard', input, steps: [reserve], secrets: ['customer'] }).secrets).toEqual(['customer']);
  });

  test.each<readonly [string, z.ZodType]>([
    ['a number', z.int()], ['an optional number', z.int().optional()], ['one of two numbers', z.union([z.literal(1), z.int()])], ['an object', z.object({ key: z.string() })], ['a number made of text', z.string().pipe(z.coerce.number())],
  ])('refuses a secret that is %s: only text is sealed', (_what, pin) => {
    for (const one of [z.object({ customer: z.string(), pin }), z.union([z.object({ customer: z.string() }), z.object({ pin })]), z.object({ pin }).readonly()]) {
      expect(() => defineSaga(untyped({ name: 'onboard', input: one, steps: [reserve], secrets: ['pin'] }))).toThrow('saga onboard: secret pin can never be text by its schema');
    }
  });

  test.each<readonly [string, z.ZodType]>([
    ['text', z.string().min(1).optional()], ['text or a number', z.union([z.int(), z.string()])], ['a choice', z.enum(['a', 'b'])], ['anything', z.any()], ['transformed text', z.string().transform((text) => text.trim())], ['lazy', z.lazy(() => z.string())], ['text or null', z.string().nullable().default(null)], ['a format', z.url()], ['a template', z.templateLiteral(['key-', z.string()])],
  ])('takes a secret that is %s', (_what, pin) => {
    expect(defineSaga(untyped({ name: 'onboard', input: z.object({ pin }), steps: [reserve], secrets: ['pin'] })).secrets).toEqual(['pin']);
  });

  test('refuses a step for a field that the input does not have: no saga would have the step', () => {
    const redeem = { ...step('redeem'), onlyWith: 'cupon' };
    const withInput = (one: z.ZodType<JsonObject>) => () => defineSaga({ name: 'onboard', input: one, steps: [reserve, redeem] });
    const message = 'saga onboard: step redeem is `onlyWith` cupon, which is no field of the input';
    expect(withInput(z.object({ customer: z.string(), coupon: z.string().optional() }))).toThrow(message);
    expect(withInput(z.strictObject({ customer: z.string() }))).toThrow(message);
    for (const open of [z.object({ customer: z.string(), cupon: z.string() }), z.object({ customer: z.string() }).catchall(z.json()), z.record(z.string(), z.json())]) {
      expect(withInput(open)).not.toThrow();
    }
  });

  const open = z.object({ customer: z.string(), cupon: z.string() });
  const seen: readonly (readonly [string, z.ZodType<JsonObject>])[] = [
    ['a union', z.union([input, open])],
    ['a union by a field', z.discriminatedUnion('kind', [z.object({ kind: z.literal('a') }), z.object({ kind: z.literal('b'), cupon: z.string() })])],
    ['an intersection', input.and(z.object({ cupon: z.string() }))],
    ['a schema in wrappers', open.refine(() => true).readonly().default({ customer: 'acme', cupon: 'x' })],
    ['a pipe', z.object({ code: z.string() }).transform(({ code }) => ({ customer: 'acme', cupon: code })).pipe(open)],
    ['a preprocessed object', z.preprocess((given) => given, open)],
  ];

  test.each(seen)('sees the fields of %s', (_what, one) => {
    const define = (secret: string, onlyWith: string) => defineSaga({ name: 'onboard', input: one, steps: [reserve, { ...step('redeem'), onlyWith }], secrets: [secret] });
    expect(define('cupon', 'cupon').name).toBe('onboard');
    expect(() => define('coupn', 'cupon')).toThrow('saga onboard: secret coupn is no field of the input');
    expect(() => define('cupon', 'coupn')).toThrow('saga onboard: step redeem is `onlyWith` coupn, which is no field of the input');
  });

  const unseen: readonly (readonly [string, z.ZodType<JsonObject>])[] = [
    ['a transform of the whole', open.transform(({ cupon, ...rest }): JsonObject => ({ ...rest, code: cupon }))],
    ['a lazy schema', z.lazy(() => open)],
    ['a record', z.record(z.string(), z.json())],
    ['a union with an object that takes any field', z.union([input, z.object({ customer: z.string() }).catchall(z.json())])],
  ];

  test.each(unseen)('takes any name where it cannot see the fields: of %s', (_what, one) => {
    expect(defineSaga({ name: 'onboard', input: one, steps: [reserve, { ...step('redeem'), onlyWith: 'code' }], secrets: ['code'] }).name).toBe('onboard');
  });

  test('has an object that takes any field declare its secrets, but not the fields of its steps', () => {
    const loose = z.object({ customer: z.string() }).catchall(z.json());
    expect(() => defineSaga({ name: 'onboard', input: loose, steps: [reserve], secrets: ['token'] })).toThrow('saga onboard: secret token is no field of the input');
    expect(defineSaga({ name: 'onboard', input: loose, steps: [reserve, { ...step('redeem'), onlyWith: 'coupon' }] }).name).toBe('onboard');
  });

  test('says plain facts where it was given no words', () => {
    const onboard = defineSaga({ name: 'onboard', input, steps: [reserve], subject: ({ input: given }) => ({ name: textOf(given['customer']) }), words: { completed: () => 'On board.' } });
    const words = surfaceOf({ onboard }).words({ name: 'onboard' });
    const saga = { input: { customer: 'acme' }, context: {}, error: null, saga8: '0a4c2f4e' };
    expect([titleOf(words, saga), words.completed(saga), words.rolledBack(saga)]).toEqual(['acme', 'On board.', 'Rolled back.']);
  });
});

const deps = () => ({});

describe('defineApp', () => {
  const onboard = defineSaga({ name: 'onboard', input, steps: [reserve] });

  test('has the sagas by name, and opens what the steps work with', async () => {
    const app = defineApp({ sagas: [onboard], deps: () => ({ billing: 7 }) });
    expect([isApp(app), isApp({ sagas: [] }), Object.keys(app.catalog)]).toEqual([true, false, ['onboard']]);
    const worker: WorkerHost = {
      name: 'host:1', config: loadConfig({}), db: openDatabase('postgres://127.0.0.1:1/nowhere'), io: directIo, runScript: null, wake: () => Promise.resolve('woken'), enqueueFirst: () => Promise.resolve(), extend: () => undefined,
    };
    expect(await app.openDeps({ log: silentLog, onClose: () => undefined, worker })).toEqual({ billing: 7 });
  });

  test('refuses no sagas, a saga twice, and two steps of one name', () => {
    expect(() => defineApp({ sagas: [], deps })).toThrow('app: expected at least one saga');
    expect(() => defineApp({ sagas: [onboard, onboard], deps })).toThrow('app: saga onboard is listed twice');
    expect(() => defineApp({ sagas: [onboard, defineSaga({ name: 'other', input, steps: [step('reserve')] })], deps })).toThrow('two steps are called reserve (saga other)');
  });
});

test('a failure is known as one, also where another copy of the package threw it', () => {
  const failure = { code: 'refused', message: 'no', retryable: false };
  const ofOther = Object.assign(new Error('no'), { name: 'StepFailure', failure });
  expect(failureOf(new StepFailure(failure, { a: 1 }))).toMatchObject({ failure, outputs: { a: 1 } });
  expect(failureOf(ofOther)?.failure).toEqual(failure);
  expect(failureOf(new Error('no'))).toBeNull();
  expect(failed('refused', 'no', { retryable: false })).toEqual({ kind: 'failed', error: failure });
});
