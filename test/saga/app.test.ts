// What authors of sagas and steps are told when they write one wrong.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
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
