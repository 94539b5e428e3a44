// Steps in plain JavaScript return and throw anything. Each such run is decided: nothing is repeated for ever.
import { expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Step, StepOutcome } from '../../src/saga/step.ts';
import { StepFailure, StepWait, done, failed, waiting } from '../../src/saga/step.ts';
import { outcomeOfUnexpected } from '../../src/saga/unexpected.ts';
import type { Ledger } from '../support/engine.ts';
import { catalogOf, claimOf, fakeStep, jobOf, openEngine } from '../support/engine.ts';

/** What no type lets through. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- on purpose
const untyped = (value: unknown): StepOutcome => value as StepOutcome;
const returns = (value: unknown): Partial<Step<Ledger>> => ({ execute: async () => Promise.resolve(untyped(value)) });
// oxlint-disable-next-line typescript/prefer-promise-reject-errors -- on purpose
const throws = (value: unknown): Partial<Step<Ledger>> => ({ execute: async () => Promise.reject(value) });

const circular: Record<string, unknown> = {};
circular['self'] = circular;
const deep = (levels: number): unknown => Array.from({ length: levels }).reduce((inner: unknown) => ({ inner }), 1);

/** Drives a saga of a step, and another before it, to its rest. */
async function restOf(parts: Partial<Step<Ledger>>): Promise<{ saga: Saga; runs: number; message: string }> {
  await using engine = await openEngine(catalogOf(fakeStep('before'), fakeStep('odd', parts)), { toOutcome: outcomeOfUnexpected });
  const first = await engine.start();
  const verdicts = await engine.drive(first, 20);
  const { saga } = await engine.load(first.sagaId);
  return { saga, runs: verdicts.length, message: saga.error?.message ?? '' };
}

test.each([
  ['nothing', undefined, 'execute of step odd returned undefined; expected done(…), waiting(…) or failed(…)'],
  ['null', null, 'returned null; expected done('],
  ['a text', 'ok', 'returned ok; expected done('],
  ['an object', { ok: true }, 'returned { ok: true }; expected done('],
  ['another kind', { kind: 'finished' }, "returned { kind: 'finished' }; expected"],
  ['a list as outputs', { kind: 'done', outputs: ['a', 'b'] }, 'returned outputs that are a list; expected an object'],
  ['a text as outputs', { kind: 'done', outputs: 'a' }, 'returned outputs that are a; expected an object'],
  ['a BigInt', { kind: 'done', outputs: { fine: 1, amount: 10n } }, 'returned outputs that cannot be stored as JSON, at amount: TypeError: Do not know how to serialize a BigInt'],
  ['a circular object', { kind: 'done', outputs: { circular } }, 'cannot be stored as JSON, at circular'],
  ['what is too deep for JSON', { kind: 'done', outputs: { deep: deep(20_000) } }, 'cannot be stored as JSON, at deep'],
  ['what is too deep for Postgres', { kind: 'done', outputs: { deep: deep(300) } }, 'nested deeper than 200 levels'],
  ['what turns into a text', { kind: 'done', outputs: { toJSON: () => 'text' } }, 'returned outputs that are no object any more as JSON'],
  ['what cannot be turned into JSON', { kind: 'done', outputs: { date: { toJSON: () => { throw new RangeError('Invalid time value'); } } } }, 'at date: RangeError: Invalid time value'],
  ['no delay', { kind: 'waiting', reason: 'x' }, 'waits for undefined; expected the delay as a number of milliseconds'],
  ['a delay that is no number', waiting(Number.NaN, 'x'), 'waits for NaN'],
  ['an endless delay', waiting(Infinity, 'x'), 'waits for Infinity'],
  ['a delay as text', { kind: 'waiting', delayMs: '1000', reason: 'x' }, 'waits for 1000; expected'],
  ['a memo that is no counter', { kind: 'waiting', delayMs: 1, reason: 'x', memo: { since: '2026' } }, 'waits with a memo that is not made of finite numbers'],
  ['a memo that is no object', { kind: 'waiting', delayMs: 1, reason: 'x', memo: [1] }, 'waits with a memo'],
])('a step that returns %s is rolled back with what is wrong, after one run', async (_what, returned, expected) => {
  const { saga, runs, message } = await restOf(returns(returned));
  expect(saga).toMatchObject({ status: 'compensated', error: { code: 'outcome_wrong', step: 'odd', retryable: false } });
  expect(message).toContain(expected);
  // Both steps, and both compensations.
  expect(runs).toBe(4);
});

test.each([
  ['nothing', undefined, 'undefined'],
  ['an object', { why: 'no room' }, "{ why: 'no room' }"],
  ['what cannot be described', Object.defineProperty(new Error('x'), 'message', { get: () => { throw new Error('no'); } }), 'something that cannot be described'],
  ['an object without a prototype', Object.create(null), '[Object: null prototype] {}'],
  ['a BigInt', 7n, '7n'],
])('a step that throws %s fails after its attempts, and says so', async (_what, thrown, expected) => {
  const { saga, message } = await restOf(throws(thrown));
  expect(saga).toMatchObject({ status: 'compensated', error: { code: 'unexpected', step: 'odd', retryable: true } });
  expect(message).toContain(expected);
});

