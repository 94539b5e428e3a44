// Runs one job of a saga: reads the row, runs the step, writes the outcome, and returns the next job. It depends neither
// on BullMQ (a job is its data) nor on what steps do (a step is its two functions).
import type { KeyRing } from '../platform/key-ring.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import type { JsonObject } from '../platform/json.ts';
import { isUnstorableJson } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { textOfThrown } from '../platform/thrown.ts';
import { admit } from './admit.ts';
import type { HeldClaim } from './claim.ts';
import { openClaim, stepRunOf } from './claim.ts';
import { NEEDS_UNMET, addedOutputs, contextOf, lacksByVersion } from './context.ts';
import type { Catalog } from './definition.ts';
import { findStep } from './definition.ts';
import type { EffectsOfRun } from './effects-of-rollback.ts';
import { effectsLeft, withEffectsLeft, withEffectsUndone } from './effects-of-rollback.ts';
import type { Failure } from './failure.ts';
import { TIMES_LEFT_TO_OTHERS, leftForMs } from './left-to-others.ts';
import type { Labels } from './labels.ts';
import { labelsOf } from './labels.ts';
import type { Direction, Saga } from './saga.ts';
import { currentStep, directionOf, isAtRest } from './saga.ts';
import type { StepResult } from './settle.ts';
import { settle } from './settle.ts';
import type { Step, StepOutcome, StepRun, Memo } from './step.ts';
import { StaleRevisionError, StepWait, failureOf, waitOf, waiting } from './step.ts';
import { checkedOutcome } from './step-outcome.ts';
import type { Held } from './holds.ts';
import type { OpenSecret } from './open-secret.ts';
import { rememberSecrets } from './open-secret.ts';
import type { ClaimedSaga } from './loaded.ts';
import { resourceOf, resourceWaitMs } from './resource.ts';
import { secretsOf } from './secrets.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy } from './transition.ts';
import type { JobClaim, Verdict } from './verdict.ts';
import { supersededBy } from './verdict.ts';
import { mayBeForOthers, withWrittenSecrets } from './written-definitions.ts';

/** A report on one run of a step. */
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
  /** Converts an error that a step did not handle into an outcome; null: an ordinary failure, to be retried. */
  toOutcome(error: unknown, direction: Direction, memo: Memo): StepOutcome | null;
  /** The maximum age of a claim at the moment of an unrepeatable effect, in milliseconds; less than the lock. */
  claimMs: number;
  log: Log;
  /** Called after each run of a step. Must not throw. */
  onRun?: (report: StepReport) => void;
  /**
   * Records that a saga waits for a circuit to close, so that it is woken then.
   *
   * @returns the longest wait, in milliseconds; very short if the circuit has closed by now
   */
  hold?: (held: Held) => Promise<number>;
  /** Seals the secrets of sagas that were started by SQL. */
  keyRing?: KeyRing;
  /** Opens secrets for steps. Without it, steps cannot open any. */
  openSecret?: OpenSecret;
  random?: () => number;
  /** A monotonic clock in milliseconds; default: the process's own. */
  monotonicMs?: () => number;
}>;


/**
 * Runs a job: claims its saga, decides whether this worker runs it now, and runs the current step.
 *
 * @throws if Postgres is unreachable: nothing was decided, and the same job must be run again
 */
export async function runJob<Deps>(job: JobClaim, options: RunnerOptions<Deps>): Promise<Verdict> {
  const askedAt = monotonicMs(options);
  const loaded = await options.store.claim(job);
  if (loaded === null) return { kind: 'complete', note: `saga ${job.sagaId} not found` };
  if (!loaded.stands) return supersededBy(loaded, job.revision);
  if (isAtRest(loaded.saga.status)) return { kind: 'complete', note: `the saga is ${loaded.saga.status}` };
  const step = knownStep(loaded, job, options);
  if (typeof step === 'string') return leaveToOthers(step, loaded.saga, job, options);
  const held = await holdResource(loaded, job, options);
  if (held.kind !== 'held') return held.verdict;
  // The counters of waits for others do not concern the step, whether they come from the job or were saved by the
  // reconciler.
  const { resource_looks: _, left_to_others: __, [NEEDS_UNMET]: ___, ...memo } = { ...loaded.memo, ...job.memo };
  return runStep(step, { ...held.loaded, memo }, { jobRevision: job.revision, askedAt, problem: held.problem }, options);
}

