// Runs one job of a saga: reads the row, runs the step, writes what came of it, and says which job comes next. Knows
// neither BullMQ (a job is its data) nor droplets (a step is its two functions).
import type { KeyRing } from '../platform/key-ring.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import { admit } from './admit.ts';
import type { Catalog } from './definition.ts';
import { findStep } from './definition.ts';
import { describeEvent } from './describe-event.ts';
import type { Direction, NextJob, Saga, SagaEventKind } from './saga.ts';
import { currentStep, directionOf, dropletIdOf, isAtRest, nextJobOf } from './saga.ts';
import type { Step, StepOutcome, StepRun, Memo } from './step.ts';
import { StaleRevisionError, failureOf, waitOf } from './step.ts';
import type { Held } from './holds.ts';
import { effectState, once, undo } from './once.ts';
import type { ClaimedSaga, LoadedSaga } from './loaded.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy, Transition } from './transition.ts';
import { decide, joined } from './transition.ts';

/** What a job says: look at this saga, if it is still at this revision. `step`: what it was made for, by its own word. */
export type JobClaim = Readonly<{ sagaId: string; revision: number; memo: Memo; step?: string | undefined }>;

/** What the queue has to do with the job, after it was run. */
export type Verdict =
  /** Enqueue this job, then complete the current one. */
  | Readonly<{ kind: 'next'; job: NextJob; note: string }>
  /** The same job again, later; nothing was written. */
  | Readonly<{ kind: 'postpone'; delayMs: number; memo: Memo; note: string }>
  /** Complete the job: nothing follows. */
  | Readonly<{ kind: 'complete'; note: string }>;

/**
 * What one run of a step came to. `superseded`: somebody else had moved the saga on; `undecided`: nothing could be
 * decided (Postgres is away, or the step has a bug), and the job is tried again.
 */
export type StepResult = 'completed' | 'waiting' | 'retried' | 'failed' | 'stuck' | 'superseded' | 'undecided';

/** One run of a step, for whoever keeps count of them. */
export type StepReport = Readonly<{
  sagaId: string;
  saga: string;
  step: string;
  direction: Direction;
  attempt: number;
  dropletId: number | null;
  result: StepResult;
  durationMs: number;
}>;

export type RunnerOptions<Deps> = Readonly<{
  store: Pick<SagaStore, 'claim' | 'load' | 'commit'>;
  catalog: Catalog<Deps>;
  deps: Deps;
  policy: RetryPolicy;
  /** Turns an error that a step did not handle into an outcome; null: it is an ordinary failure, to be retried. */
  toOutcome(error: unknown, direction: Direction, memo: Memo): StepOutcome | null;
  /** How old a claim may be at the moment of an effect that can't be repeated, in milliseconds; less than the lock. */
  claimMs: number;
  log: Log;
  /** Told of each run of a step, once it is over. Must not throw. */
  onRun?: (report: StepReport) => void;
  /**
   * Puts down that a saga waits for a circuit to close, so that it is woken then.
   *
   * @returns how long it waits at most, in milliseconds: hardly at all where the circuit is closed by now
   */
  hold?: (held: Held) => Promise<number>;
  /** Seals the user data of sagas that were started by SQL. */
  keyRing?: KeyRing;
  random?: () => number;
  /** Milliseconds of a clock that never jumps; the process's own where left out. */
  monotonicMs?: () => number;
}>;

// A worker of the old version meets a step of the new one during a deploy. Each time, chance says which version takes the
// job next: so there are many chances, and they don't come in step with the other workers' waits.
const UNKNOWN_STEP_DELAY_MS = { min: 500, max: 1_500 };

/**
 * Runs a job.
 *
 * @throws when Postgres cannot be reached: nothing was decided, and the same job has to be run again
 */
