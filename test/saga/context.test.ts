import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import type { Step } from '../../src/saga/step.ts';
import { StepFailure, done } from '../../src/saga/step.ts';
import type { Ledger } from '../support/engine.ts';
import { catalogOf, fakeStep, openEngine } from '../support/engine.ts';

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
