import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { openDatabase } from '../../src/platform/db.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { JobClaim } from '../../src/saga/verdict.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { done, StaleRevisionError, StepFailure, waiting } from '../../src/saga/step.ts';
import type { StepRun } from '../../src/saga/step.ts';
import { claimFragment, createSagaStore } from '../../src/saga/store.ts';
import { decide } from '../../src/saga/transition.ts';
import type { Outcome } from '../../src/saga/transition.ts';
import { catalogOf, claimOf, commitTransition, fakeStep, jobOf, openEngine, reconcileGraceMs } from '../support/engine.ts';
import type { Engine } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';

const fatal = (message = 'never') => new StepFailure({ code: 'bad', message, retryable: false });
const busy = (message = 'try again') => new StepFailure({ code: 'busy', message, retryable: true });

/** Moves a saga from outside of the run, as another worker or an operator does. */
async function moveAside(engine: Engine, sagaId: string, outcome: Outcome = { kind: 'cancel_requested', by: 'ann' }): Promise<Saga> {
  const decision = decide((await engine.load(sagaId)).saga, outcome, engine.options.policy, 0);
  if ('refused' in decision) throw new Error(decision.refused);
  expect(await commitTransition(engine.db, decision, 'aside', reconcileGraceMs)).toBe('applied');
  return decision.saga;
}

async function kindsOf(engine: Engine, sagaId: string): Promise<string[]> {
  return (await engine.events(sagaId)).map(({ kind }) => kind);
}

describe('a job that is not due', () => {
  test('runs no step when it is late, and names the job that is due', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one'), fakeStep('two')));
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    const before = await engine.events(first.sagaId);
    const verdict = await engine.run(claimOf(first));
    expect(jobOf(verdict)).toMatchObject({ sagaId: first.sagaId, revision: second.revision, step: 'two', direction: 'forward' });
    expect(verdict.note).toContain('revision 0 is outdated');
    expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one']);
    expect(await engine.events(first.sagaId)).toEqual(before);
  });

  test('leaves the job that it names its delay, when that is to wait', async () => {
    const step = fakeStep('one', { execute: async () => Promise.reject(busy()) });
    await using engine = await openEngine(catalogOf(step), { policy: { stepAttempts: 3, stepBackoffMs: 60_000, compensationAttempts: 1 }, random: () => 0.9 });
    const first = await engine.start();
    const retry = jobOf(await engine.run(claimOf(first)));
    expect(retry.delayMs).toBe(54_000);
    const late = jobOf(await engine.run(claimOf(first)));
    expect(late).toMatchObject({ revision: retry.revision });
    expect(late.delayMs).toBeGreaterThan(40_000);
    expect(late.delayMs).toBeLessThanOrEqual(54_000);
  });

  test('runs no step when it comes from the future of an older backup', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    expect(jobOf(await engine.run({ ...claimOf(first), revision: 17 }))).toMatchObject({ revision: 0, step: 'one' });
    expect(engine.ledger.history).toEqual([]);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created']);
  });

  test.each(['completed', 'compensated', 'stuck'])('is complete when the saga is %s', async (status) => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    await engine.db.sql`update arcadia.sagas set status = ${status} where id = ${first.sagaId}`;
    expect(await engine.run(claimOf(first))).toEqual({ kind: 'complete', note: `the saga is ${status}` });
    expect(await engine.run({ ...claimOf(first), revision: 5 })).toMatchObject({ kind: 'complete' });
    expect(engine.ledger.history).toEqual([]);
  });

  test('is complete when there is no such saga', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const sagaId = randomUUID();
    expect(await engine.run({ sagaId, revision: 0, memo: {} })).toEqual({ kind: 'complete', note: `saga ${sagaId} not found` });
  });

  test('is left to a newer worker when this one does not know the step: nothing is written, and the counters stay', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    const store = createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs, startsAt: ['other'] });
    const older = { ...engine.options, store, catalog: catalogOf(fakeStep('other')), random: () => 0.5 };
    const before = await engine.load(first.sagaId);
    expect(await runJob({ ...claimOf(first), memo: { polls: 4 } }, older)).toMatchObject({ kind: 'postpone', delayMs: 1_000, memo: { polls: 4 } });
    const { saga, wakeAt } = await engine.load(first.sagaId);
    expect({ saga, wakeAt }).toEqual({ saga: before.saga, wakeAt: before.wakeAt });
    await engine.drive(first);
    expect((await engine.load(first.sagaId)).saga.status).toBe('completed');
  });
});