export async function runJob<Deps>(job: JobClaim, options: RunnerOptions<Deps>): Promise<Verdict> {
  const askedAt = monotonicMs(options);
  const loaded = await options.store.claim(job);
  if (loaded === null) return { kind: 'complete', note: `there is no saga ${job.sagaId}` };
  if (!loaded.stands) return supersededBy(loaded, job.revision);
  if (isAtRest(loaded.saga.status)) return { kind: 'complete', note: `the saga is ${loaded.saga.status}` };

  const stepName = currentStep(loaded.saga);
  const step = findStep(options.catalog, stepName);
  const needsAdmission = loaded.saga.status === 'pending' && !loaded.inputChecked;
  const isUnknown = needsAdmission && options.catalog[loaded.saga.name] === undefined;
  if (step === undefined || isUnknown) {
    options.log.warn({ sagaId: job.sagaId, step: stepName }, 'step is not known to this version: left for a newer worker');
    const { min, max } = UNKNOWN_STEP_DELAY_MS;
    const delayMs = min + (max - min) * (options.random ?? Math.random)();
    return { kind: 'postpone', delayMs, memo: job.memo, note: `step ${stepName} is not known to this worker` };
  }
  return runStep(step, { ...loaded, memo: { ...loaded.memo, ...job.memo } }, { jobRevision: job.revision, askedAt }, options);
}

async function runStep<Deps>(
  step: Step<Deps>,
  loaded: ClaimedSaga,
  { jobRevision, askedAt }: { jobRevision: number; askedAt: number },
  options: RunnerOptions<Deps>,
): Promise<Verdict> {
  // `start`: what the saga has as its first transition, and the database does not have yet.
  const claim: { saga: Saga; start: Transition | null; now: Date; at: number } = { saga: loaded.saga, start: null, now: loaded.now, at: askedAt - loaded.ageMs };
  const about = { sagaId: claim.saga.id, saga: claim.saga.name, step: step.name, attempt: claim.saga.attempt + 1 };
  // Made when a step logs something: most log nothing, and a child is dear.
  let child: Log | undefined;

  const commit = async (outcome: Outcome): Promise<Transition> => {
    const sentAt = monotonicMs(options);
    const transition = decide(claim.saga, outcome, options.policy, (options.random ?? Math.random)());
    if ('refused' in transition) throw new StaleRevisionError(transition.refused);
    await write(claim.start === null ? transition : joined(claim.start, transition), sentAt);
    return transition;
  };
  const write = async (transition: Transition, sentAt: number) => {
    const result = await options.store.commit(transition);
    if (result === 'fenced') throw new StaleRevisionError(`saga ${claim.saga.id} has moved on from revision ${transition.from}`);
    claim.saga = transition.saga;
    claim.start = null;
    claim.at = sentAt;
  };

  const run: StepRun = {
    get saga() {
      return claim.saga;
    },
    get claim() {
      return { sagaId: claim.saga.id, revision: claim.start?.from ?? claim.saga.revision };
    },
    direction: directionOf(loaded.saga),
    memo: loaded.memo,
    now: loaded.now,
    record: async (note, outputs, stamps = []) => {
      await commit({ kind: 'recorded', note, outputs, stamps });
    },
    assertClaimIsFresh: () => {
      const ageMs = monotonicMs(options) - claim.at;
      if (ageMs > options.claimMs) throw new StaleRevisionError(`the claim on saga ${claim.saga.id} is ${Math.round(ageMs)} ms old`);
    },
    once: (name, effect) => once(run, step.name, name, effect),
    undo: (name, undoing) => undo(run, step.name, name, undoing),
    effects: (name, keys) => effectState(run, step.name, name, keys),
    get log() {
      return (child ??= options.log.child(about));
    },
  };

  let outcome: StepOutcome | null = null;
  let result: StepResult = 'undecided';
  try {
    if (claim.saga.status === 'pending') {
      const start = startOf(loaded, options);
      if (start.kind === 'started' && start.input === undefined && step.recordsFirst === true) claim.start = startUnwritten(claim, options);
      else await commit(start);
      if (start.kind === 'rejected') {
        result = 'failed';
        options.log.warn({ ...about, reason: start.error.message }, 'saga rejected: its input is not what it takes');
        return { kind: 'complete', note: `rejected: ${start.error.message}` };
      }
    }
    outcome = await outcomeOf(step, run, options);
    // A wait without outputs writes nothing of its own.
    if (outcome.kind === 'waiting' && outcome.outputs === undefined && claim.start !== null) await write(claim.start, monotonicMs(options));
    const settled = await settle(outcome, jobRevision, commit, claim, { ...options, about, forwardOnly: step.forwardOnly === true });
    result = settled.result;
    return settled.verdict;
  } catch (error) {
    if (!(error instanceof StaleRevisionError)) throw error;
    options.log.info({ ...about, reason: error.message }, 'superseded: left to whoever moved the saga on');
    result = 'superseded';
    return await giveWay(step, run, outcome, options);
  } finally {
    options.onRun?.(reportOf(step.name, loaded.saga, claim.saga, result, monotonicMs(options) - askedAt));
  }
}

