import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { currentStep, directionOf, isAtRest, sagaStatuses } from '../../src/saga/saga.ts';
import type { Saga, SagaEventKind, SagaStatus } from '../../src/saga/saga.ts';
import type { Outcome, RetryPolicy, Transition } from '../../src/saga/transition.ts';
import { decide } from '../../src/saga/transition.ts';
import { makeSaga } from '../support/engine.ts';

const policy: RetryPolicy = { stepAttempts: 3, stepBackoffMs: 1_000, compensationAttempts: 4 };

function apply(saga: Saga, outcome: Outcome, using: RetryPolicy = policy, random = 0.5): Transition {
  const decision = decide(saga, outcome, using, random);
  if ('refused' in decision) throw new Error(`refused: ${decision.refused}`);
  return decision;
}

const outcomes = {
  started: { kind: 'started' },
  rejected: { kind: 'rejected', error: { code: 'invalid_request', message: 'name: expected a host name', retryable: false } },
  recorded: { kind: 'recorded', note: 'about to', outputs: { intent: 1 }, stamps: ['intent_at'] },
  postponed: { kind: 'postponed', delayMs: 700, reason: 'not yet', outputs: { seen: 1 } },
  done: { kind: 'done', outputs: { made: 1 } },
  failedRetryable: { kind: 'failed', error: { code: 'busy', message: 'try again', retryable: true } },
  failedFatal: { kind: 'failed', error: { code: 'bad', message: 'never', retryable: false } },
  cancel: { kind: 'cancel_requested', by: 'ann' },
  retry: { kind: 'retry_requested', by: 'ann' },
} as const satisfies Record<string, Outcome>;

type Row = readonly [keyof typeof outcomes, SagaStatus, 'refused' | readonly [SagaStatus, number, number, SagaEventKind, number | null]];

// A saga of three steps at its second, after one failed attempt. Each row: what happens, to a saga of which status, and
// what it is then: status, cursor, attempt, the event, and the next job's delay (null: no job).
const rows: readonly Row[] = [
  ['started', 'pending', ['running', 1, 1, 'saga_started', 0]],
  ['started', 'running', 'refused'],
  ['started', 'compensating', 'refused'],
  ['started', 'completed', 'refused'],
  ['started', 'compensated', 'refused'],
  ['started', 'stuck', 'refused'],
  ['rejected', 'pending', ['compensated', 1, 1, 'saga_rejected', null]],
  ['rejected', 'running', 'refused'],
  ['rejected', 'compensating', 'refused'],
  ['rejected', 'completed', 'refused'],
  ['rejected', 'compensated', 'refused'],
  ['rejected', 'stuck', 'refused'],
  ['recorded', 'pending', 'refused'],
  ['recorded', 'running', ['running', 1, 1, 'step_recorded', 0]],
  ['recorded', 'compensating', ['compensating', 1, 1, 'compensation_recorded', 0]],
  ['recorded', 'completed', 'refused'],
  ['recorded', 'compensated', 'refused'],
  ['recorded', 'stuck', 'refused'],
  ['postponed', 'pending', 'refused'],
  ['postponed', 'running', ['running', 1, 1, 'step_postponed', 700]],
  ['postponed', 'compensating', ['compensating', 1, 1, 'compensation_postponed', 700]],
  ['postponed', 'completed', 'refused'],
  ['postponed', 'compensated', 'refused'],
  ['postponed', 'stuck', 'refused'],
  ['done', 'pending', 'refused'],
  ['done', 'running', ['running', 2, 0, 'step_completed', 0]],
  ['done', 'compensating', ['compensating', 0, 0, 'compensation_completed', 0]],
  ['done', 'completed', 'refused'],
  ['done', 'compensated', 'refused'],
  ['done', 'stuck', 'refused'],
  ['failedRetryable', 'pending', 'refused'],
  ['failedRetryable', 'running', ['running', 1, 2, 'step_retried', 1_000]],
  ['failedRetryable', 'compensating', ['compensating', 1, 2, 'compensation_retried', 1_000]],
  ['failedRetryable', 'completed', 'refused'],
  ['failedRetryable', 'compensated', 'refused'],
  ['failedRetryable', 'stuck', 'refused'],
  ['failedFatal', 'pending', 'refused'],
  ['failedFatal', 'running', ['compensating', 1, 0, 'step_failed', 0]],
  ['failedFatal', 'compensating', ['stuck', 1, 2, 'compensation_stuck', null]],
  ['failedFatal', 'completed', 'refused'],
  ['failedFatal', 'compensated', 'refused'],
  ['failedFatal', 'stuck', 'refused'],
  ['cancel', 'pending', ['compensated', 1, 1, 'cancel_requested', null]],
  ['cancel', 'running', ['compensating', 1, 0, 'cancel_requested', 0]],
  ['cancel', 'compensating', 'refused'],
  ['cancel', 'completed', 'refused'],
  ['cancel', 'compensated', 'refused'],
  ['cancel', 'stuck', 'refused'],
  ['retry', 'pending', 'refused'],
  ['retry', 'running', 'refused'],
  ['retry', 'compensating', 'refused'],
  ['retry', 'completed', 'refused'],
  ['retry', 'compensated', 'refused'],
  ['retry', 'stuck', ['compensating', 1, 0, 'retry_requested', 0]],
];