describe('a run of a step', () => {
  test('is told before it begins: saga_started stands in the database when the first step runs', async () => {
    const seen: string[][] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        expect(run.saga).toMatchObject({ status: 'running', revision: 1 });
        seen.push(await kindsOf(engine, run.saga.id));
        return done();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await engine.drive(first);
    expect(seen).toEqual([['saga_created', 'saga_started']]);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_completed']);
  });

  test('waits without a trace: nothing is written, and the same job comes again with its counters', async () => {
    const memos: unknown[] = [];
    const step = fakeStep('two', {
      execute: async ({ memo }) => {
        memos.push(memo);
        const polls = (memo['polls'] ?? 0) + 1;
        return Promise.resolve(polls < 4 ? waiting(5_000, 'not yet', { memo: { polls } }) : done());
      },
    });
    await using engine = await openEngine(catalogOf(fakeStep('one'), step));
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    const before = await engine.load(first.sagaId);
    expect(await engine.run(claimOf(second))).toEqual({ kind: 'postpone', delayMs: 5_000, memo: { polls: 1 }, note: 'not yet' });
    const after = await engine.load(first.sagaId);
    expect({ saga: after.saga, wakeAt: after.wakeAt }).toEqual({ saga: before.saga, wakeAt: before.wakeAt });
    await engine.drive(second);
    expect(memos).toEqual([{}, {}, { polls: 1 }, { polls: 2 }, { polls: 3 }]);
    expect((await engine.load(first.sagaId)).saga.status).toBe('completed');
  });

  test('goes on with the job of the new revision when the first step of a saga waits', async () => {
    const step = fakeStep('one', { execute: async () => Promise.resolve(waiting(700, 'not yet')) });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    expect(jobOf(await engine.run(claimOf(first)))).toMatchObject({ revision: 1, delayMs: 700, step: 'one' });
  });

  test('writes what a waiting step puts out, and comes back later without using an attempt', async () => {
    const step = fakeStep('one', {
      execute: async ({ saga }) => Promise.resolve(saga.context['seen'] === true ? done() : waiting(900, 'not yet', { outputs: { seen: true } })),
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    const again = jobOf(await engine.run(claimOf(first)));
    expect(again).toMatchObject({ revision: 2, delayMs: 900 });
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ attempt: 0, context: { seen: true } });
    await engine.drive(again);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_postponed', 'step_completed']);
  });

  test('sees the counters that the reconciler saved, and rather those of its job', async () => {
    const seen: unknown[] = [];
    const step = fakeStep('one', {
      execute: async ({ memo }) => {
        seen.push(memo);
        return Promise.resolve(waiting(1, 'not yet'));
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    const job = jobOf(await engine.run(claimOf(first)));
    await engine.db.sql`update arcadia.sagas set memo = '{"polls": 7, "errors": 1}' where id = ${first.sagaId}`;
    await engine.run({ ...claimOf(job), memo: { polls: 9 } });
    expect(seen.at(-1)).toEqual({ polls: 9, errors: 1 });
  });

  test('sees what an earlier run recorded before it died', async () => {
    let runs = 0;
    const intents: unknown[] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        runs += 1;
        intents.push(run.saga.context['intent'] ?? null);
        if (runs > 1) return done();
        await run.record('about to', { intent: 1 }, ['intent_at']);
        expect(run.saga).toMatchObject({ revision: 2, context: { intent: 1 } });
        expect(run.claim).toEqual({ sagaId: run.saga.id, revision: 2 });
        throw new Error('the machine caught fire');
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await expect(engine.run(claimOf(first))).rejects.toThrow('the machine caught fire');
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'running', attempt: 0, revision: 2 });
    // The same job is delivered again: it is late, but names the one that is due.
    await engine.drive(first);
    expect(intents).toEqual([null, 1]);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'completed', context: { intent: 1, intent_at: expect.any(String) } });
  });

  test('has a claim that stands in SQL until somebody else moves the saga on', async () => {
    const held: number[] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        held.push((await claimFragment(engine.db.sql, run.claim)).length);
        await run.record('noted', {});
        held.push((await claimFragment(engine.db.sql, run.claim)).length);
        await moveAside(engine, run.saga.id);
        held.push((await claimFragment(engine.db.sql, run.claim)).length);
        return done();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    await engine.run(claimOf(await engine.start()));
    expect(held).toEqual([1, 1, 0]);
  });

  test('is told the time of the database', async () => {
    const times: Date[] = [];
    const step = fakeStep('one', {
      execute: async ({ now }) => {
        times.push(now);
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const [before] = await engine.db.sql<{ now: Date }[]>`select clock_timestamp() as now`;
    const first = await engine.start();
    const realNow = Date.now;
    try {
      Date.now = () => 0;
      await engine.run(claimOf(first));
    } finally {
      Date.now = realNow;
    }
    expect(times[0]?.getTime()).toBeGreaterThanOrEqual(before?.now.getTime() ?? Number.NaN);
  });
});

describe('a step that fails', () => {
  test('is retried with back-off as often as the policy allows, then rolled back', async () => {
    const step = fakeStep('two', { execute: async () => Promise.reject(busy('too many')) });
    await using engine = await openEngine(catalogOf(fakeStep('one'), step), { random: () => 0.999 });
    const first = await engine.start();
    const verdicts = await engine.drive(first);
    const delays = verdicts.flatMap((verdict) => (verdict.kind === 'next' && /^two failed \(attempt \d\), retrying in/.test(verdict.note) ? [verdict.job.delayMs] : []));
    expect(delays).toEqual([100, 200]);
    expect(await kindsOf(engine, first.sagaId)).toEqual([
      'saga_created', 'saga_started', 'step_completed', 'step_retried', 'step_retried', 'step_failed', 'compensation_completed', 'compensation_completed',
    ]);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({
      status: 'compensated',
      error: { code: 'busy', message: 'too many', step: 'two', retryable: true },
    });
  });

  test('is rolled back at once when the failure is fatal, and its outputs are kept', async () => {
    const step = fakeStep('one', {
      execute: async () => Promise.reject(new StepFailure({ code: 'half', message: 'half done', retryable: false }, { half: 7 })),
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await engine.drive(first);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensated', context: { half: 7 }, error: { code: 'half' } });
  });

  test('is judged by toOutcome when it throws something else', async () => {
    const judged: unknown[] = [];
    const step = fakeStep('one', { execute: async () => Promise.reject(new TypeError('x is not a function')) });
    await using engine = await openEngine(catalogOf(step), {
      toOutcome: (error, direction, memo) => {
        judged.push([String(error), direction, memo]);
        return { kind: 'failed', error: { code: 'unexpected', message: String(error), retryable: false } };
      },
    });
    const first = await engine.start();
    await engine.run({ ...claimOf(first), memo: { polls: 2 } });
    expect(judged).toEqual([['TypeError: x is not a function', 'forward', { polls: 2 }]]);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensating', error: { code: 'unexpected' } });
  });

  test('decides nothing when the error is not about its work', async () => {
    const step = fakeStep('two', { execute: async () => Promise.reject(new Error('Postgres is away')) });
    await using engine = await openEngine(catalogOf(fakeStep('one'), step), { toOutcome: () => null });
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    const before = await engine.load(first.sagaId);
    await expect(engine.run(claimOf(second))).rejects.toThrow('Postgres is away');
    expect((await engine.load(first.sagaId)).saga).toEqual(before.saga);
  });

  test('throws when Postgres cannot be reached at all', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one')));
    const first = await engine.start();
    const nowhere = openDatabase('postgres://postgres@127.0.0.1:1/nothing', { timeoutMs: 500 });
    try {
      await expect(runJob(claimOf(first), { ...engine.options, store: createSagaStore(nowhere, { worker: 'test:1', reconcileGraceMs }) })).rejects.toThrow(/ECONNREFUSED/);
    } finally {
      await nowhere.close();
    }
    expect(engine.ledger.history).toEqual([]);
  });

  test('is stuck when its compensation fails for good, and goes on where it was once it is resumed', async () => {
    let isBroken = true;
    const one = fakeStep('one');
    const two = fakeStep('two', {
      execute: async (run, ledger) => {
        ledger.make(run, 'two');
        return Promise.reject(fatal());
      },
      compensate: async (run, ledger) => {
        if (isBroken) return Promise.reject(busy('cannot undo'));
        ledger.undo(run, 'two');
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOf(one, two));
    const first = await engine.start();
    await engine.drive(first);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'stuck', attempt: 4, error: { code: 'bad', message: 'never' } });
    expect(engine.ledger.of(first.sagaId)).toEqual(['one', 'two']);
    isBroken = false;
    const resumed = await moveAside(engine, first.sagaId, { kind: 'retry_requested', by: 'ann' });
    await engine.drive({ ...first, revision: resumed.revision });
    expect((await engine.load(first.sagaId)).saga.status).toBe('compensated');
    expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two', '-two', '-one']);
    expect(engine.ledger.violations).toEqual([]);
  });

  test('is stuck on its way forward when a step that must be done fails for good; a retry goes on, and a cancel gives up', async () => {
    let isBroken = true;
    const must = fakeStep('must', {
      forwardOnly: true,
      execute: async (run, ledger) => {
        if (isBroken) return Promise.reject(busy('locked'));
        ledger.make(run, 'must');
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOf(must));
    const [first, second] = [await engine.start(), await engine.start()];
    for (const saga of [first, second]) await engine.drive(saga);
    const stuck = (await engine.load(first.sagaId)).saga;
    expect(stuck).toMatchObject({ status: 'stuck', attempt: 4, error: { code: 'busy', message: 'locked', direction: 'forward' } });
    expect((await kindsOf(engine, first.sagaId)).slice(2)).toEqual(['step_retried', 'step_retried', 'step_retried', 'step_stuck']);
    isBroken = false;
    const resumed = await moveAside(engine, first.sagaId, { kind: 'retry_requested', by: 'ann' });
    expect(resumed).toMatchObject({ status: 'running', attempt: 0, error: null });
    await engine.drive({ ...first, revision: resumed.revision });
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'completed', error: null });
    const givenUp = await moveAside(engine, second.sagaId);
    await engine.drive({ ...second, revision: givenUp.revision });
    expect((await engine.load(second.sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'cancelled' } });
  });

  test('is rolled back, and not stuck, when a step that must be done declines before it did anything', async () => {
    const step = fakeStep('must', { forwardOnly: true, execute: async () => Promise.reject(new StepFailure({ code: 'not_ours', message: 'no', retryable: false, nothingDone: true })) });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await engine.drive(first);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'not_ours' } });
  });

  test('is logged by what it means: an error where a person is needed, a warning where a failure is handled', async () => {
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
    const never = fakeStep('two', { execute: async () => Promise.reject(fatal()), compensate: async () => Promise.reject(busy('cannot undo')) });
    const must = fakeStep('must', { forwardOnly: true, execute: async () => Promise.reject(busy('locked')) });
    for (const [step, expected] of [
      [never, ['warn step failed', 'warn compensation retried', 'warn compensation retried', 'warn compensation retried', 'error compensation stuck']],
      [must, ['warn step retried', 'warn step retried', 'warn step retried', 'error step stuck']],
    ] as const) {
      lines.length = 0;
      await using engine = await openEngine(catalogOf(step), { log });
      await engine.drive(await engine.start());
      const told = lines.map((line) => z.object({ level: z.int(), msg: z.string() }).parse(JSON.parse(line)));
      expect(told.map(({ level, msg }) => `${pino.levels.labels[level]} ${msg}`)).toEqual(expected);
    }
  });

  // Postgres can store neither NUL nor half a surrogate pair, and what an API answers may hold either.
  test.each(['a \0 in the answer', 'half a pair \ud800'])('comes to an end whatever is in its message: %j', async (message) => {
    const step = fakeStep('one', { execute: async () => Promise.reject(fatal(message)) });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await engine.drive(first);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'compensated', error: { code: 'bad' } });
  });
});