/** The saga goes on as started; the first thing that its step writes tells the database so. */
function startUnwritten<Deps>(claim: { saga: Saga }, { policy }: RunnerOptions<Deps>): Transition {
  const transition = decide(claim.saga, { kind: 'started' }, policy, 0);
  if ('refused' in transition) throw new StaleRevisionError(transition.refused);
  claim.saga = transition.saga;
  return transition;
}

/** Told of the saga as it was before the step, but for the droplet: the step may have made it. */
function reportOf(step: string, before: Saga, after: Saga, result: StepResult, durationMs: number): StepReport {
  return {
    sagaId: before.id,
    saga: before.name,
    step,
    direction: directionOf(before),
    attempt: before.attempt + 1,
    dropletId: dropletIdOf(after),
    result,
    durationMs,
  };
}

/** A saga that was started by SQL is checked by whoever runs it first. */
function startOf<Deps>({ saga, inputChecked }: LoadedSaga, { catalog, keyRing = emptyKeyRing }: Pick<RunnerOptions<Deps>, 'catalog' | 'keyRing'>): Extract<Outcome, { kind: 'started' | 'rejected' }> {
  const definition = catalog[saga.name];
  return inputChecked || definition === undefined ? { kind: 'started' } : admit(definition, saga, keyRing);
}

async function outcomeOf<Deps>(step: Step<Deps>, run: StepRun, options: RunnerOptions<Deps>): Promise<StepOutcome> {
  try {
    return run.direction === 'forward' ? await step.execute(run, options.deps) : await step.compensate(run, options.deps);
  } catch (error) {
    if (error instanceof StaleRevisionError) throw error;
    const thrown = failureOf(error);
    const wait = waitOf(error);
    if (wait !== null) return wait.outcome;
    if (thrown !== null) return { kind: 'failed', error: thrown.failure, ...(thrown.outputs === undefined ? {} : { outputs: thrown.outputs }) };
    const outcome = options.toOutcome(error, run.direction, run.memo);
    if (outcome !== null) return outcome;
    // Not ours to judge: Postgres is away, or the step has a bug. The queue tries the job again, nothing is decided.
    throw error;
  }
}

/** Writes what came of the step, and says what the queue has to do. */
async function settle(
  outcome: StepOutcome,
  jobRevision: number,
  commit: (outcome: Outcome) => Promise<Transition>,
  claim: Readonly<{ saga: Saga; now: Date }>,
  { log, about, forwardOnly, hold }: { log: Log; about: object; forwardOnly: boolean; hold?: RunnerOptions<never>['hold'] },
): Promise<{ verdict: Verdict; result: StepResult }> {
  if (outcome.kind === 'waiting' && (outcome.alarm === true || log.isLevelEnabled('debug'))) {
    const ageMs = claim.now.getTime() - claim.saga.createdAt.getTime();
    log[outcome.alarm === true ? 'error' : 'debug']({ ...about, reason: outcome.reason, delayMs: outcome.delayMs, sagaAgeMs: ageMs }, 'not yet');
  }
  if (outcome.kind === 'waiting' && outcome.outputs === undefined) {
    const delayMs = await holdBack(outcome, claim.saga, hold);
    if (claim.saga.revision === jobRevision) {
      return { verdict: { kind: 'postpone', delayMs, memo: outcome.memo ?? {}, note: outcome.reason }, result: 'waiting' };
    }
    return { verdict: next(nextJobOf(claim.saga, delayMs), outcome.reason), result: 'waiting' };
  }
  const transition = await commit(toTransitionOutcome(outcome, forwardOnly));
  if (outcome.kind === 'waiting' && outcome.heldBy !== undefined) {
    return { verdict: next(nextJobOf(claim.saga, await holdBack(outcome, claim.saga, hold)), describeEvent(transition.event)), result: 'waiting' };
  }
  const { event, saga } = transition;
  const level = event.kind === 'step_completed' && transition.next !== null ? 'debug' : (levels[event.kind] ?? 'info');
  if (log.isLevelEnabled(level)) log[level]({ ...about, event: event.kind, detail: event.detail, revision: saga.revision }, event.kind.replaceAll('_', ' '));
  return { verdict: next(transition.next, describeEvent(event)), result: results[event.kind] ?? 'waiting' };
}