/** Why a saga is left to other workers: this version does not know its step or the saga, or may not be the one that it is meant for. */
type Left = 'step' | 'saga' | 'definition';

/**
 * Returns the current step, or why other workers should run it. If apparently no worker knows the saga any more, a known step runs
 * anyway: its name determines what it does. If none takes a request for another version, this one decides over it.
 */
function knownStep<Deps>({ saga, inputChecked, written }: ClaimedSaga, { memo }: JobClaim, { catalog }: RunnerOptions<Deps>): Step<Deps> | Left {
  const step = findStep(catalog, currentStep(saga));
  if (step === undefined) return 'step';
  const definition = catalog[saga.name];
  const needsAdmission = saga.status === 'pending' && !inputChecked;
  const mayLeave = (memo['left_to_others'] ?? 0) < TIMES_LEFT_TO_OTHERS;
  if (definition === undefined) return needsAdmission || mayLeave ? 'saga' : step;
  return needsAdmission && mayLeave && mayBeForOthers(definition, written ?? null) ? 'definition' : step;
}

function leaveToOthers<Deps>(why: Left, saga: Saga, { memo }: JobClaim, options: RunnerOptions<Deps>): Verdict {
  const step = currentStep(saga);
  const { message, note } = {
    step: { message: 'step is unknown to this version: left to a newer worker', note: `step ${step} is not known to this worker` },
    saga: { message: 'saga is unknown to this version: left to a newer worker', note: `saga ${saga.name} is not known to this worker` },
    definition: { message: 'the definition of this version is not the one that `arcadia migrate` wrote: left to a newer worker', note: `saga ${saga.name} was started for another version than that of this worker` },
  }[why];
  options.log.warn({ sagaId: saga.id, saga: saga.name, step }, message);
  const left = (memo['left_to_others'] ?? 0) + 1;
  return { kind: 'postpone', delayMs: leftForMs(randomOf(options)), memo: { ...memo, left_to_others: left }, note };
}

/**
 * Takes the saga's resource, if it has one and does not hold it yet. Waits if another saga holds it. A saga that holds one keeps it
 * and waits for none, whatever a newer definition says: so no two sagas wait for each other.
 */
async function holdResource<Deps>(loaded: ClaimedSaga, job: JobClaim, options: RunnerOptions<Deps>): Promise<{ kind: 'held'; loaded: ClaimedSaga; problem: Failure | null } | { kind: 'not held'; verdict: Verdict }> {
  const { saga } = loaded;
  const { resource, problem } = resourceNow(loaded, options);
  // A version that let the resource change may have left a saga that holds one and waits for another.
  if (problem !== null || resource === null || (resource === saga.resource && saga.waitsFor === null)) return { kind: 'held', loaded, problem };
  const holding = await options.store.hold({ sagaId: saga.id, revision: saga.revision }, resource);
  if (holding.kind === 'held') return { kind: 'held', loaded: { ...loaded, saga: { ...saga, resource: holding.resource, waitsFor: null } }, problem: null };
  if (holding.kind === 'fenced') {
    const current = await options.store.load(saga.id);
    return { kind: 'not held', verdict: current === null ? { kind: 'complete', note: 'the saga no longer exists' } : supersededBy(current, saga.revision) };
  }
  const looks = (job.memo['resource_looks'] ?? 0) + 1;
  const note = `waiting for ${holding.holder === null ? 'another saga' : `saga ${holding.holder}`}, which is using ${holding.resource}`;
  return { kind: 'not held', verdict: { kind: 'postpone', delayMs: resourceWaitMs(looks, randomOf(options)), memo: { ...job.memo, resource_looks: looks }, note } };
}

/** The resource that a saga holds, else the one that its definition says. */
function resourceNow<Deps>(loaded: ClaimedSaga, { catalog, log }: Pick<RunnerOptions<Deps>, 'catalog' | 'log'>): { resource: string | null; problem: Failure | null } {
  const { saga } = loaded;
  try {
    const resource = resourceOf(catalog[saga.name], loaded);
    if (saga.resource === null) return { resource, problem: null };
    if (resource !== null && resource !== saga.resource) log.error({ sagaId: saga.id, held: saga.resource, resource }, 'the resource of a saga changed: it keeps the one that it holds');
  } catch (error) {
    const message = `resource of saga ${saga.name}: ${textOfThrown(error)}`;
    log.error({ sagaId: saga.id, reason: message }, 'a definition does not say what its saga works on');
    // A rollback continues with what it has. It must not depend on a definition.
    if (saga.resource === null && directionOf(saga) === 'forward') return { resource: null, problem: { code: 'resource_wrong', message, retryable: false } };
  }
  return { resource: saga.resource, problem: null };
}