/** A step whose run is overtaken by a cancel while it works. */
function overtaken(end: (run: StepRun) => Promise<ReturnType<typeof done>>) {
  const calls: { run: StepRun; outputs: JsonObject }[] = [];
  const step = fakeStep('one', {
    execute: async (run) => {
      await run.record('about to', { intent: 1 });
      await moveAside(engineOf(), run.saga.id);
      return end(run);
    },
    superseded: async (run, outputs) => {
      calls.push({ run, outputs });
      return Promise.resolve();
    },
  });
  let engine: Engine | undefined;
  const engineOf = (): Engine => {
    if (engine === undefined) throw new Error('the engine is not open');
    return engine;
  };
  return { step, calls, use: (opened: Engine) => void (engine = opened) };
}

/** A step that says whether its claim is fresh. */
function probe(name: string, prepare: (run: StepRun) => Promise<void> = async () => Promise.resolve()) {
  const ages: string[] = [];
  const step = fakeStep(name, {
    execute: async (run) => {
      await prepare(run);
      try {
        run.assertClaimIsFresh();
        ages.push('fresh');
      } catch {
        ages.push('stale');
      }
      return done();
    },
  });
  return { ages, step };
}

/** A worker that gets the replies to these statements late. */
function slowAt(engine: Engine, slow: string) {
  const db = openDatabase(engine.url, {
    io: async (_kind, name, operation) => {
      const result = await operation();
      if (name === slow) await sleep(80);
      return result;
    },
  });
  return { options: { ...engine.options, store: createSagaStore(db, { worker: 'test:1', reconcileGraceMs }), claimMs: 50 }, [Symbol.asyncDispose]: db.close };
}