describe('decide, for every outcome and status', () => {
  test('the table below leaves nothing out', () => {
    const all = Object.keys(outcomes).flatMap((outcome) => sagaStatuses.map((status) => `${outcome} ${status}`));
    expect(new Set(rows.map(([outcome, status]) => `${outcome} ${status}`))).toEqual(new Set(all));
  });

  test.each(rows)('%s to a %s saga: %j', (outcome, status, expected) => {
    const decision = decide(makeSaga({ status, cursor: 1, attempt: 1, revision: 7 }), outcomes[outcome], policy, 0.5);
    const found =
      'refused' in decision
        ? 'refused'
        : [decision.saga.status, decision.saga.cursor, decision.saga.attempt, decision.event.kind, decision.next?.delayMs ?? null];
    expect(found).toEqual(expected);
  });
});

describe('decide', () => {
  test('completes the saga with its last step, and leaves nothing to do', () => {
    const { saga, next } = apply(makeSaga({ status: 'running', cursor: 2 }), outcomes.done);
    expect(saga).toMatchObject({ status: 'completed', cursor: 2, error: null });
    expect(next).toBeNull();
  });

  test('has compensated the saga with its first step, and leaves nothing to do', () => {
    const { saga, next } = apply(makeSaga({ status: 'compensating', cursor: 0 }), outcomes.done);
    expect(saga.status).toBe('compensated');
    expect(next).toBeNull();
  });

  test('compensates the failed step itself first', () => {
    const { next } = apply(makeSaga({ status: 'running', cursor: 1 }), outcomes.failedFatal);
    expect(next).toMatchObject({ direction: 'backward', step: 'two', position: 2, of: 3, delayMs: 0 });
  });

  test('gives a step as many attempts as the policy says, then fails it', () => {
    let saga = makeSaga({ status: 'running' });
    const kinds: SagaEventKind[] = [];
    while (saga.status === 'running') {
      const transition = apply(saga, outcomes.failedRetryable);
      kinds.push(transition.event.kind);
      expect(transition.event.attempt).toBe(kinds.length);
      saga = transition.saga;
    }
    expect(kinds).toEqual(['step_retried', 'step_retried', 'step_failed']);
    expect(saga.error).toEqual({ code: 'busy', message: 'try again', step: 'one', retryable: true });
  });

  test('is stuck when a compensation runs out of attempts, and keeps why the saga was rolled back', () => {
    const error = { code: 'bad', message: 'never', step: 'three', retryable: false };
    let saga = makeSaga({ status: 'compensating', error });
    const kinds: SagaEventKind[] = [];
    while (saga.status === 'compensating') {
      const transition = apply(saga, outcomes.failedRetryable);
      kinds.push(transition.event.kind);
      saga = transition.saga;
    }
    expect(kinds).toEqual(['compensation_retried', 'compensation_retried', 'compensation_retried', 'compensation_stuck']);
    expect(saga).toMatchObject({ status: 'stuck', error });
  });

  test('keeps what a failed step put out, so that its compensation knows', () => {
    const failed: Outcome = { kind: 'failed', error: { code: 'bad', message: 'no', retryable: false }, outputs: { half: 7 } };
    expect(apply(makeSaga({ status: 'running' }), failed)).toMatchObject({ patch: { half: 7 }, saga: { context: { half: 7 } } });
  });

  test('hands the stamps on to the store, without a time of its own', () => {
    expect(apply(makeSaga({ status: 'running' }), outcomes.recorded)).toMatchObject({ stamps: ['intent_at'], patch: { intent: 1 } });
  });

  test.each([
    ['the next step begins', 'running', outcomes.done, true],
    ['the direction turns', 'running', outcomes.failedFatal, true],
    ['the saga is cancelled', 'running', outcomes.cancel, true],
    ['a stuck compensation is resumed', 'stuck', outcomes.retry, true],
    ['a step is retried', 'running', outcomes.failedRetryable, false],
    ['a step records', 'running', outcomes.recorded, false],
    ['a step is postponed', 'running', outcomes.postponed, false],
  ] as const)('when %s (%s), the clock of the step starts anew or goes on', (_when, status, outcome, expected) => {
    expect(apply(makeSaga({ status, cursor: 1 }), outcome).stepChanged).toBe(expected);
  });

  test.each([
    [undefined, 'cancelled by ann'],
    ['too dear', 'cancelled by ann: too dear'],
  ])('says who cancelled, and why (%j)', (reason, message) => {
    const outcome: Outcome = reason === undefined ? outcomes.cancel : { ...outcomes.cancel, reason };
    const { saga, event } = apply(makeSaga({ status: 'running', cursor: 1 }), outcome);
    expect(saga.error).toEqual({ code: 'cancelled', message, step: 'two', retryable: false });
    expect(event.detail).toMatchObject({ by: 'ann', ...(reason === undefined ? {} : { reason }) });
  });

  test('says that a completed saga cannot be cancelled', () => {
    expect(decide(makeSaga({ status: 'completed' }), outcomes.cancel, policy, 0)).toEqual({ refused: 'the saga is already completed' });
  });
});

