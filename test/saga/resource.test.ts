import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { Catalog } from '../../src/saga/definition.ts';
import type { Io } from '../../src/platform/io.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { textOf } from '../../src/platform/json.ts';
import { stepsToStartAt } from '../../src/saga/definition.ts';
import type { Verdict } from '../../src/saga/verdict.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { NextJob } from '../../src/saga/saga.ts';
import { cancelSaga, retrySaga } from '../../src/saga/cancel-and-retry.ts';
import { StepFailure, done } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { claimOf, fakeStep, jobOf, openEngine, reconcileGraceMs } from '../support/engine.ts';
import type { Engine, Ledger } from '../support/engine.ts';

/** Sagas that work on the resource that their input names; it may come with the first step instead. */
function catalogOn(...steps: readonly Step<Ledger>[]): Catalog<Ledger> {
  return { fake: { input: z.record(z.string(), z.json()), steps, resource: ({ input, context }) => textOf(input['resource'] ?? context['found']) || null } };
}

const oneTwo = () => catalogOn(fakeStep('one'), fakeStep('two'));

const resourceOfSaga = async (engine: Engine, { sagaId }: NextJob) => {
  const { saga } = await engine.load(sagaId);
  return { resource: saga.resource, waitsFor: saga.waitsFor, status: saga.status };
};