describe('a run that was overtaken', () => {
  test('takes back what it could not record, seeing the saga as it is now', async () => {
    const { step, calls, use } = overtaken(async () => Promise.resolve(done({ droplet_id: 7 })));
    await using engine = await openEngine(catalogOf(step));
    use(engine);
    const first = await engine.start();
    const verdict = await engine.run(claimOf(first));
    expect(calls).toHaveLength(1);
    expect(calls[0]?.outputs).toEqual({ droplet_id: 7 });
    expect(calls[0]?.run.saga).toMatchObject({ status: 'compensating', revision: 3, context: { intent: 1 } });
    expect(jobOf(verdict)).toMatchObject({ direction: 'backward', step: 'one', revision: 3 });
    expect((await engine.load(first.sagaId)).saga.context).toEqual({ intent: 1 });
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_recorded', 'cancel_requested']);
  });

  test.each<[string, (run: StepRun) => Promise<ReturnType<typeof done>>]>([
    ['failed for good', async () => Promise.reject(fatal())],
    ['failed for now', async () => Promise.reject(busy())],
    ['was told so while it recorded', async (run) => {
      await run.record('second', { intent: 2 });
      return done();
    }],
  ])('has nothing to take back when it %s', async (_how, end) => {
    const { step, calls, use } = overtaken(end);
    await using engine = await openEngine(catalogOf(step));
    use(engine);
    const first = await engine.start();
    expect(jobOf(await engine.run(claimOf(first)))).toMatchObject({ direction: 'backward', revision: 3 });
    expect(calls).toEqual([]);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ revision: 3, context: { intent: 1 }, error: { code: 'cancelled' } });
  });

  test('takes nothing back when it was a compensation', async () => {
    const calls: string[] = [];
    const step = fakeStep('one', {
      execute: async () => Promise.reject(fatal()),
      compensate: async (run) => {
        await engine.db.sql`update arcadia.sagas set revision = revision + 1 where id = ${run.saga.id}`;
        return done();
      },
      superseded: async ({ saga }) => {
        calls.push(saga.id);
        return Promise.resolve();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const job = jobOf(await engine.run(claimOf(await engine.start())));
    expect(job.direction).toBe('backward');
    expect(jobOf(await engine.run(claimOf(job)))).toMatchObject({ revision: job.revision + 1 });
    expect(calls).toEqual([]);
  });

  test.each([
    ['waits, with what it has done so far', async () => Promise.resolve({ kind: 'waiting', delayMs: 10, reason: 'not yet', outputs: { made: 7 } } as const), [{ made: 7 }]],
    ['fails, with what it has done so far', async () => Promise.reject(new StepFailure({ code: 'x', message: 'x', retryable: true }, { made: 7 })), [{ made: 7 }]],
    ['waits, and has done nothing', async () => Promise.resolve({ kind: 'waiting', delayMs: 10, reason: 'not yet' } as const), []],
    ['fails, and has done nothing', async () => Promise.reject(fatal()), []],
  ])('takes back what a step did that %s', async (_what, end, expected) => {
    const taken: JsonObject[] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        await engine.db.sql`update arcadia.sagas set revision = revision + 1 where id = ${run.saga.id}`;
        return end();
      },
      superseded: async (_run, outputs) => {
        taken.push(outputs);
        return Promise.resolve();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    await engine.run(claimOf(await engine.start()));
    expect(taken).toEqual(expected);
  });

  test('is complete when the saga has gone meanwhile, and what it did is taken back', async () => {
    const taken: unknown[] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        await engine.db.sql`delete from arcadia.sagas where id = ${run.saga.id}`;
        return done({ made: 7 });
      },
      superseded: async ({ saga }, outputs) => {
        taken.push([saga.status, outputs]);
        return Promise.resolve();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    expect(await engine.run(claimOf(await engine.start()))).toEqual({ kind: 'complete', note: 'the saga no longer exists' });
    expect(taken).toEqual([['compensated', { made: 7 }]]);
  });

  test('stops before an effect that cannot be repeated, when its claim is too old', async () => {
    const effects: string[] = [];
    const step = fakeStep('one', {
      execute: async (run) => {
        run.assertClaimIsFresh();
        effects.push('fresh');
        await sleep(850);
        expect(() => run.assertClaimIsFresh()).toThrow(StaleRevisionError);
        // A claim that was proved again is good again.
        await run.record('noted', {});
        run.assertClaimIsFresh();
        effects.push('fresh again');
        await sleep(850);
        run.assertClaimIsFresh();
        effects.push('too late');
        return done();
      },
    });
    await using engine = await openEngine(catalogOf(step), { claimMs: 800 });
    const first = await engine.start();
    expect(jobOf(await engine.run(claimOf(first)))).toMatchObject({ revision: 2, step: 'one' });
    expect(effects).toEqual(['fresh', 'fresh again']);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'running', revision: 2, attempt: 0 });
  });

  // In each of these, the reply takes longer than a claim lasts.
  describe('counts the age of its claim', () => {
    test('from before the row was read', async () => {
      const { ages, step } = probe('two');
      await using engine = await openEngine(catalogOf(fakeStep('one'), step));
      const job = jobOf(await engine.run(claimOf(await engine.start())));
      await using slow = slowAt(engine, 'store.load');
      await runJob(claimOf(job), slow.options);
      expect(ages).toEqual(['stale']);
    });

    test('from before its own record was written', async () => {
      const { ages, step } = probe('two', (run) => run.record('noted', {}));
      await using engine = await openEngine(catalogOf(fakeStep('one'), step));
      const job = jobOf(await engine.run(claimOf(await engine.start())));
      await using slow = slowAt(engine, 'store.commit');
      await runJob(claimOf(job), slow.options);
      expect(ages).toEqual(['stale']);
    });

    test('from before the step that this worker just did was written, where it reads nothing', async () => {
      const { ages, step } = probe('two');
      await using engine = await openEngine(catalogOf(fakeStep('one'), step));
      await using slow = slowAt(engine, 'store.commit');
      const job = jobOf(await runJob(claimOf(await engine.start()), slow.options));
      await runJob(claimOf(job), slow.options);
      expect(ages).toEqual(['stale']);
    });
  });
});

