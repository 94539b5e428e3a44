// An effect that a step recorded, and its compensation did not ask for, is left for a person to check.
import { describe, expect, test } from 'vitest';
import { textOf } from '../../src/platform/json.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { emptyKeyRing } from '../../src/platform/key-ring.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import { StepFailure, done, waiting } from '../../src/saga/step.ts';
import type { Step, StepRun } from '../../src/saga/step.ts';
import { describeEnd, surfaceOf } from '../../src/saga/words.ts';
import type { Engine, Ledger } from '../support/engine.ts';
import { catalogOf, fakeStep, openEngine } from '../support/engine.ts';

const failing = fakeStep('last', { execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) });

const undoing = async (run: StepRun, name: string) => run.undo<number>(name, { undo: async () => Promise.resolve(), find: async () => Promise.resolve(null), settleMs: 0 });
const sending = async (run: StepRun, name: string) => run.once(name, { send: async () => Promise.resolve(24), find: async () => Promise.resolve(null) });

/** A step with the effect `thing`. */
function making(compensate: Step<Ledger>['compensate'], execute: (run: StepRun) => Promise<unknown> = async (run) => sending(run, 'thing')): Catalog<Ledger> {
  const step = fakeStep('make_e', {
    execute: async (run) => {
      await execute(run);
      return done();
    },
    compensate,
  });
  return saying(catalogOf(step, failing));
}

function saying({ fake }: Catalog<Ledger>): Catalog<Ledger> {
  if (fake === undefined) throw new Error('there is no saga');
  return { fake: { ...fake, words: { rolledBack: () => 'Rolled back. Nothing is left.' } } };
}

async function rollBack(engine: Engine) {
  const first = await engine.start();
  await engine.drive(first);
  return (await engine.load(first.sagaId)).saga;
}

const toOutcome = (error: unknown) => ({ kind: 'failed', error: { code: 'unexpected', message: String(error), retryable: true } }) as const;

describe('is left, and asks a person to check', () => {
  test.each<readonly [string, Step<Ledger>['compensate']]>([
    ['that a new version calls by another name', async (run) => done({ was_there: await undoing(run, 'item') }, 'undid the item')],
    ['whose undo was forgotten', async () => Promise.resolve(done())],
  ])('an effect %s', async (_what, compensate) => {
    const app = making(compensate);
    await using engine = await openEngine(app, { toOutcome });
    const saga = await rollBack(engine);
    expect(saga).toMatchObject({ status: 'compensated', context: { 'make_e.left_effects': ['thing'] } });
    const text = 'Rolled back, but check the effect thing (24) of step make_e: its compensation did not ask for it, so it may still exist.';
    expect(describeEnd(surfaceOf(app).words(saga), saga)).toEqual({ text, label: 'check what is left', tone: 'attention' });
    // Also where nobody knows the saga.
    expect(describeEnd(surfaceOf({}).words(saga), saga)).toMatchObject({ text, tone: 'attention' });
    expect(await rerunSaga(engine.db, app, { sagaId: saga.id }, 0, emptyKeyRing)).toMatchObject({ kind: 'refused', leftovers: text });
    const notes = (await engine.events(saga.id)).map(({ detail }) => textOf(detail['note']));
    expect(notes.some((note) => note.endsWith('did not ask for thing, which may still exist: check that'))).toBe(true);
  });

  test('one whose request got no answer', async () => {
    const app = making(async () => Promise.resolve(done()), async (run) => run.once('thing', { send: async () => Promise.reject(new StepFailure({ code: 'lost', message: 'lost', retryable: false })), find: async () => Promise.resolve(null) }));
    await using engine = await openEngine(app, { toOutcome });
    expect((await rollBack(engine)).context).toMatchObject({ 'make_e.left_effects': ['thing'] });
  });
});

describe('is not left', () => {
  const cases: readonly (readonly [string, Catalog<Ledger>])[] = [
    ['an effect that was undone', making(async (run) => done({ was_there: await undoing(run, 'thing') }))],
    ['one that needs no undo, and was looked at', making(async (run) => Promise.resolve(done({}, `kept ${run.effects('thing').state}`)))],
    ['one whose request was surely not sent', making(async () => Promise.resolve(done()), async (run) => run.once('thing', { send: async () => Promise.reject(new StepFailure({ code: 'no', message: 'no', retryable: false, sent: false })), find: async () => Promise.resolve(null) }))],
    ['one that an earlier run of the compensation undid, and wrote that down', making(async (run) => {
      if (run.saga.context['undid'] === true) return done();
      await undoing(run, 'thing');
      await run.record('undid it', { undid: true });
      return waiting(0, 'looking again');
    })],
    ['one that an earlier run undid, and told of with its wait', making(async (run) => {
      if (run.saga.context['undid'] === true) return done();
      await undoing(run, 'thing');
      return waiting(0, 'looking again', { outputs: { undid: true } });
    })],
  ];

  test.each(cases)('%s', async (_what, app) => {
    await using engine = await openEngine(app, { toOutcome });
    const saga = await rollBack(engine);
    expect([saga.status, saga.context['make_e.left_effects']]).toEqual(['compensated', undefined]);
    expect(describeEnd(surfaceOf(app).words(saga), saga)).toMatchObject({ text: 'Rolled back. Nothing is left.', tone: 'plain' });
  });
});