describe('two sagas with the same resource', () => {
  test('run one after the other: the later one waits for the end of the first, without an attempt', async () => {
    await using engine = await openEngine(oneTwo());
    const first = await engine.start({ resource: 'site:1' });
    const later = await engine.start({ resource: 'site:1' });
    const second = jobOf(await engine.run(claimOf(first)));
    const verdict = await engine.run(claimOf(later));
    expect(verdict).toMatchObject({ kind: 'postpone', note: `waiting for saga ${first.sagaId}, which is using site:1` });
    expect(await resourceOfSaga(engine, later)).toEqual({ resource: null, waitsFor: first.sagaId, status: 'pending' });
    expect((await engine.load(later.sagaId)).saga.attempt).toBe(0);
    await engine.drive(second);
    await engine.drive(later);
    expect(engine.ledger.history.map((entry) => entry.slice(37))).toEqual(['one', 'two', 'one', 'two']);
    expect(await resourceOfSaga(engine, later)).toEqual({ resource: 'site:1', waitsFor: null, status: 'completed' });
    expect(await resourceOfSaga(engine, first)).toEqual({ resource: null, waitsFor: null, status: 'completed' });
  });

  test('wait for the rollback of the first as for its steps', async () => {
    const failing = fakeStep('two', { execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) });
    await using engine = await openEngine(catalogOn(fakeStep('one'), failing));
    const first = await engine.start({ resource: 'site:1' });
    const later = await engine.start({ resource: 'site:1' });
    const undoing = jobOf(await engine.run(claimOf(jobOf(await engine.run(claimOf(first))))));
    expect(undoing.direction).toBe('backward');
    expect((await engine.run(claimOf(later))).kind).toBe('postpone');
    await engine.drive(undoing);
    expect((await engine.run(claimOf(later))).kind).toBe('next');
  });

  test('look again soon at first, and every five seconds in the end', async () => {
    await using engine = await openEngine(oneTwo(), { random: () => 0.5 });
    const first = await engine.start({ resource: 'site:1' });
    const later = await engine.start({ resource: 'site:1' });
    await engine.run(claimOf(first));
    const delays: number[] = [];
    let memo = {};
    for (let looks = 0; looks < 8; looks += 1) {
      const verdict = await engine.run({ ...claimOf(later), memo });
      if (verdict.kind !== 'postpone') throw new Error(verdict.note);
      delays.push(verdict.delayMs);
      ({ memo } = verdict);
    }
    expect(delays).toEqual([400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000]);
  });

  test('hand no counter of the waiting to the step', async () => {
    const memos: unknown[] = [];
    const step = fakeStep('one', {
      execute: async ({ memo }) => {
        memos.push(memo);
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOn(step));
    const first = await engine.start({ resource: 'site:1' });
    await engine.run({ ...claimOf(first), memo: { resource_looks: 7, polls: 2 } });
    expect(memos).toEqual([{ polls: 2 }]);
  });

  test('hand it none that the reconciler saved either', async () => {
    const memos: unknown[] = [];
    const step = fakeStep('one', { execute: async ({ memo }) => Promise.resolve((memos.push(memo), done())) });
    await using engine = await openEngine(catalogOn(step));
    const first = await engine.start({ resource: 'site:1' });
    await engine.db.sql`update arcadia.sagas set memo = '{"resource_looks": 7, "left_to_others": 3, "errors": 1}' where id = ${first.sagaId}`;
    await engine.run(claimOf(first));
    expect(memos).toEqual([{ errors: 1 }]);
  });

  test('that claim it at the same moment: one has it', async () => {
    await using engine = await openEngine(oneTwo());
    const jobs = await Promise.all(Array.from({ length: 12 }, async () => engine.start({ resource: 'site:1' })));
    const verdicts = await Promise.all(jobs.map(async (job) => engine.run(claimOf(job))));
    expect(verdicts.filter(({ kind }) => kind === 'next')).toHaveLength(1);
    expect(verdicts.filter(({ kind }) => kind === 'postpone')).toHaveLength(11);
  });

  test('where the resource comes with a step: from then on', async () => {
    const one = fakeStep('one', { execute: async () => Promise.resolve(done({ found: 'site:1' })) });
    await using engine = await openEngine(catalogOn(one, fakeStep('two')));
    const finding = await engine.start();
    const named = await engine.start({ resource: 'site:1' });
    const second = jobOf(await engine.run(claimOf(finding)));
    // The other one was quicker.
    const next = jobOf(await engine.run(claimOf(named)));
    expect(await engine.run(claimOf(second))).toMatchObject({ kind: 'postpone' });
    await engine.drive(next);
    await engine.drive(second);
    expect((await engine.load(finding.sagaId)).saga.status).toBe('completed');
  });
});

describe('a saga that waits', () => {
  test('ends at once when it is cancelled: none of its steps ran', async () => {
    await using engine = await openEngine(oneTwo());
    const first = await engine.start({ resource: 'site:1' });
    const later = await engine.start({ resource: 'site:1' });
    await engine.run(claimOf(first));
    await engine.run(claimOf(later));
    await cancelSaga(createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), later.sagaId, 'ann');
    expect(await resourceOfSaga(engine, later)).toEqual({ resource: null, waitsFor: null, status: 'compensated' });
  });

  test('is not kept from its end by one whose row is gone', async () => {
    await using engine = await openEngine(oneTwo());
    const first = await engine.start({ resource: 'site:1' });
    const later = await engine.start({ resource: 'site:1' });
    await engine.run(claimOf(first));
    await engine.run(claimOf(later));
    await engine.db.sql`delete from arcadia.sagas where id = ${first.sagaId}`;
    await engine.drive(later);
    expect((await engine.load(later.sagaId)).saga.status).toBe('completed');
  });

  test('is rejected where its input is not what it takes, whatever it says of a resource', async () => {
    const catalog: Catalog<Ledger> = { fake: { input: z.strictObject({ site: z.int() }), steps: [fakeStep('one')], resource: ({ input }) => `site:${textOf(input['site'])}` } };
    await using engine = await openEngine(catalog);
    const [row] = await engine.db.sql<{ id: string }[]>`
      insert into arcadia.sagas (id, saga8, name, status, steps, input, input_checked, wake_at)
      values ('a0000001-0000-4000-8000-000000000001', 'a0000001', 'fake', 'pending', '{one}', '{"site": "none"}', false, clock_timestamp()) returning id`;
    await engine.run({ sagaId: row?.id ?? '', revision: 0, memo: {} });
    expect(await engine.load(row?.id ?? '')).toMatchObject({ saga: { status: 'compensated', resource: null } });
  });
});