describe('two runs of one job at once', () => {
  test('make one transition, and agree on what comes next', async () => {
    await using engine = await openEngine(catalogOf(fakeStep('one'), fakeStep('two')));
    const first = await engine.start();
    const verdicts = await Promise.all(Array.from({ length: 8 }, () => engine.run(claimOf(first))));
    await engine.drive({ ...first, revision: 2 });
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_completed', 'step_completed']);
    for (const verdict of verdicts) expect(jobOf(verdict).revision).toBeLessThanOrEqual(2);
  });

  test('let only one of them begin a saga: the other runs no step', async () => {
    let isOpen = false;
    let runs = 0;
    const step = fakeStep('one', {
      execute: async () => {
        runs += 1;
        await waitFor(() => isOpen, { what: 'the gate', everyMs: 5 });
        return done();
      },
    });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    const winner = engine.run(claimOf(first));
    await waitFor(() => runs === 1, { what: 'the step to run' });
    expect(jobOf(await engine.run(claimOf(first)))).toMatchObject({ revision: 1 });
    isOpen = true;
    expect(await winner).toMatchObject({ kind: 'complete' });
    expect(runs).toBe(1);
  });

  test('in the middle of a saga have one that writes and one that takes back', async () => {
    let waitingRuns = 0;
    const taken: JsonObject[] = [];
    const step = fakeStep('two', {
      execute: async (run) => {
        waitingRuns += 1;
        const droplet = waitingRuns;
        await waitFor(() => waitingRuns === 2, { what: 'both runs', everyMs: 5 });
        expect(run.saga.revision).toBe(2);
        return done({ droplet });
      },
      superseded: async ({ saga }, outputs) => {
        taken.push({ recorded: saga.context['droplet'], made: outputs['droplet'] });
        return Promise.resolve();
      },
    });
    await using engine = await openEngine(catalogOf(fakeStep('one'), step));
    const first = await engine.start();
    const job = claimOf(jobOf(await engine.run(claimOf(first))));
    const verdicts = await Promise.all([engine.run(job), engine.run(job)]);
    expect(verdicts.map(({ kind }) => kind)).toEqual(['complete', 'complete']);
    const { saga } = await engine.load(first.sagaId);
    expect(saga).toMatchObject({ status: 'completed', revision: 3 });
    const recorded = saga.context['droplet'];
    expect(taken).toEqual([{ recorded, made: recorded === 1 ? 2 : 1 }]);
  });
});