/** Runs a step, from the start of its saga (if due) to writing the outcome. */
async function runStep<Deps>(step: Step<Deps>, loaded: ClaimedSaga, { jobRevision, askedAt, problem }: { jobRevision: number; askedAt: number; problem: Failure | null }, options: RunnerOptions<Deps>): Promise<Verdict> {
  const claim = openClaim(loaded, askedAt, options);
  const about = { sagaId: loaded.saga.id, saga: loaded.saga.name, step: step.name, attempt: loaded.saga.attempt + 1 };
  const secrets = rememberSecrets(openerFor(loaded.saga, options));
  const effects: EffectsOfRun = { asked: new Set(), undone: new Set() };
  const run = stepRunOf(step, loaded, claim, { log: options.log, about, claimMs: options.claimMs, secrets, effects, contextOf: (saga) => readContext(step, saga, loaded.memo, options) });
  let outcome: StepOutcome | null = null;
  let result: StepResult = 'undecided';
  try {
    const rejected = await startIfPending(step, loaded, claim, options);
    if (rejected !== null) {
      result = 'failed';
      options.log.warn({ ...about, reason: rejected.message }, 'saga rejected: invalid input');
      return { kind: 'complete', note: `rejected: ${rejected.message}` };
    }
    outcome = secrets.hideIn(problem === null ? await outcomeOf(step, run, effects, options) : { kind: 'failed', error: problem });
    const settling = { ...options, about, now: loaded.now, forwardOnly: step.forwardOnly === true };
    const settled = await settle(outcome, jobRevision, claim, settling).catch(async (error: unknown) => {
      if (!isUnstorableJson(error)) throw error;
      // The same outcome would be refused again.
      return settle({ kind: 'failed', error: { code: 'outcome_wrong', message: `Postgres cannot store what step ${step.name} put out: ${textOfThrown(error)}`, retryable: false } }, jobRevision, claim, settling);
    });
    result = settled.result;
    return settled.verdict;
  } catch (error) {
    if (!(error instanceof StaleRevisionError)) throw error;
    options.log.info({ ...about, reason: error.message }, 'superseded: another worker moved the saga on');
    result = 'superseded';
    return await giveWay(step, run, outcome, options);
  } finally {
    options.onRun?.(reportOf(step.name, loaded.saga, labelsOf(options.catalog)(claim.saga()), result, monotonicMs(options) - askedAt));
  }
}

/**
 * Reads the context of a step.
 *
 * @throws {StepWait} if another version started the saga and its workers may have what it needs: rolling it back would undo work
 *   that they can go on with
 */
function readContext<Deps>(step: Step<Deps>, saga: Saga, memo: Memo, options: RunnerOptions<Deps>): JsonObject {
  try {
    return contextOf(step, saga);
  } catch (error) {
    if (!lacksByVersion(step, saga, options.catalog[saga.name])) throw error;
    const reason = `${failureOf(error)?.failure.message ?? textOfThrown(error)}; another version started the saga: left to its workers`;
    options.log.warn({ sagaId: saga.id, saga: saga.name, step: step.name, reason }, 'the saga lacks what this version of the step needs: left to a worker of another version');
    throw new StepWait(waiting(leftForMs(randomOf(options)), reason, { memo: { ...memo, [NEEDS_UNMET]: 1 } }));
  }
}

/** A field that the definition does not declare as a secret is stored in plain text. Probably `secrets` misspells its name. */
function openerFor<Deps>(saga: Saga, { openSecret, catalog, log }: RunnerOptions<Deps>): OpenSecret | undefined {
  const definition = catalog[saga.name];
  if (openSecret === undefined || definition === undefined) return openSecret;
  return async (claim, field) => {
    if (!secretsOf(definition).includes(field)) log.error({ sagaId: saga.id, saga: saga.name, step: currentStep(saga), field }, 'a step opened a field that the saga does not declare in `secrets`: it is stored in plain text');
    return openSecret(claim, field);
  };
}

/**
 * Starts a pending saga: at once, or together with the first write of its step.
 *
 * @returns why it was rejected instead; null if it was not
 */