// What is routine is told by the timeline; the log tells what ends a saga, and what goes wrong. `error`: a person is needed.
// `warn`: something failed and is being handled.
const levels: Partial<Record<SagaEventKind, 'warn' | 'error'>> = {
  step_stuck: 'error',
  compensation_stuck: 'error',
  step_failed: 'warn',
  step_retried: 'warn',
  compensation_retried: 'warn',
};

/** How long it waits: one that is held, until it is woken, or for so long at most. */
async function holdBack({ heldBy, delayMs }: Extract<StepOutcome, { kind: 'waiting' }>, saga: Saga, hold: RunnerOptions<never>['hold']): Promise<number> {
  if (heldBy === undefined || hold === undefined) return delayMs;
  return hold({ sagaId: saga.id, revision: saga.revision, circuit: heldBy, delayMs });
}

// Of what is written down, only a postponement tells of no end.
const results: Partial<Record<SagaEventKind, StepResult>> = {
  step_completed: 'completed',
  compensation_completed: 'completed',
  step_retried: 'retried',
  compensation_retried: 'retried',
  step_failed: 'failed',
  step_stuck: 'stuck',
  compensation_stuck: 'stuck',
};

function toTransitionOutcome(outcome: StepOutcome, forwardOnly: boolean): Outcome {
  if (outcome.kind === 'failed') return forwardOnly ? { ...outcome, forwardOnly } : outcome;
  if (outcome.kind === 'done') return outcome;
  return { kind: 'postponed', delayMs: outcome.delayMs, reason: outcome.reason, outputs: outcome.outputs ?? {} };
}

/** Somebody else has the saga now. What this run did without being able to record it is taken back, if need be. */
async function giveWay<Deps>(
  step: Step<Deps>,
  run: StepRun,
  outcome: StepOutcome | null,
  options: RunnerOptions<Deps>,
): Promise<Verdict> {
  const current = await options.store.load(run.saga.id);
  if (outcome?.kind === 'done' && run.direction === 'forward' && step.superseded !== undefined) {
    // A row that is gone (deleted by hand, lost by Postgres) has nobody to go on with it: as if it had been rolled back.
    const saga: Saga = current?.saga ?? { ...run.saga, status: 'compensated' };
    await step.superseded({ ...run, saga }, outcome.outputs, options.deps);
  }
  if (current === null) return { kind: 'complete', note: 'the saga is gone' };
  return supersededBy(current, run.saga.revision);
}

/** The job is late. Make sure that the one which is due now exists: whoever moved the saga may have died before enqueueing it. */
function supersededBy(current: LoadedSaga, revision: number): Verdict {
  const note = `revision ${revision} is past: the saga is at ${current.saga.revision}, ${current.saga.status}`;
  return next(nextJobOf(current.saga, current.dueInMs), note);
}

function next(job: NextJob | null, note: string): Verdict {
  return job === null ? { kind: 'complete', note } : { kind: 'next', job, note };
}

function monotonicMs(options: Pick<RunnerOptions<never>, 'monotonicMs'>): number {
  return (options.monotonicMs ?? (() => performance.now()))();
}