describe('a whole saga', () => {
  test('hands the context from step to step, and completes', async () => {
    const seen: JsonObject[] = [];
    const adding = (name: string, outputs: JsonObject) =>
      fakeStep(name, {
        execute: async ({ saga }) => {
          seen.push(saga.context);
          return Promise.resolve(done(outputs, `${name} is done`));
        },
      });
    await using engine = await openEngine(catalogOf(adding('one', { droplet_id: 7 }), adding('two', { public_ipv4: '10.0.0.1' }), adding('three', {})));
    const first = await engine.start({ name: 'web' });
    const verdicts = await engine.drive(first);
    expect(seen).toEqual([{}, { droplet_id: 7 }, { droplet_id: 7, public_ipv4: '10.0.0.1' }]);
    expect(verdicts.map(({ kind }) => kind)).toEqual(['next', 'next', 'complete']);
    const { saga, wakeAt } = await engine.load(first.sagaId);
    expect(saga).toMatchObject({ status: 'completed', input: { name: 'web' }, context: { droplet_id: 7, public_ipv4: '10.0.0.1' } });
    expect(saga.finishedAt).not.toBeNull();
    expect(wakeAt).toBeNull();
    const events = await engine.events(first.sagaId);
    expect(events.map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4]);
    expect(events.at(-1)).toMatchObject({ worker: 'test:1', detail: { note: 'three is done', status: 'completed' } });
  });

  test('undoes what it did in reverse order, beginning with the step that failed', async () => {
    const failing = fakeStep('three', {
      execute: async (run, ledger) => {
        // The effect was there before the step knew: a request that timed out.
        ledger.make(run, 'three');
        return Promise.reject(fatal());
      },
    });
    await using engine = await openEngine(catalogOf(fakeStep('one'), fakeStep('two'), failing, fakeStep('four')));
    const first = await engine.start();
    await engine.drive(first);
    expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two', 'three', '-three', '-two', '-one']);
    expect(engine.ledger.violations).toEqual([]);
    expect((await engine.load(first.sagaId)).saga.status).toBe('compensated');
  });

  test('hands the compensations the context that the steps put together', async () => {
    const seen: JsonObject[] = [];
    const one = fakeStep('one', {
      compensate: async ({ saga, direction }) => {
        expect(direction).toBe('backward');
        seen.push(saga.context);
        return Promise.resolve(done());
      },
    });
    await using engine = await openEngine(catalogOf(one, fakeStep('two', { execute: async () => Promise.reject(fatal()) })));
    await engine.drive(await engine.start());
    expect(seen).toEqual([{ one: true }]);
  });

  test.each(Array.from({ length: 8 }, (_, revision) => revision))(
    'ends in order when it is cancelled at revision %i, and every job is delivered twice',
    async (revision) => {
      const slow = fakeStep('two', {
        execute: async (run, ledger) => {
          if (run.saga.context['noted'] === undefined) return Promise.resolve(waiting(10, 'first look', { outputs: { noted: true } }));
          await run.record('about to', { intent: 1 });
          ledger.make(run, 'two');
          return done();
        },
      });
      await using engine = await openEngine(catalogOf(fakeStep('one'), slow, fakeStep('three')));
      const first = await engine.start();
      let claim: JobClaim = claimOf(first);
      let isCancelled = false;
      for (let jobs = 0; jobs < 30; jobs += 1) {
        const { saga } = await engine.load(first.sagaId);
        if (!isCancelled && saga.revision >= revision && saga.status !== 'completed') {
          await moveAside(engine, first.sagaId);
          isCancelled = true;
        }
        const verdict = await engine.run(claim);
        await engine.run(claim);
        if (verdict.kind === 'complete') break;
        if (verdict.kind === 'next') claim = claimOf(verdict.job);
      }
      const { saga } = await engine.load(first.sagaId);
      expect(saga.status).toBe(isCancelled ? 'compensated' : 'completed');
      expect(isCancelled).toBe(revision < 6);
      expect(engine.ledger.of(first.sagaId)).toEqual(isCancelled ? [] : ['one', 'two', 'three']);
      expect(engine.ledger.violations).toEqual([]);
      const events = await engine.events(first.sagaId);
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index));
    },
  );
});

