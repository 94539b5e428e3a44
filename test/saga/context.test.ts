import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { lacksByVersion } from '../../src/saga/context.ts';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import { runJob } from '../../src/saga/runner.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import type { Step } from '../../src/saga/step.ts';
import { StepFailure, done } from '../../src/saga/step.ts';
import type { Ledger } from '../support/engine.ts';
import { catalogOf, claimOf, fakeStep, jobOf, openEngine, reconcileGraceMs } from '../support/engine.ts';

const input = z.strictObject({ name: z.string(), size: z.int().optional() });
const step = (name: string, declared: { needs?: z.ZodObject; adds?: z.ZodObject } = {}): Step<unknown> => ({
  name,
  ...declared,
  execute: async () => Promise.resolve(done()),
  compensate: async () => Promise.resolve(done()),
});

const build = (steps: readonly Step<unknown>[]) => defineSaga({ name: 'build_site', input, steps }).name;

describe('a saga is defined', () => {
  test('where each step finds what it needs: in the input, or among what a step before it adds', () => {
    const makes = step('make', { needs: z.object({ name: z.string() }), adds: z.object({ site_id: z.int() }) });
    const uses = step('use', { needs: z.object({ site_id: z.int(), size: z.int().optional(), colour: z.string().optional() }) });
    expect(defineSaga({ name: 'build_site', input, steps: [makes, uses] }).name).toBe('build_site');
  });

  test.each([
    ['nothing adds it', [step('use', { needs: z.object({ site_id: z.int() }) })]],
    ['a later step adds it', [step('use', { needs: z.object({ site_id: z.int() }) }), step('make', { adds: z.object({ site_id: z.int() }) })]],
    ['the step itself adds it', [step('use', { needs: z.object({ site_id: z.int() }), adds: z.object({ site_id: z.int() }) })]],
  ])('and refused, with step and key, where %s', (_why, steps) => {
    expect(() => defineSaga({ name: 'build_site', input, steps })).toThrow(new TypeError('saga build_site: step use needs site_id, which is no field of the input, and no step before it adds it'));
  });

  test.each([
    ['optional', z.int().optional()],
    ['nullish', z.int().nullish()],
    ['optional after a default', z.int().default(7).optional()],
  ])('and refused, with both steps, where a step before it adds the key as %s', (_what, site) => {
    const steps = [step('make', { adds: z.object({ site_id: site }) }), step('use', { needs: z.object({ site_id: z.int() }) })];
    expect(() => build(steps)).toThrow(new TypeError('saga build_site: step use needs site_id, which step make adds as optional; make it optional in needs too, or give it a default or no `.optional()` in adds'));
  });

  test('where what may be missing is not needed, has a default, is surely added by another step, or is in the input', () => {
    const use = step('use', { needs: z.object({ site_id: z.int() }) });
    const makes = step('make', { adds: z.object({ site_id: z.int().optional() }) });
    expect(build([makes, step('use', { needs: z.object({ site_id: z.int().optional() }) })])).toBe('build_site');
    expect(build([step('make', { adds: z.object({ site_id: z.int().default(7) }) }), use])).toBe('build_site');
    expect(build([step('make', { adds: z.object({ site_id: z.any() }) }), use])).toBe('build_site');
    expect(build([makes, step('make_surely', { adds: z.object({ site_id: z.int() }) }), use])).toBe('build_site');
    expect(build([step('find', { adds: z.object({ size: z.int().optional() }) }), step('fit', { needs: z.object({ size: z.int() }) })])).toBe('build_site');
  });

  test('where the input may have any key, whatever its steps need', () => {
    expect(defineSaga({ name: 'any', input: z.record(z.string(), z.json()), steps: [step('use', { needs: z.object({ site_id: z.int() }) })] }).name).toBe('any');
  });
});