const key = fc.constantFrom('a', 'b', 'c', 'droplet_id');
const outputs = fc.dictionary(key, fc.oneof(fc.integer(), fc.string()), { maxKeys: 2 });
const failure = (retryable: boolean) => ({ code: 'fake', message: 'failed', retryable });
const ending: fc.Arbitrary<Outcome> = fc.oneof(
  { weight: 4, arbitrary: outputs.map((outputs) => ({ kind: 'done' as const, outputs })) },
  { weight: 3, arbitrary: outputs.map((outputs) => ({ kind: 'failed' as const, error: failure(true), outputs })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'failed' as const, error: failure(false) }) },
);
const anything: fc.Arbitrary<Outcome> = fc.oneof(
  { weight: 8, arbitrary: ending },
  { weight: 1, arbitrary: fc.constant({ kind: 'started' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'rejected' as const, error: failure(false) }) },
  { weight: 2, arbitrary: outputs.map((outputs) => ({ kind: 'recorded' as const, note: 'noted', outputs })) },
  { weight: 2, arbitrary: fc.nat(10_000).map((delayMs) => ({ kind: 'postponed' as const, delayMs, reason: 'wait', outputs: {} })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'cancel_requested' as const, by: 'ann' }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'retry_requested' as const, by: 'ann' }) },
);

const story = fc.record({
  steps: fc.integer({ min: 1, max: 5 }).map((count) => Array.from({ length: count }, (_, index) => `step_${index + 1}`)),
  policy: fc.record({
    stepAttempts: fc.integer({ min: 1, max: 4 }),
    stepBackoffMs: fc.integer({ min: 1, max: 100_000 }),
    compensationAttempts: fc.integer({ min: 1, max: 4 }),
  }),
  begin: fc.boolean(),
  early: fc.array(anything, { maxLength: 60 }),
  late: fc.infiniteStream(ending),
  random: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
});

type Told = { from: Saga; outcome: Outcome; transition: Transition };
type Story = { first: Saga; told: Told[]; refusals: { from: Saga; outcome: Outcome }[]; last: Saga; endings: number };