/** A first step that records first: the claims of its runs, and whatever is to happen in the middle of one. */
function recording(more: { asides?: ((run: StepRun) => Promise<unknown>)[]; outcome?: () => ReturnType<typeof done> } = {}) {
  const claims: number[] = [];
  const step = fakeStep('one', {
    recordsFirst: true,
    execute: async (run, ledger) => {
      claims.push(run.claim.revision);
      await more.asides?.shift()?.(run);
      if (more.outcome !== undefined) return more.outcome();
      await run.record('about to', { intent: 1 });
      claims.push(run.claim.revision);
      ledger.make(run, 'one');
      return done({ one: true });
    },
  });
  return { step, claims };
}

describe('a first step that records first', () => {
  test('starts its saga with what it records', async () => {
    const { step, claims } = recording();
    await using engine = await openEngine(catalogOf(step, fakeStep('two')));
    const first = await engine.start();
    await engine.drive(first);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_recorded', 'step_completed', 'step_completed']);
    const [, started] = await engine.events(first.sagaId);
    expect(started).toMatchObject({ seq: 1, step: 'one', attempt: 1, detail: { status: 'running' }, worker: 'test:1' });
    // Until then, what is written under the claim is written under the revision that the database has.
    expect(claims).toEqual([0, 2]);
    expect((await engine.load(first.sagaId)).saga).toMatchObject({ status: 'completed', revision: 4 });
  });

  test('whose saga is cancelled before it recorded anything has done nothing, and the saga ends at once', async () => {
    const { step } = recording({ asides: [async (run) => moveAside(engine, run.saga.id)] });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    expect(await engine.run(claimOf(first))).toMatchObject({ kind: 'complete' });
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'cancel_requested']);
    expect((await engine.load(first.sagaId)).saga.status).toBe('compensated');
    expect(engine.ledger.history).toEqual([]);
  });

  test('run by two workers at once goes on in one of them', async () => {
    const both = Promise.withResolvers<void>();
    let arrived = 0;
    const meet = async () => {
      if ((arrived += 1) === 2) both.resolve();
      return both.promise;
    };
    const { step } = recording({ asides: [meet, meet] });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await Promise.all([engine.run(claimOf(first)), engine.run(claimOf(first))]);
    expect(engine.ledger.historyOf(first.sagaId)).toEqual(['one']);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_recorded', 'step_completed']);
  });

  test('that has to wait before it records anything leaves a saga that is running', async () => {
    const { step } = recording({ outcome: () => waiting(1_000, 'no room yet') });
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    const verdict = await engine.run(claimOf(first));
    expect(verdict).toMatchObject({ kind: 'next', job: { revision: 1, delayMs: 1_000 } });
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started']);
  });

  test('that fails is retried, and rolled back, as any other', async () => {
    const step = fakeStep('one', { recordsFirst: true, execute: async () => Promise.reject(busy()) });
    await using engine = await openEngine(catalogOf(step), { policy: { stepAttempts: 2, stepBackoffMs: 1, compensationAttempts: 1 } });
    const first = await engine.start();
    await engine.drive(first);
    expect(await kindsOf(engine, first.sagaId)).toEqual(['saga_created', 'saga_started', 'step_retried', 'step_failed', 'compensation_completed']);
  });

  test('of a saga that nobody has checked is admitted before it runs', async () => {
    const { step, claims } = recording();
    await using engine = await openEngine(catalogOf(step));
    const first = await engine.start();
    await engine.db.sql`update arcadia.sagas set input_checked = false where id = ${first.sagaId}`;
    await engine.run(claimOf(first));
    expect(claims).toEqual([1, 2]);
  });
});