async function startIfPending<Deps>(step: Step<Deps>, loaded: ClaimedSaga, claim: HeldClaim, options: RunnerOptions<Deps>): Promise<Failure | null> {
  if (loaded.saga.status !== 'pending') return null;
  const start = startOf(loaded, options);
  if (start.kind === 'started' && start.input === undefined && step.recordsFirst === true) claim.startUnwritten();
  else await claim.commit(start);
  return start.kind === 'rejected' ? start.error : null;
}

/** Describes the saga as it was before the step, except for the labels: the step may have created what they show. */
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

/** The worker that runs a saga started by SQL first also validates it. */
function startOf<Deps>({ saga, inputChecked, written }: ClaimedSaga, { catalog, keyRing = emptyKeyRing }: Pick<RunnerOptions<Deps>, 'catalog' | 'keyRing'>): Extract<Outcome, { kind: 'started' | 'rejected' }> {
  const definition = catalog[saga.name];
  return inputChecked || definition === undefined ? { kind: 'started' } : admit(withWrittenSecrets(definition, written ?? null), saga, keyRing, written?.secrets ?? []);
}

async function outcomeOf<Deps>(step: Step<Deps>, run: StepRun, effects: EffectsOfRun, options: RunnerOptions<Deps>): Promise<StepOutcome> {
  const outcome = await outcomeOfStep(step, run, options);
  if (run.direction === 'forward') return outcome;
  const { context } = run.saga;
  if (outcome.kind !== 'done') return outcome.outputs === undefined ? outcome : { ...outcome, outputs: withEffectsUndone(outcome.outputs, step.name, context, effects) };
  const left = effectsLeft(step.name, context, effects);
  if (left.length > 0) run.log.warn({ effects: left }, 'a compensation did not ask for effects that its step has recorded: they may still exist');
  return withEffectsLeft(outcome, step.name, left);
}

async function outcomeOfStep<Deps>(step: Step<Deps>, run: StepRun, options: RunnerOptions<Deps>): Promise<StepOutcome> {
  const of = { step: step.name, direction: run.direction };
  try {
    if (run.direction === 'backward') return checkedOutcome(await step.compensate(run, options.deps), of);
    const outcome = checkedOutcome(await step.execute(run, options.deps), of);
    if (outcome.kind !== 'done') return outcome;
    const { outputs, wrong } = addedOutputs(step, outcome.outputs);
    return wrong === null ? { ...outcome, outputs } : { kind: 'failed', error: { code: 'outputs_wrong', message: wrong, retryable: false } };
  } catch (error) {
    if (error instanceof StaleRevisionError) throw error;
    const outcome = outcomeOfThrown(error, run, options);
    // Not decided here: Postgres is unreachable. The queue retries the job.
    if (outcome === null) throw error;
    return checkedOutcome(outcome, of);
  }
}

function outcomeOfThrown<Deps>(error: unknown, { direction, memo }: StepRun, { toOutcome }: RunnerOptions<Deps>): StepOutcome | null {
  try {
    const wait = waitOf(error);
    if (wait !== null) return wait.outcome;
    const thrown = failureOf(error);
    if (thrown !== null) return { kind: 'failed', error: thrown.failure, ...(thrown.outputs === undefined ? {} : { outputs: thrown.outputs }) };
    return toOutcome(error, direction, memo);
  } catch {
    // Even to look at it throws.
    return { kind: 'failed', error: { code: 'unexpected', message: textOfThrown(error), retryable: true } };
  }
}

/** Another worker has the saga now. Undoes what this run did but could not record, if necessary. */
async function giveWay<Deps>(
  step: Step<Deps>,
  run: StepRun,
  outcome: StepOutcome | null,
  options: RunnerOptions<Deps>,
): Promise<Verdict> {
  const current = await options.store.load(run.saga.id);
  if (outcome?.outputs !== undefined && run.direction === 'forward' && step.superseded !== undefined) {
    // No worker can continue with a missing row (deleted by hand, lost by Postgres). Treat it as rolled back.
    const saga: Saga = current?.saga ?? { ...run.saga, status: 'compensated' };
    await step.superseded({ ...run, saga }, outcome.outputs, options.deps);
  }
  if (current === null) return { kind: 'complete', note: 'the saga no longer exists' };
  return supersededBy(current, run.saga.revision);
}

function randomOf(options: Pick<RunnerOptions<never>, 'random'>): number {
  return (options.random ?? Math.random)();
}

function monotonicMs(options: Pick<RunnerOptions<never>, 'monotonicMs'>): number {
  return (options.monotonicMs ?? (() => performance.now()))();
}