describe('a stuck saga', () => {
  const stubborn = fakeStep('one', { forwardOnly: true, execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) });

  test('gives way to another; resumed, it waits for that one', async () => {
    let isBroken = true;
    const step: Step<Ledger> = { ...fakeStep('one'), forwardOnly: true, execute: async (run, ledger) => (isBroken ? stubborn.execute(run, ledger) : fakeStep('one').execute(run, ledger)) };
    await using engine = await openEngine(catalogOn(step, fakeStep('two')));
    const first = await engine.start({ resource: 'site:1' });
    await engine.drive(first);
    expect(await resourceOfSaga(engine, first)).toEqual({ resource: 'site:1', waitsFor: null, status: 'stuck' });
    isBroken = false;
    const later = await engine.start({ resource: 'site:1' });
    const second = jobOf(await engine.run(claimOf(later)));
    expect(await resourceOfSaga(engine, first)).toEqual({ resource: null, waitsFor: null, status: 'stuck' });
    const answered = await retrySaga(createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), first.sagaId, 'ann');
    const resumed = answered.kind === 'accepted' ? answered.next : null;
    if (resumed === null) throw new Error('not resumed');
    expect((await engine.run(claimOf(resumed))).kind).toBe('postpone');
    await engine.drive(second);
    await engine.drive(resumed);
    expect((await engine.load(first.sagaId)).saga.status).toBe('completed');
  });
});

/** Two sagas, each of which holds what the other one needs by the newer definition. */
async function crossed(engine: Engine): Promise<readonly [NextJob, NextJob]> {
  const start = async (input: Readonly<Record<string, number>>) => jobOf(await engine.run(claimOf(await engine.start(input))));
  return [await start({ from: 1, to: 2 }), await start({ from: 2, to: 1 })];
}

describe('a definition whose resource changes while sagas are under way', () => {
  const from: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [fakeStep('one'), fakeStep('two')], resource: ({ input }) => `site:${textOf(input['from'])}` } };
  const to: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [fakeStep('one'), fakeStep('two')], resource: ({ input }) => `site:${textOf(input['to'])}` } };

  test('leaves each saga the one that it holds: they do not wait for each other', async () => {
    await using engine = await openEngine(from);
    const [one, two] = await crossed(engine);
    const errors: unknown[] = [];
    const newer = { ...engine.options, catalog: to, log: { ...engine.options.log, error: (fields: unknown) => void errors.push(fields) } };
    expect((await runJob(claimOf(one), newer)).kind).toBe('complete');
    expect((await runJob(claimOf(two), newer)).kind).toBe('complete');
    expect(await resourceOfSaga(engine, two)).toEqual({ resource: 'site:2', waitsFor: null, status: 'completed' });
    expect(errors).toMatchObject([{ held: 'site:1', resource: 'site:2' }, { held: 'site:2', resource: 'site:1' }]);
  });

  test('ends a wait in a circle that an earlier version left, forward or in a rollback', async () => {
    await using engine = await openEngine(from);
    const [one, two] = await crossed(engine);
    await engine.db.sql`update arcadia.sagas set waits_for = case id when ${one.sagaId} then ${two.sagaId}::uuid else ${one.sagaId}::uuid end`;
    await cancelSaga(createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), one.sagaId, 'ann');
    const newer = { ...engine.options, catalog: to };
    await runJob(claimOf({ ...one, revision: one.revision + 1 }), newer);
    expect(await resourceOfSaga(engine, one)).toEqual({ resource: 'site:1', waitsFor: null, status: 'compensating' });
    await runJob(claimOf(two), newer);
    expect(await resourceOfSaga(engine, two)).toEqual({ resource: 'site:2', waitsFor: null, status: 'completed' });
  });

  test('leaves a saga the one that it holds even if it throws', async () => {
    await using engine = await openEngine(from);
    const first = jobOf(await engine.run(claimOf(await engine.start({ from: 1 }))));
    const broken: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [fakeStep('one'), fakeStep('two')], resource: () => { throw new TypeError('no site is known'); } } };
    await runJob(claimOf(first), { ...engine.options, catalog: broken });
    expect(await resourceOfSaga(engine, first)).toEqual({ resource: 'site:1', waitsFor: null, status: 'completed' });
  });
});