describe('a step', () => {
  test('finds input and outputs in one object, as it needs them', async () => {
    const seen: unknown[] = [];
    const use = defineStep({
      name: 'use',
      needs: z.object({ name: z.string(), site_id: z.int(), colour: z.string().default('red') }),
      async execute({ context }, _ledger: Ledger) {
        // Typed without annotations.
        const text: string = context.name + context.colour + String(context.site_id + 1);
        seen.push(context, text);
        return Promise.resolve(done());
      },
      compensate: async () => Promise.resolve(done()),
    });
    await using engine = await openEngine(catalogOf(fakeStep('make', { execute: async () => Promise.resolve(done({ site_id: 7, other: true })) }), use));
    await engine.drive(await engine.start({ name: 'web' }));
    expect(seen).toEqual([{ name: 'web', site_id: 7, colour: 'red' }, 'webred8']);
  });

  test('fails for good, with the key, where a saga does not have what it needs', async () => {
    const use = defineStep({
      name: 'use',
      needs: z.object({ site_id: z.int() }),
      async execute({ context }) {
        return Promise.resolve(done({ twice: context.site_id * 2 }));
      },
      compensate: async () => Promise.resolve(done()),
    });
    await using engine = await openEngine(catalogOf(use));
    const first = await engine.start();
    await engine.drive(first);
    const { saga } = await engine.load(first.sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'context_missing', retryable: false } });
    expect(saga.error?.message).toMatch(/^use does not find what it needs: .*site_id/);
  });

  test('is undone with whatever there is', async () => {
    const seen: unknown[] = [];
    const use = defineStep({
      name: 'use',
      needs: z.object({ site_id: z.int() }),
      adds: z.object({ lease_id: z.string() }),
      execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })),
      async compensate({ context }) {
        const lease: string | undefined = context.lease_id;
        seen.push({ ...context }, lease);
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOf(use));
    await engine.drive(await engine.start({ name: 'web' }));
    expect(seen).toEqual([{ name: 'web' }, undefined]);
  });

  test('that does not put out what it says that it adds is undone, and says so', async () => {
    const undone: string[] = [];
    const make = {
      ...fakeStep('make', { execute: async () => Promise.resolve(done({ site: 7 })) }),
      adds: z.object({ site_id: z.int() }),
      compensate: async () => Promise.resolve((undone.push('make'), done())),
    };
    await using engine = await openEngine(catalogOf(make));
    const first = await engine.start();
    await engine.drive(first);
    const { saga } = await engine.load(first.sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'outputs_wrong' } });
    expect(saga.error?.message).toMatch(/^make does not put out what it says that it adds: .*site_id/);
    expect(undone).toEqual(['make']);
  });

  test('has outputs of the type that it adds', () => {
    const declared = { name: 'make', adds: z.object({ site_id: z.int() }), compensate: async () => Promise.resolve(done()) };
    defineStep({ ...declared, execute: async () => Promise.resolve(done({ site_id: 7, note: 'more is allowed' })) });
    // @ts-expect-error -- site_id is no number
    defineStep({ ...declared, execute: async () => Promise.resolve(done({ site_id: 'seven' })) });
    // @ts-expect-error -- site_id is missing
    defineStep({ ...declared, execute: async () => Promise.resolve(done()) });
    expect(declared.name).toBe('make');
  });
});

/** The saga of the next version: a step more, and another one that needs what it adds. */
const zed = { ...fakeStep('zed'), adds: z.object({ zed_id: z.int() }) };
const newer = {
  ...fakeStep('make_b', { execute: async ({ context }, ledger) => Promise.resolve((ledger.history.push(JSON.stringify(context['zed_id'])), done())) }),
  needs: z.object({ zed_id: z.int() }),
};

// Parts of what a version declares.
const needing = (shape: z.ZodRawShape) => ({ name: 'use', needs: z.object(shape) });
const definitionOf = (...steps: Parameters<typeof lacksByVersion>[0][]) => ({ input: z.object({ name: z.string(), tier: z.string().default('basic'), colour: z.string().optional() }), steps });
const made = (shape: z.ZodRawShape) => ({ name: 'make', adds: z.object(shape) });
const use = needing({ site: z.int() });

