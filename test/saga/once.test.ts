import { describe, expect, test } from 'vitest';
import { textOf } from '../../src/platform/json.ts';
import type { Effect, EffectState } from '../../src/saga/effect.ts';
import type { NextJob } from '../../src/saga/saga.ts';
import { done, StepFailure, StepWait, waiting } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import { runJob } from '../../src/saga/runner.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { catalogOf, claimOf, fakeStep, jobOf, openEngine } from '../support/engine.ts';
import type { Engine, Ledger } from '../support/engine.ts';

type Receipt = { id: number };

/** A service that keeps what was sent by the mark that it carries; it loses an answer where it is told to. */
class Service {
  readonly sent: string[] = [];
  readonly cancelled: number[] = [];
  asked = 0;
  loses: 'nothing' | 'the answer' | 'the request' | 'everything' = 'nothing';
  private readonly kept: Receipt[] = [];

  async send(mark: string): Promise<Receipt> {
    this.sent.push(mark);
    const receipt = { id: this.sent.length };
    if (this.loses === 'nothing' || this.loses === 'the answer') this.kept.push(receipt);
    if (this.loses === 'nothing') return Promise.resolve(receipt);
    throw new Error('connection reset');
  }

  async find(): Promise<Receipt | null> {
    this.asked += 1;
    return Promise.resolve(this.loses === 'everything' ? null : (this.kept.find(({ id }) => !this.cancelled.includes(id)) ?? null));
  }

  async cancel({ id }: Receipt): Promise<void> {
    this.cancelled.push(id);
    return Promise.resolve();
  }
}

type Given = Partial<Effect<Receipt>> & { keep?: string };

function subscribing(service: Service, given: Given = {}): Step<Ledger> {
  const { keep, ...more } = given;
  const keys = keep === undefined ? {} : { value: keep };
  return fakeStep('bill', {
    execute: async (run) => {
      const effect = { send: async (mark: string) => service.send(mark), find: async () => service.find(), settleMs: 300, pollMs: 50, keys, ...more };
      const receipt = await run.once('subscription', keep === undefined ? effect : { ...effect, recordsWithStep: true });
      return done({ [keep ?? 'subscription_id']: keep === undefined ? receipt.id : receipt });
    },
    compensate: async (run) => {
      await run.undo<Receipt>('subscription', { undo: async (receipt) => service.cancel(receipt), find: async () => service.find(), settleMs: 300, pollMs: 50, keys });
      return done();
    },
  });
}

// What a step throws is a failure that may be retried, as in a worker.
const toOutcome = (error: unknown) => ({ kind: 'failed', error: { code: 'unexpected', message: String(error), retryable: true } }) as const;

async function openWith(step: Step<Ledger>, last = fakeStep('last')): Promise<Engine> {
  return openEngine(catalogOf(fakeStep('first'), step, last), { toOutcome, policy: { stepAttempts: 20, stepBackoffMs: 1, compensationAttempts: 4 } });
}

/** Drives a saga to its end, with as much time between its jobs as they ask for. */
async function driveInTime(engine: Engine, first: NextJob): Promise<void> {
  let claim = claimOf(first);
  for (let jobs = 0; jobs < 100; jobs += 1) {
    const verdict = await engine.run(claim);
    if (verdict.kind === 'complete') return;
    const delayMs = verdict.kind === 'next' ? verdict.job.delayMs : verdict.delayMs;
    await new Promise((resolve) => setTimeout(resolve, Math.min(delayMs, 400)));
    claim = verdict.kind === 'next' ? claimOf(verdict.job) : { ...claim, memo: verdict.memo };
  }
  throw new Error('the saga did not come to rest');
}

const startAndDrive = async (engine: Engine) => {
  const first = await engine.start();
  await driveInTime(engine, first);
  return (await engine.load(first.sagaId)).saga;
};

