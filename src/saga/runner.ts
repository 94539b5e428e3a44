// Runs one job of a saga: reads the row, runs the step, writes what came of it, and says which job comes next. Knows
// neither BullMQ (a job is its data) nor what steps do (a step is its two functions).
import type { KeyRing } from '../platform/key-ring.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import { admit } from './admit.ts';
import type { HeldClaim } from './claim.ts';
import { openClaim, stepRunOf } from './claim.ts';
import { wrongOutputs } from './context.ts';
import type { Catalog } from './definition.ts';
import { findStep } from './definition.ts';
import type { Failure } from './failure.ts';
import type { Labels } from './labels.ts';
import { labelsOf } from './labels.ts';
import type { Direction, Saga } from './saga.ts';
import { currentStep, directionOf, isAtRest } from './saga.ts';
import type { StepResult } from './settle.ts';
import { settle } from './settle.ts';
import type { Step, StepOutcome, StepRun, Memo } from './step.ts';
import { StaleRevisionError, failureOf, waitOf } from './step.ts';
import type { Held } from './holds.ts';
import type { OpenSecret } from './open-secret.ts';
import { rememberSecrets } from './open-secret.ts';
import type { ClaimedSaga, LoadedSaga } from './loaded.ts';
import { resourceOf, resourceWaitMs } from './resource.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy } from './transition.ts';
import type { JobClaim, Verdict } from './verdict.ts';
import { supersededBy } from './verdict.ts';

/** One run of a step, for whoever keeps count of them. */
export type StepReport = Readonly<{
  sagaId: string;
  saga: string;
  step: string;
  direction: Direction;
  attempt: number;
  labels: Labels;
  result: StepResult;
  durationMs: number;
}>;

export type RunnerOptions<Deps> = Readonly<{
  store: Pick<SagaStore, 'claim' | 'load' | 'commit' | 'hold'>;
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
  /** Seals the secrets of sagas that were started by SQL. */
  keyRing?: KeyRing;
  /** Opens the secrets that steps ask for; without it, none can. */
  openSecret?: OpenSecret;
  random?: () => number;
  /** Milliseconds of a clock that never jumps; the process's own where left out. */
  monotonicMs?: () => number;
}>;

// A worker of the old version meets a step of the new one during a deploy. Each time, chance says which version takes the
// job next: so there are many chances, and they don't come in step with the other workers' waits.
const UNKNOWN_STEP_DELAY_MS = { min: 500, max: 1_500 };

// A saga that this worker does not know is left to others for some thirty seconds: only who knows it knows its resource.
const TIMES_LEFT_TO_OTHERS = 30;

/**
 * Runs a job: claims its saga, sees whether it is due here, and runs the step that is.
 *
 * @throws when Postgres cannot be reached: nothing was decided, and the same job has to be run again
 */
export async function runJob<Deps>(job: JobClaim, options: RunnerOptions<Deps>): Promise<Verdict> {
  const askedAt = monotonicMs(options);
  const loaded = await options.store.claim(job);
  if (loaded === null) return { kind: 'complete', note: `there is no saga ${job.sagaId}` };
  if (!loaded.stands) return supersededBy(loaded, job.revision);
  if (isAtRest(loaded.saga.status)) return { kind: 'complete', note: `the saga is ${loaded.saga.status}` };
  const step = knownStep(loaded, job, options);
  if (step === null) return leaveToOthers(loaded.saga, job, options);
  const held = await holdResource(loaded, job, options);
  if (held.kind !== 'held') return held.verdict;
  // What counts the waits for others is no business of the step's, be it of the job or saved by the reconciler.
  const { resource_looks: _, left_to_others: __, ...memo } = { ...loaded.memo, ...job.memo };
  return runStep(step, { ...held.loaded, memo }, { jobRevision: job.revision, askedAt, problem: held.problem }, options);
}

/**
 * The step that is due; null where others are to run it: this version of the program does not know it, or the saga. Of a saga that
 * nobody seems to know any more, a step that is known is run all the same: what it is called is what it does.
 */
function knownStep<Deps>({ saga, inputChecked }: ClaimedSaga, { memo }: JobClaim, { catalog }: RunnerOptions<Deps>): Step<Deps> | null {
  const needsAdmission = saga.status === 'pending' && !inputChecked;
  const isKnown = catalog[saga.name] !== undefined;
  if (!isKnown && (needsAdmission || (memo['left_to_others'] ?? 0) < TIMES_LEFT_TO_OTHERS)) return null;
  return findStep(catalog, currentStep(saga)) ?? null;
}

function leaveToOthers<Deps>(saga: Saga, { memo }: JobClaim, options: RunnerOptions<Deps>): Verdict {
  const step = currentStep(saga);
  const isStep = findStep(options.catalog, step) === undefined;
  const what = isStep ? `step ${step}` : `saga ${saga.name}`;
  options.log.warn({ sagaId: saga.id, step }, isStep ? 'step is not known to this version: left for a newer worker' : 'saga is not known to this version: left for a newer worker');
  const { min, max } = UNKNOWN_STEP_DELAY_MS;
  const left = (memo['left_to_others'] ?? 0) + 1;
  return { kind: 'postpone', delayMs: min + (max - min) * randomOf(options), memo: { ...memo, left_to_others: left }, note: `${what} is not known to this worker` };
}