/** Plays a story: anything at all for a while, then steps that end one way or the other, until the saga is at rest. */
function play(given: { steps: string[]; policy: RetryPolicy; begin: boolean; early: Outcome[]; late: Iterable<Outcome>; random: number }): Story {
  const first = makeSaga({ steps: given.steps });
  const played: Story = { first, told: [], refusals: [], last: first, endings: 0 };
  const tell = (outcome: Outcome): void => {
    const from = deepFreeze(played.last);
    const decision = decide(from, outcome, given.policy, given.random);
    if ('refused' in decision) {
      played.refusals.push({ from, outcome });
      return;
    }
    played.told.push({ from, outcome, transition: decision });
    if (outcome.kind === 'done' || outcome.kind === 'failed') played.endings += 1;
    played.last = decision.saga;
  };
  if (given.begin) tell({ kind: 'started' });
  for (const outcome of given.early) tell(outcome);
  if (played.last.status === 'pending') tell({ kind: 'started' });
  for (const outcome of given.late) {
    // A saga that goes round in circles would be told for ever.
    if (isAtRest(played.last.status) || played.told.length > 1_000) break;
    tell(outcome);
  }
  return played;
}

function deepFreeze(saga: Saga): Saga {
  Object.freeze(saga.context);
  Object.freeze(saga.steps);
  return Object.freeze(saga);
}

function checkStories(check: (played: Story, using: RetryPolicy) => void): void {
  fc.assert(fc.property(story, (given) => check(play(given), given.policy)), { numRuns: 500 });
}

test('an input that was checked just now takes the place of the one before; else it stays', () => {
  const pending = makeSaga({ input: { name: 'web' } });
  expect(apply(pending, { kind: 'started', input: { name: 'web', size: 'small' } })).toMatchObject({
    input: { name: 'web', size: 'small' },
    saga: { status: 'running', input: { name: 'web', size: 'small' } },
  });
  expect(apply(pending, { kind: 'started' })).toMatchObject({ input: null, saga: { input: { name: 'web' } } });
});