describe('once', () => {
  test('announces the effect before it is sent, and records what came of it', async () => {
    const service = new Service();
    await using engine = await openWith(subscribing(service, { announcement: 'announced a subscription' }));
    const saga = await startAndDrive(engine);
    expect(saga).toMatchObject({ status: 'completed', context: { subscription_id: 1, 'bill.subscription.sends': 1, 'bill.subscription.value': { id: 1 }, 'bill.subscription.sent_at': expect.any(String) } });
    const notes = (await engine.events(saga.id)).map(({ kind, detail }) => `${kind} ${textOf(detail['note'])}`);
    expect(notes).toEqual(expect.arrayContaining(['step_recorded announced a subscription', 'step_recorded subscription: answered']));
    expect(service.sent).toEqual([`${saga.id}-bill-subscription`]);
    expect(service.asked).toBe(0);
  });

  test('returns what was recorded to a later run of the step, and sends nothing', async () => {
    const service = new Service();
    let runs = 0;
    const step = subscribing(service);
    const failingOnce: Step<Ledger> = {
      ...step,
      execute: async (run, ledger) => {
        const outcome = await step.execute(run, ledger);
        runs += 1;
        if (runs === 1) throw new Error('the worker dies');
        return outcome;
      },
    };
    await using engine = await openWith(failingOnce);
    expect((await startAndDrive(engine)).context).toMatchObject({ subscription_id: 1 });
    expect([service.sent.length, service.asked, runs]).toEqual([1, 0, 2]);
  });

  test('leaves the recording to the step, where that is asked for: one write fewer', async () => {
    const service = new Service();
    await using engine = await openWith(subscribing(service, { keep: 'subscription' }));
    const saga = await startAndDrive(engine);
    expect(saga.context['subscription']).toEqual({ id: 1 });
    expect((await engine.events(saga.id)).filter(({ kind }) => kind === 'step_recorded')).toHaveLength(1);
  });

  test('finds what a request without an answer has done, and sends no other', async () => {
    const service = new Service();
    service.loses = 'the answer';
    await using engine = await openWith(subscribing(service));
    expect(await startAndDrive(engine)).toMatchObject({ status: 'completed', context: { subscription_id: 1 } });
    expect(service.sent).toHaveLength(1);
  });

  test('looks until the settle time is over before it sends another', async () => {
    const service = new Service();
    service.loses = 'the request';
    const sentAt: number[] = [];
    const send = async (mark: string) => {
      sentAt.push(performance.now());
      if (sentAt.length === 2) service.loses = 'nothing';
      return service.send(mark);
    };
    await using engine = await openWith(subscribing(service, { send }));
    const startedAt = performance.now();
    const saga = await startAndDrive(engine);
    expect(saga).toMatchObject({ status: 'completed', context: { 'bill.subscription.sends': 2 } });
    expect(new Set(service.sent).size).toBe(1);
    // It counts from the announcement, which came before the first was sent.
    expect((sentAt[1] ?? 0) - startedAt).toBeGreaterThanOrEqual(300);
    expect(service.asked).toBeGreaterThan(2);
  });

  test('gives up after so many requests without an answer', async () => {
    const service = new Service();
    service.loses = 'the request';
    await using engine = await openWith(subscribing(service, { maxSends: 2, settleMs: 30, pollMs: 10 }));
    expect(await startAndDrive(engine)).toMatchObject({
      status: 'compensated',
      error: { code: 'effect_unanswered', message: 'sent 2 requests for subscription without an answer, and found no effect' },
    });
    expect(service.sent).toHaveLength(2);
  });

  test.each([
    ['a failure', () => new StepFailure({ code: 'refused', message: 'no', retryable: true, sent: false })],
    ['a wait', () => new StepWait(waiting(10, 'busy'), { sent: false })],
  ])('takes %s that says nothing was sent at its word: no look, no settle time', async (_what, refusal) => {
    const service = new Service();
    let refusals = 0;
    const send = async (mark: string) => {
      if (refusals === 2) return service.send(mark);
      refusals += 1;
      throw refusal();
    };
    await using engine = await openWith(subscribing(service, { send, settleMs: 60_000 }));
    expect(await startAndDrive(engine)).toMatchObject({ status: 'completed', context: { 'bill.subscription.sends': 3, 'bill.subscription.refusals': 2 } });
    expect(service.asked).toBe(0);
  });

  test('prepares before the announcement: what fails or waits there was never sent', async () => {
    const service = new Service();
    let tries = 0;
    const prepare = async () => {
      tries += 1;
      if (tries < 3) throw new StepWait(waiting(5, 'no room in the budget'));
      return Promise.resolve();
    };
    await using engine = await openWith(subscribing(service, { prepare }));
    expect((await startAndDrive(engine)).context).toMatchObject({ 'bill.subscription.sends': 1 });
    expect(tries).toBe(3);
  });

  test('sends nothing once the claim on the saga is old, takes the announcement back, and sends with the next run', async () => {
    const service = new Service();
    let nowMs = 0;
    let passesMs = 11_000;
    const step = subscribing(service);
    await using engine = await openEngine(catalogOf(step), { toOutcome, monotonicMs: () => (nowMs += passesMs), claimMs: 10_000 });
    const first = await engine.start();
    let verdict = await engine.run(claimOf(first));
    const delays: number[] = [];
    for (let run = 0; run < 5; run += 1) {
      delays.push(jobOf(verdict).delayMs);
      expect(verdict).toMatchObject({ kind: 'next', note: expect.stringMatching(/the claim on saga \S+ is \d+ ms old: the request for subscription was not sent/) });
      verdict = await engine.run(claimOf(jobOf(verdict)));
    }
    const { saga } = await engine.load(first.sagaId);
    expect([saga.status, saga.context['bill.subscription.sends'], saga.context['bill.subscription.refusals']]).toEqual(['running', 6, 6]);
    expect(service.sent).toEqual([]);
    // A database that stays slow is not filled with events.
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000]);
    passesMs = 1;
    await engine.run(claimOf(jobOf(verdict)));
    expect(service.sent).toHaveLength(1);
  });

  test('returns to the first run what a second would see', async () => {
    const seen: unknown[] = [];
    const step = fakeStep('bill', {
      execute: async (run) => {
        seen.push(await run.once('it', { send: async () => Promise.resolve({ at: new Date(0), none: undefined }), find: async () => Promise.resolve(null) }));
        return done();
      },
    });
    await using engine = await openWith(step);
    await startAndDrive(engine);
    expect(seen).toEqual([{ at: '1970-01-01T00:00:00.000Z' }]);
  });

  test('asked for twice in one run, waits for the settle time all the same', async () => {
    const service = new Service();
    service.loses = 'the request';
    const step = subscribing(service, { settleMs: 60_000 });
    const impatient: Step<Ledger> = { ...step, execute: async (run, ledger) => step.execute(run, ledger).catch(async () => step.execute(run, ledger)) };
    await using engine = await openWith(impatient);
    const first = await engine.start();
    const second = jobOf(await engine.run(claimOf(first)));
    // The saga has not changed for longer than the settle time.
    await engine.db.sql`update arcadia.sagas set updated_at = updated_at - interval '1 hour' where id = ${first.sagaId}`;
    const store = createSagaStore(engine.db, { worker: 'test:1', reconcileGraceMs: 1_000 });
    expect(await runJob(claimOf(second), { ...engine.options, store })).toMatchObject({ kind: 'next', note: expect.stringContaining('no answer') });
    expect(service.sent).toHaveLength(1);
  });

  test('brings several effects about at once', async () => {
    const service = new Service();
    let runs = 0;
    const step = fakeStep('bill', {
      execute: async (run) => {
        runs += 1;
        const ids = await Promise.all(['one', 'two', 'three'].map(async (name) => (await run.once(name, { send: async (mark) => service.send(mark), find: async () => service.find() })).id));
        return done({ ids });
      },
    });
    await using engine = await openWith(step);
    expect((await startAndDrive(engine)).context['ids']).toEqual([1, 2, 3]);
    expect([service.sent.length, service.asked]).toEqual([3, 0]);
    // None of its writes fenced another off.
    expect(runs).toBe(1);
  });

  test('refuses the same effect twice at once, and sends it once', async () => {
    const service = new Service();
    const step = fakeStep('bill', {
      execute: async (run) => {
        const it = async () => run.once('it', { send: async (mark) => service.send(mark), find: async () => service.find() });
        return done({ ids: (await Promise.all([it(), it()])).map(({ id }) => id) });
      },
    });
    await using engine = await openEngine(catalogOf(step), { toOutcome: (error) => ({ kind: 'failed', error: { code: 'bad', message: String(error), retryable: false } }) });
    expect((await startAndDrive(engine)).error?.message).toContain('effect "it" of bill: once was called again before the first call ended');
    expect(service.sent.length).toBeLessThanOrEqual(1);
  });

  test('refuses a name that is no name', async () => {
    const step = fakeStep('bill', { execute: async (run) => done({ it: await run.once('Not a name', { send: async () => Promise.resolve(1), find: async () => Promise.resolve(null) }) }) });
    await using engine = await openEngine(catalogOf(step), { toOutcome: (error) => ({ kind: 'failed', error: { code: 'bad', message: String(error), retryable: false } }) });
    expect((await startAndDrive(engine)).error?.message).toContain('effect "Not a name" of bill: expected a name of lower-case letters');
  });
});