test.each([
  ['a failure with an error as message', { ...failed('busy', 'x'), error: { code: 'busy', message: new Error('no room'), retryable: false } }, { code: 'busy', message: 'Error: no room' }],
  ['a failure with nothing in it', { kind: 'failed' }, { code: 'unexpected', message: 'undefined' }],
  ['a failure with a long code', failed('x'.repeat(5_000), 'no', { retryable: false }), { code: `${'x'.repeat(99)}…`, message: 'no' }],
])('%s is a failure', async (_what, returned, expected) => {
  expect((await restOf(returns(returned))).saga).toMatchObject({ status: 'compensated', error: expected });
});

test('a failure that is thrown with a text, or with outputs that cannot be stored, ends the saga too', async () => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- on purpose
  const asText = new StepFailure('no room' as never);
  expect((await restOf(throws(asText))).saga).toMatchObject({ status: 'compensated', error: { code: 'unexpected', message: 'no room' } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- on purpose
  const unstorable = new StepFailure({ code: 'bad', message: 'bad', retryable: false }, { amount: 1n } as never);
  expect((await restOf(throws(unstorable))).saga).toMatchObject({ status: 'compensated', error: { code: 'outcome_wrong' } });
  expect((await restOf(throws(new StepWait(waiting(Number.NaN, 'x'))))).saga).toMatchObject({ status: 'compensated', error: { code: 'outcome_wrong' } });
});

test('a compensation that returns nothing is stuck at once, and says what to mend', async () => {
  await using engine = await openEngine(catalogOf(fakeStep('odd', { execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })), compensate: async () => Promise.resolve(untyped(undefined)) })));
  const first = await engine.start();
  await engine.drive(first, 5);
  expect((await engine.load(first.sagaId)).saga.status).toBe('stuck');
  const last = (await engine.events(first.sagaId)).at(-1);
  expect(last).toMatchObject({ kind: 'compensation_stuck', detail: { code: 'outcome_wrong', message: 'compensate of step odd returned undefined; expected done(…), waiting(…) or failed(…)' } });
});

test('keys and texts that Postgres cannot store are made storable', async () => {
  const outputs = { 'a\0b': { 'c\ud800': 'd\0' }, fine: 1 };
  await using engine = await openEngine(catalogOf(fakeStep('odd', returns({ kind: 'done', outputs, note: 'n\0' }))));
  const first = await engine.start();
  await engine.drive(first);
  expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'completed', context: { 'a\uFFFDb': { 'c\uFFFD': 'd\uFFFD' }, fine: 1 } });
});

test('a wait keeps any finite counters, and no longer than a month', async () => {
  const memo = { since: 1_796_000_000_000, below: -1, part: 0.5 };
  const seen: JsonObject[] = [];
  await using engine = await openEngine(
    catalogOf(
      fakeStep('before'),
      fakeStep('odd', {
        execute: async (run) => {
          seen.push(run.memo);
          return Promise.resolve(seen.length > 1 ? done() : waiting(1e15, 'not\0yet', { memo }));
        },
      }),
    ),
  );
  const first = await engine.start();
  const second = claimOf(jobOf(await engine.run(claimOf(first))));
  const verdict = await engine.run(second);
  expect(verdict).toMatchObject({ delayMs: 30 * 24 * 3_600_000, memo, note: 'notyet' });
  await engine.run({ ...second, memo });
  expect(seen).toEqual([{}, memo]);
});

test('an output that is left out and has a default is added, for the steps after it', async () => {
  const make = { ...fakeStep('make', returns(done({ other: 1 }))), adds: z.object({ plan: z.string().default('small') }) };
  const use = { ...fakeStep('use', { execute: async (run) => Promise.resolve(done({ found: run.context['plan'] ?? null })) }), needs: z.object({ plan: z.string() }) };
  await using engine = await openEngine(catalogOf(make, use));
  const first = await engine.start();
  await engine.drive(first);
  expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'completed', context: { plan: 'small', other: 1, found: 'small' } });
});

const refused = (code: string) => Object.assign(new Error('total size of jsonb object elements exceeds the maximum'), { name: 'PostgresError', code });

test('outputs that Postgres refuses for what is in them end the saga, and its outages do not', async () => {
  await using engine = await openEngine(catalogOf(fakeStep('odd', returns(done({ huge: 1 })))));
  let code = '53100';
  const store = {
    ...engine.options.store,
    commit: async (transition: Parameters<typeof engine.options.store.commit>[0]) => ('huge' in transition.patch ? Promise.reject(refused(code)) : engine.options.store.commit(transition)),
  };
  const first = await engine.start();
  await expect(runJob(claimOf(first), { ...engine.options, store })).rejects.toThrow('exceeds the maximum');
  const started = (await engine.load(first.sagaId)).saga;
  code = '54000';
  await runJob({ sagaId: first.sagaId, revision: started.revision, memo: {} }, { ...engine.options, store });
  expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensating', error: { code: 'outcome_wrong', message: expect.stringContaining('Postgres cannot store what step odd put out') } });
});