describe('a saga under way that lacks what a newer version of its step needs', () => {
  test('waits for a worker of its own version, without an attempt, and goes on there', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('a'), fakeStep('make_b')), { random: () => 0.5 });
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    const before = await engine.load(first.sagaId);
    const options = { ...engine.options, catalog: catalogOf(fakeStep('a'), zed, newer) };
    const left = await runJob({ ...claimOf(second), memo: { polls: 3 } }, options);
    expect(left).toMatchObject({ kind: 'postpone', delayMs: 1_000, memo: { polls: 3, needs_unmet: 1 }, note: expect.stringMatching(/^make_b does not find what it needs: .*zed_id.*; another version started the saga: left to its workers$/) });
    expect(await engine.load(first.sagaId)).toMatchObject({ saga: before.saga, wakeAt: before.wakeAt });
    const memos: unknown[] = [];
    const old = catalogOf(fakeStep('a'), fakeStep('make_b', { execute: async ({ memo }) => Promise.resolve((memos.push(memo), done())) }));
    await runJob({ ...claimOf(second), memo: { polls: 3, needs_unmet: 1 } }, { ...engine.options, catalog: old });
    expect(memos).toEqual([{ polls: 3 }]);
    expect((await engine.load(first.sagaId)).saga.status).toBe('completed');
  });

  test('can be cancelled, and is undone by the newer version', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('a'), fakeStep('make_b')));
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    const options = { ...engine.options, catalog: catalogOf(fakeStep('a'), zed, newer) };
    await runJob(claimOf(second), options);
    const answer = await cancelSaga(createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), first.sagaId, 'ann');
    let job = answer.kind === 'accepted' ? answer.next : null;
    while (job !== null) {
      const verdict = await runJob(claimOf(job), options);
      job = verdict.kind === 'next' ? verdict.job : null;
    }
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'cancelled' } });
    expect(engine.ledger.historyOf(first.sagaId)).toEqual(['a', '-make_b', '-a']);
  });

  test.each([
    ['its step adds it in this version', use, definitionOf(made({ site: z.int() }), use), {}, true],
    ['this version fills it in', use, definitionOf(made({ site: z.int().default(7) }), use), {}, true],
    ['this version would refuse the value that it has', use, definitionOf(made({ site: z.int() }), use), { site: 'seven' }, true],
    ['the input has it in this version', needing({ tier: z.string() }), definitionOf(needing({ tier: z.string() })), {}, true],
    ['the saga is unknown', use, undefined, {}, true],
    ['the saga has lost the step', use, definitionOf(made({ site: z.int() })), {}, true],
  ])('because %s is left to others', (_why, step, definition, context, isLeft) => {
    expect(lacksByVersion(step, { input: { name: 'web' }, context }, definition)).toBe(isLeft);
  });

  test.each([
    ['any value is promised', definitionOf(made({ site: z.any() }), use), {}],
    ['the value may be missing', definitionOf(made({ site: z.int().optional() }), use), {}],
    ['another value is promised', definitionOf(made({ site: z.string() }), use), { site: 'seven' }],
    ['only a later step adds it', definitionOf(use, made({ site: z.int() })), {}],
    ['the field may be missing', definitionOf(needing({ colour: z.string() })), {}],
  ])('fails where %s: that is its own fault', (_why, definition, context) => {
    expect(lacksByVersion(definition.steps.find(({ name }) => name === 'use') ?? use, { input: { name: 'web' }, context }, definition)).toBe(false);
  });
});

test('what a saga says to people is typed by its input and by what its steps add', () => {
  const make = defineStep({ name: 'make', adds: z.object({ site_id: z.int() }), execute: async (_run, { sites }: { sites: number }) => Promise.resolve(done({ site_id: sites })), compensate: async () => Promise.resolve(done()) });
  const bill = defineStep({ name: 'bill', adds: z.object({ bill_id: z.string() }), execute: async (_run, { bills }: { bills: string }) => Promise.resolve(done({ bill_id: bills })), compensate: async () => Promise.resolve(done()) });
  const saga = defineSaga({
    name: 'build_site',
    input,
    steps: [make, bill],
    words: {
      completed: ({ input: { name }, context }) => {
        const site: number | undefined = context.site_id;
        const size: number | undefined = context.bill_id?.length;
        return `${name} ${site} ${size}`;
      },
    },
    resource: ({ context }) => (context.site_id === undefined ? null : `site:${context.site_id.toFixed()}`),
  });
  expect(saga.outputs.parse({ site_id: 7, bill_id: 'b', more: true })).toEqual({ site_id: 7, bill_id: 'b', more: true });
  expect(saga.outputs.safeParse({ site_id: 7 }).success).toBe(false);
  defineApp({ sagas: [saga], deps: () => ({ sites: 1, bills: 'b' }) });
  // @ts-expect-error -- bills are missing
  defineApp({ sagas: [saga], deps: () => ({ sites: 1 }) });
});