/** Holds the saga's resource, where it has one; another saga that has it is waited for. */
async function holdResource<Deps>(loaded: ClaimedSaga, job: JobClaim, options: RunnerOptions<Deps>): Promise<{ kind: 'held'; loaded: ClaimedSaga; problem: Failure | null } | { kind: 'not held'; verdict: Verdict }> {
  const { saga } = loaded;
  let resource: string | null;
  try {
    resource = resourceOf(options.catalog[saga.name], loaded);
  } catch (error) {
    const message = `resource of saga ${saga.name}: ${error instanceof Error ? error.message : String(error)}`;
    options.log.error({ sagaId: saga.id, reason: message }, 'a definition does not say what its saga works on');
    // A rollback goes on with what it has: it must not hang on a definition.
    return { kind: 'held', loaded, problem: directionOf(saga) === 'backward' ? null : { code: 'resource_wrong', message, retryable: false } };
  }
  if (resource === null || resource === saga.resource) return { kind: 'held', loaded, problem: null };
  const holding = await options.store.hold({ sagaId: saga.id, revision: saga.revision }, resource);
  if (holding.kind === 'held') return { kind: 'held', loaded: { ...loaded, saga: { ...saga, resource, waitsFor: null } }, problem: null };
  if (holding.kind === 'fenced') {
    const current = await options.store.load(saga.id);
    return { kind: 'not held', verdict: current === null ? { kind: 'complete', note: 'the saga is gone' } : supersededBy(current, saga.revision) };
  }
  const looks = (job.memo['resource_looks'] ?? 0) + 1;
  const note = `waits for ${holding.holder === null ? 'another saga' : `saga ${holding.holder}`}: one saga at a time for ${resource}`;
  return { kind: 'not held', verdict: { kind: 'postpone', delayMs: resourceWaitMs(looks, randomOf(options)), memo: { ...job.memo, resource_looks: looks }, note } };
}

/** Runs a step, from the start of its saga, where that is due, to what is written of its end. */
async function runStep<Deps>(step: Step<Deps>, loaded: ClaimedSaga, { jobRevision, askedAt, problem }: { jobRevision: number; askedAt: number; problem: Failure | null }, options: RunnerOptions<Deps>): Promise<Verdict> {
  const claim = openClaim(loaded, askedAt, options);
  const about = { sagaId: loaded.saga.id, saga: loaded.saga.name, step: step.name, attempt: loaded.saga.attempt + 1 };
  const secrets = rememberSecrets(options.openSecret);
  const run = stepRunOf(step, loaded, claim, { log: options.log, about, claimMs: options.claimMs, secrets });
  let outcome: StepOutcome | null = null;
  let result: StepResult = 'undecided';
  try {
    const rejected = await startIfPending(step, loaded, claim, options);
    if (rejected !== null) {
      result = 'failed';
      options.log.warn({ ...about, reason: rejected.message }, 'saga rejected: its input is not what it takes');
      return { kind: 'complete', note: `rejected: ${rejected.message}` };
    }
    outcome = secrets.hideIn(problem === null ? await outcomeOf(step, run, options) : { kind: 'failed', error: problem });
    const settled = await settle(outcome, jobRevision, claim, { ...options, about, now: loaded.now, forwardOnly: step.forwardOnly === true });
    result = settled.result;
    return settled.verdict;
  } catch (error) {
    if (!(error instanceof StaleRevisionError)) throw error;
    options.log.info({ ...about, reason: error.message }, 'superseded: left to whoever moved the saga on');
    result = 'superseded';
    return await giveWay(step, run, outcome, options);
  } finally {
    options.onRun?.(reportOf(step.name, loaded.saga, labelsOf(options.catalog)(claim.saga()), result, monotonicMs(options) - askedAt));
  }
}

/**
 * Starts a pending saga: at once, or together with what its step writes first.
 *
 * @returns why it was rejected instead; null where it was not
 */
async function startIfPending<Deps>(step: Step<Deps>, loaded: ClaimedSaga, claim: HeldClaim, options: RunnerOptions<Deps>): Promise<Failure | null> {
  if (loaded.saga.status !== 'pending') return null;
  const start = startOf(loaded, options);
  if (start.kind === 'started' && start.input === undefined && step.recordsFirst === true) claim.startUnwritten();
  else await claim.commit(start);
  return start.kind === 'rejected' ? start.error : null;
}

/** Told of the saga as it was before the step, but for the labels: the step may have made what they tell of. */
function reportOf(step: string, before: Saga, labels: Labels, result: StepResult, durationMs: number): StepReport {
  return {
    sagaId: before.id,
    saga: before.name,
    step,
    direction: directionOf(before),
    attempt: before.attempt + 1,
    labels,
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
    if (run.direction === 'backward') return await step.compensate(run, options.deps);
    const outcome = await step.execute(run, options.deps);
    const wrong = outcome.kind === 'done' ? wrongOutputs(step, outcome.outputs) : null;
    return wrong === null ? outcome : { kind: 'failed', error: { code: 'outputs_wrong', message: wrong, retryable: false } };
  } catch (error) {
    if (error instanceof StaleRevisionError) throw error;
    const wait = waitOf(error);
    if (wait !== null) return wait.outcome;
    const thrown = failureOf(error);
    if (thrown !== null) return { kind: 'failed', error: thrown.failure, ...(thrown.outputs === undefined ? {} : { outputs: thrown.outputs }) };
    const outcome = options.toOutcome(error, run.direction, run.memo);
    if (outcome !== null) return outcome;
    // Not ours to judge: Postgres is away, or the step has a bug. The queue tries the job again, nothing is decided.
    throw error;
  }
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

function randomOf(options: Pick<RunnerOptions<never>, 'random'>): number {
  return (options.random ?? Math.random)();
}

function monotonicMs(options: Pick<RunnerOptions<never>, 'monotonicMs'>): number {
  return (options.monotonicMs ?? (() => performance.now()))();
}