/** What a list shows after so many were taken back. */
function shownAfter(cancelled: number) {
  return cancelled < 2 ? { id: 1, state: cancelled === 0 ? 'active' : 'ending' } : { id: 2, state: 'active' };
}

describe('undo', () => {
  const failing = fakeStep('last', { execute: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false })) });

  test('takes back what is recorded', async () => {
    const service = new Service();
    await using engine = await openWith(subscribing(service), failing);
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect(service.cancelled).toEqual([1]);
  });

  test('does nothing where nothing was sent', async () => {
    const service = new Service();
    await using engine = await openWith(subscribing(service, { send: async () => Promise.reject(new StepFailure({ code: 'bad', message: 'bad', retryable: false, sent: false })) }));
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect([service.asked, service.cancelled]).toEqual([0, []]);
  });

  test('looks for what a request without an answer did, as long as it may come to light', async () => {
    const service = new Service();
    const step = subscribing(service);
    let startedAt = 0;
    const cancelledInMid: Step<Ledger> = {
      ...step,
      execute: async (run, ledger) => {
        service.loses = 'the answer';
        startedAt = performance.now();
        try {
          return await step.execute(run, ledger);
        } catch {
          service.loses = 'everything';
          setTimeout(() => (service.loses = 'nothing'), 150);
          throw new StepFailure({ code: 'bad', message: 'bad', retryable: false });
        }
      },
    };
    await using engine = await openWith(cancelledInMid);
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect(performance.now() - startedAt).toBeGreaterThan(140);
    expect(service.cancelled).toEqual([1]);
  });

  test('ends when the settle time is over, and there is nothing', async () => {
    const service = new Service();
    service.loses = 'the request';
    const step = subscribing(service, { maxSends: 1, settleMs: 20, pollMs: 10 });
    await using engine = await openWith(step);
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect(service.cancelled).toEqual([]);
    expect(service.asked).toBeGreaterThan(2);
  });

  test('does not take one effect for two because it looks another way by now', async () => {
    const cancelled: number[] = [];
    const step = fakeStep('bill', {
      execute: async (run) => {
        await run.once('it', { send: async () => Promise.reject(new Error('lost')), find: async () => Promise.resolve(null), settleMs: 1, maxSends: 2 }).catch(() => null);
        if (run.effects('it').sends < 2) return waiting(5, 'again');
        throw new StepFailure({ code: 'bad', message: 'bad', retryable: false });
      },
      compensate: async (run) => {
        // The first is there in another state after it was taken back; the second comes to light late.
        await run.undo<{ id: number; state: string }>('it', { undo: async ({ id }) => void cancelled.push(id), find: async () => Promise.resolve(shownAfter(cancelled.length)), settleMs: 300, pollMs: 10 });
        return done();
      },
    });
    await using engine = await openWith(step);
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect(new Set(cancelled)).toEqual(new Set([1, 2]));
  });

  test('is not misled by a list that still shows what it took back', async () => {
    const cancelled: number[] = [];
    const step = fakeStep('bill', {
      execute: async (run) => {
        await run.once('it', { send: async () => Promise.reject(new Error('lost')), find: async () => Promise.resolve(null), settleMs: 1, maxSends: 2 }).catch(() => null);
        const { sends } = run.effects('it');
        if (sends < 2) return waiting(5, 'again');
        throw new StepFailure({ code: 'bad', message: 'bad', retryable: false });
      },
      compensate: async (run) => {
        // The first is shown although it is gone; the second comes to light later.
        await run.undo<number>('it', { undo: async (id) => void cancelled.push(id), find: async () => Promise.resolve(cancelled.length > 2 ? 2 : 1), settleMs: 200, pollMs: 10 });
        return done();
      },
    });
    await using engine = await openWith(step);
    expect((await startAndDrive(engine)).status).toBe('compensated');
    expect(new Set(cancelled)).toEqual(new Set([1, 2]));
  });
});

test('effects tells a compensation what is known', async () => {
  const states: EffectState<Receipt>[] = [];
  const service = new Service();
  const look = (step: Step<Ledger>): Step<Ledger> => ({
    ...step,
    execute: async (run, ledger) => {
      states.push(run.effects<Receipt>('subscription'));
      const outcome = await step.execute(run, ledger).finally(() => states.push(run.effects<Receipt>('subscription')));
      return outcome;
    },
  });
  service.loses = 'the answer';
  await using engine = await openWith(look(subscribing(service)));
  const first = await engine.start();
  const second = jobOf(await engine.run(claimOf(first)));
  const retried = jobOf(await engine.run(claimOf(second)));
  await engine.run(claimOf(retried));
  const mark = `${first.sagaId}-bill-subscription`;
  expect(states).toMatchObject([
    { state: 'never', value: null, sends: 0, unanswered: 0, mark, ageMs: Number.POSITIVE_INFINITY },
    { state: 'unknown', value: null, sends: 1, unanswered: 1, mark },
    { state: 'unknown', value: null, sends: 1, unanswered: 1, mark },
    { state: 'done', value: { id: 1 }, sends: 1, unanswered: 0, mark },
  ]);
  expect(states[1]?.ageMs).toBeLessThan(10_000);
});