describe('decide, through whole stories', () => {
  test('every saga comes to rest, in as many ended runs of steps as the policy allows at most', () => {
    checkStories(({ first, told, last, endings }, using) => {
      const resumed = told.filter(({ transition }) => transition.event.kind === 'retry_requested').length;
      const most = first.steps.length * (using.stepAttempts + using.compensationAttempts * (1 + resumed));
      expect(['completed', 'compensated', 'stuck']).toContain(last.status);
      expect(endings).toBeLessThanOrEqual(most);
    });
  });

  test('revisions are gapless, and an event bears the revision that it led to', () => {
    checkStories(({ told }) => {
      expect(told.map(({ transition }) => transition.from)).toEqual(told.map((_, index) => index));
      expect(told.map(({ transition }) => transition.saga.revision)).toEqual(told.map((_, index) => index + 1));
      expect(told.map(({ transition }) => transition.event.seq)).toEqual(told.map((_, index) => index + 1));
    });
  });

  test('there is a next job exactly as long as the saga is not at rest, and it agrees with the row', () => {
    checkStories(({ told }) => {
      for (const { from, transition } of told) {
        const { saga, next, event } = transition;
        expect(event.step).toBe(currentStep(from));
        expect(next === null).toBe(isAtRest(saga.status));
        if (next === null) continue;
        expect(next).toEqual({
          sagaId: saga.id,
          revision: saga.revision,
          direction: saga.status === 'compensating' ? 'backward' : 'forward',
          step: saga.steps[saga.cursor],
          position: saga.cursor + 1,
          of: saga.steps.length,
          attempt: saga.attempt + 1,
          saga: { name: saga.name, input: saga.input, context: saga.context },
          traceparent: null,
          delayMs: expect.any(Number),
        });
        expect(next.delayMs).toBeGreaterThanOrEqual(0);
      }
    });
  });

  test('a saga that failed at once, or may be retried, never comes back at once', () => {
    checkStories(({ told }) => {
      const retried = told.filter(({ transition }) => transition.event.kind.endsWith('_retried'));
      for (const { transition } of retried) {
        expect(transition.next?.delayMs).toBeGreaterThanOrEqual(100);
        expect(transition.next?.delayMs).toBeLessThanOrEqual(60_000);
      }
    });
  });

  test('compensations run in exactly the reverse order of the steps, from the one that was current when it turned', () => {
    checkStories(({ first, told, last }) => {
      const turn = told.find(({ from, transition }) => from.status === 'running' && transition.saga.status === 'compensating');
      const undone = told.filter(({ transition }) => transition.event.kind === 'compensation_completed').map(({ from }) => currentStep(from));
      const expected = turn === undefined ? [] : first.steps.slice(0, turn.from.cursor + 1).toReversed();
      expect(undone).toEqual(last.status === 'compensated' ? expected : expected.slice(0, undone.length));
    });
  });

  test('steps run in order, each once it is its turn, and a completed saga ran them all and compensated nothing', () => {
    checkStories(({ first, told, last }) => {
      const ran = told.filter(({ transition }) => transition.event.kind === 'step_completed').map(({ from }) => currentStep(from));
      expect(ran).toEqual(first.steps.slice(0, ran.length));
      const turned = told.some(({ transition }) => transition.saga.status === 'compensating');
      expect(last.status === 'completed').toBe(ran.length === first.steps.length);
      expect(last.status === 'completed' && turned).toBe(false);
    });
  });

  test('attempts never exceed the policy, and start from nothing with each step and each direction', () => {
    checkStories(({ told }, using) => {
      for (const { from, outcome, transition } of told) {
        const { saga, event } = transition;
        const most = saga.status === 'compensating' || saga.status === 'stuck' ? using.compensationAttempts : using.stepAttempts;
        expect(saga.attempt).toBeLessThanOrEqual(most);
        const isOfStep = outcome.kind === 'done' || outcome.kind === 'failed';
        expect(isOfStep ? event.attempt : 0).toBeLessThanOrEqual(from.status === 'running' ? using.stepAttempts : using.compensationAttempts);
        const isElsewhere = saga.cursor !== from.cursor || (directionOf(saga) !== directionOf(from) && saga.status === 'compensating');
        expect(isElsewhere && saga.attempt !== 0).toBe(false);
      }
    });
  });

  test('waiting and recording use no attempt', () => {
    checkStories(({ told }) => {
      const patient = told.filter(({ outcome }) => outcome.kind === 'postponed' || outcome.kind === 'recorded');
      expect(patient.filter(({ from, transition }) => transition.saga.attempt !== from.attempt)).toEqual([]);
    });
  });

  test('the context grows by the patches and by nothing else', () => {
    checkStories(({ told, last }) => {
      for (const { from, outcome, transition } of told) {
        expect(transition.patch).toEqual('outputs' in outcome ? (outcome.outputs ?? {}) : {});
        expect(transition.saga.context).toEqual({ ...from.context, ...transition.patch });
      }
      expect(last.context).toEqual(Object.assign({}, ...told.map(({ transition }) => transition.patch)));
    });
  });

  test('whatever never changes stays as it was', () => {
    checkStories(({ first, last }) => {
      const { id, saga8, name, steps, input, idempotencyKey, requestedBy, createdAt } = first;
      expect(last).toMatchObject({ id, saga8, name, steps, input, idempotencyKey, requestedBy, createdAt });
    });
  });

  test('an error stands on the row exactly when the saga was turned back', () => {
    checkStories(({ told }) => {
      for (const { transition } of told) {
        const isBackward = ['compensating', 'compensated', 'stuck'].includes(transition.saga.status);
        expect(transition.saga.error !== null).toBe(isBackward);
      }
    });
  });

  test('a saga at rest refuses everything, but for the retry of a stuck one', () => {
    fc.assert(
      fc.property(story, anything, (given, outcome) => {
        const { last } = play(given);
        const isResumed = last.status === 'stuck' && outcome.kind === 'retry_requested';
        expect('refused' in decide(last, outcome, given.policy, 0)).toBe(!isResumed);
      }),
      { numRuns: 500 },
    );
  });

  test('decides the same for the same arguments, and changes none of them', () => {
    fc.assert(
      fc.property(story, (given) => {
        const { told } = play(given);
        for (const { from, outcome, transition } of told) {
          expect(decide(from, outcome, given.policy, given.random)).toEqual(transition);
        }
      }),
    );
  });
});