test('a rollback that was stuck takes the resource again that it lost meanwhile, whatever the definition says by then', async () => {
  let isBroken = true;
  const one = fakeStep('one', { compensate: async () => (isBroken ? Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) : Promise.resolve(done())) });
  const two = fakeStep('two', { execute: async ({ context }) => (context['resource'] === 'site:1' && context['fails'] === true ? Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) : Promise.resolve(done())) });
  await using engine = await openEngine(catalogOn(one, two));
  const first = await engine.start({ resource: 'site:1', fails: true });
  await engine.drive(first);
  expect(await resourceOfSaga(engine, first)).toMatchObject({ resource: 'site:1', status: 'stuck' });
  isBroken = false;
  const later = jobOf(await engine.run(claimOf(await engine.start({ resource: 'site:1' }))));
  const answered = await retrySaga(createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs }), first.sagaId, 'ann');
  const resumed = answered.kind === 'accepted' ? answered.next : null;
  if (resumed === null) throw new Error('not resumed');
  const newer = { ...engine.options, catalog: { fake: { input: z.record(z.string(), z.json()), steps: [one, two], resource: () => 'site:2' } } };
  expect(await runJob(claimOf(resumed), newer)).toMatchObject({ kind: 'postpone', note: `waiting for saga ${later.sagaId}, which is using site:1` });
  await engine.drive(later);
  await runJob(claimOf(resumed), newer);
  expect(await resourceOfSaga(engine, first)).toMatchObject({ waitsFor: null, status: 'compensated' });
});

/** The statements of one saga, from its first job to its last. */
async function statementsOf(catalog: Catalog<Ledger>): Promise<string[]> {
  await using engine = await openEngine(catalog);
  const names: string[] = [];
  const io: Io = async (_kind, name, operation) => {
    names.push(name);
    return operation();
  };
  const counted = openDatabase(engine.url, { io });
  try {
    const options = { ...engine.options, store: createSagaStore(counted, { worker: 'test:1', reconcileGraceMs, startsAt: stepsToStartAt(catalog) }) };
    let job: NextJob | null = await engine.start();
    while (job !== null) {
      const verdict: Verdict = await runJob({ ...claimOf(job), step: job.step }, options);
      job = verdict.kind === 'next' ? verdict.job : null;
    }
    return names;
  } finally {
    await counted.close();
  }
}

describe('a definition that does not say what its saga works on', () => {
  const wrong = [
    ['throws', () => { throw new TypeError('no server is known'); }, 'no server is known'],
    ['says a number', () => JSON.parse('7') as string, // oxlint-disable-line typescript/no-unsafe-type-assertion -- as JavaScript may
      'expected a text of 1 to 255 characters, or null; found 7'],
    ['says half a kilobyte', () => 'x'.repeat(500), 'expected a text of 1 to 255 characters'],
  ] as const;

  test.each(wrong)('because it %s fails the saga, which is rolled back', async (_what, resource, message) => {
    let isWrong = false;
    const one = fakeStep('one', { execute: async () => { isWrong = true; return Promise.resolve(done()); } });
    const catalog: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [one, fakeStep('two')], resource: () => (isWrong ? resource() : null) } };
    await using engine = await openEngine(catalog);
    const first = await engine.start();
    await engine.drive(first);
    const { saga } = await engine.load(first.sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'resource_wrong', step: 'two' } });
    expect(saga.error?.message).toContain(message);
  });
});

test('a worker that does not know the saga leaves it to others for a while, as it cannot know its resource', async () => {
  await using engine = await openEngine(oneTwo());
  const first = await engine.start({ resource: 'site:1' });
  const second = jobOf(await engine.run(claimOf(first)));
  const others = { ...engine.options, catalog: { other: { input: z.json().pipe(z.record(z.string(), z.json())), steps: [fakeStep('one'), fakeStep('two')] } } };
  const left = await runJob(claimOf(second), others);
  expect(left).toMatchObject({ kind: 'postpone', note: 'saga fake is not known to this worker', memo: { left_to_others: 1 } });
  expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one']);
  // Nobody seems to know it any more.
  expect((await runJob({ ...claimOf(second), memo: { left_to_others: 30 } }, others)).kind).toBe('complete');
  expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two']);
});

describe('a saga without a resource', () => {
  test('pays nothing for it: no statement more', async () => {
    const without: Catalog<Ledger> = { fake: { input: z.record(z.string(), z.json()), steps: [fakeStep('one'), fakeStep('two')] } };
    expect(await statementsOf(without)).toEqual(['store.start', 'store.commit', 'store.commit']);
    expect(await statementsOf(oneTwo())).not.toContain('store.hold_resource');
  });
});
