// A worker's claim on a saga while it runs one of the saga's steps. It tracks the saga through each transition that this
// run writes, and builds the step's view of the run.
import type { JsonObject } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import type { EffectsOfRun } from './effects-of-rollback.ts';
import { withEffectsUndone } from './effects-of-rollback.ts';
import type { ClaimedSaga } from './loaded.ts';
import { effectState, once, undo } from './once.ts';
import type { OpenedSecrets } from './open-secret.ts';
import { secretFor } from './open-secret.ts';
import type { Saga } from './saga.ts';
import { directionOf } from './saga.ts';
import type { Step, StepRun } from './step.ts';
import { StaleRevisionError } from './step.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy, Transition } from './transition.ts';
import { decide, joined } from './transition.ts';

export type HeldClaim = Readonly<{
  /** The saga after the transitions that this run has written. */
  saga(): Saga;
  /** The revision in the database. It is lower than the saga's while the start is not yet written. */
  revision(): number;
  /** Milliseconds since the claim was last proven. */
  ageMs(): number;
  /**
   * Decides the transition for an outcome and writes it.
   *
   * @throws {StaleRevisionError} if another writer has moved the saga on
   */
  commit(outcome: Outcome): Promise<Transition>;
  /** Continues as if the saga had started. The next write includes the start. */
  startUnwritten(): void;
  /** Writes a start that no other write has included. */
  writeStart(): Promise<void>;
}>;

type ClaimOptions = Readonly<{ store: Pick<SagaStore, 'commit'>; policy: RetryPolicy; random?: () => number; monotonicMs?: () => number }>;

/**
 * Opens the claim of one run.
 *
 * @param askedAt when the saga was requested from the database, in milliseconds of the monotonic clock
 */
export function openClaim(loaded: ClaimedSaga, askedAt: number, { store, policy, random = Math.random, monotonicMs = () => performance.now() }: ClaimOptions): HeldClaim {
  let { saga } = loaded;
  let provenAt = askedAt - loaded.ageMs;
  // The saga's first transition, while the database does not have it yet.
  let start: Transition | null = null;

  const decided = (outcome: Outcome, dice: number): Transition => {
    const transition = decide(saga, outcome, policy, dice);
    if ('refused' in transition) throw new StaleRevisionError(transition.refused);
    return transition;
  };
  // A step may issue several writes at once. Each starts from the result of the one before.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work, work);
    last = mine;
    return mine;
  };
  const write = async (transition: Transition, sentAt: number) => {
    const result = await store.commit(transition);
    if (result === 'fenced') throw new StaleRevisionError(`saga ${saga.id} has moved on from revision ${transition.from}`);
    ({ saga } = transition);
    start = null;
    provenAt = sentAt;
  };
  return {
    saga: () => saga,
    revision: () => start?.from ?? saga.revision,
    ageMs: () => monotonicMs() - provenAt,
    commit: (outcome) =>
      inTurn(async () => {
        const sentAt = monotonicMs();
        const transition = decided(outcome, random());
        await write(start === null ? transition : joined(start, transition), sentAt);
        return transition;
      }),
    startUnwritten: () => {
      start = decided({ kind: 'started' }, 0);
      ({ saga } = start);
    },
    writeStart: () =>
      inTurn(async () => {
        if (start !== null) await write(start, monotonicMs());
      }),
  };
}

/** Builds the step's view of the run. */
export function stepRunOf(
  step: Pick<Step<never>, 'name'>,
  { saga, memo, now }: ClaimedSaga,
  claim: HeldClaim,
  { log, about, claimMs, secrets, effects, contextOf }: { log: Log; about: object; claimMs: number; secrets: OpenedSecrets; effects: EffectsOfRun; contextOf: (saga: Saga) => JsonObject },
): StepRun {
  // Created on the first log call: most steps log nothing, and a child logger is expensive.
  let child: Log | undefined;
  let context: JsonObject | undefined;
  const direction = directionOf(saga);
  const run: StepRun = {
    get saga() {
      return claim.saga();
    },
    get context() {
      return (context ??= contextOf(claim.saga()));
    },
    get claim() {
      return { sagaId: saga.id, revision: claim.revision() };
    },
    direction,
    memo,
    now,
    record: async (note, outputs, stamps = []) => {
      const recorded = direction === 'backward' ? withEffectsUndone(outputs, step.name, claim.saga().context, effects) : outputs;
      await claim.commit({ kind: 'recorded', note: secrets.hide(note), outputs: recorded, stamps });
    },
    assertClaimIsFresh: () => {
      const ageMs = claim.ageMs();
      if (ageMs > claimMs) throw new StaleRevisionError(`the claim on saga ${saga.id} is ${Math.round(ageMs)} ms old`);
    },
    once: (name, effect) => once(run, step.name, name, effect),
    undo: async (name, undoing) => {
      effects.asked.add(name);
      const existed = await undo(run, step.name, name, undoing);
      effects.undone.add(name);
      return existed;
    },
    effects: (name, keys) => {
      effects.asked.add(name);
      return effectState(run, step.name, name, keys);
    },
    secret: (field) => secretFor(run, field, secrets.open),
    get log() {
      return (child ??= log.child(about));
    },
  };
  return run;
}
