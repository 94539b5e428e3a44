// The step that makes the droplet. DigitalOcean's create has no idempotency key, so it goes out through `once`: announced in
// Postgres before it is sent, and followed by a look for a droplet with the saga's tag before another is sent.
import type { z } from 'zod';
import type { CreateDropletRequest, Droplet } from '../do/schemas.ts';
import { DigitalOceanError } from '../do/errors.ts';
import { recordedDropletId } from '../inventory/droplet-of-saga.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Reservation } from '../do/reservations.ts';
import type { Failure } from '../saga/failure.ts';
import type { Saga } from '../saga/saga.ts';
import type { Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, StepWait, done, waiting } from '../saga/step.ts';
import type { StepDeps, StepSettings } from './deps.ts';
import { dropletFamily } from './family.ts';
import { forRollback } from './deps.ts';
import type { DestroyResult, Waiting } from './destroy-and-confirm.ts';
import { deleteAndLook, destroyAndConfirm, soonerOf } from './destroy-and-confirm.ts';
import { describe, failed, toStepOutcome } from './failures.ts';
import { storedProvisionInput } from './inputs.ts';
import { createKeys, creates } from './intents.ts';
import { findDropletsOfSaga, isTaken } from './lookup.ts';
import { NO_LEASE_POLICY, leaseOf } from './lease.ts';
import type { NamedIds } from './named.ts';
import { resolveNames } from './named.ts';
import { provisionDropletOutputs, provisionDropletRemains } from './outputs.ts';
import { planCreate, prepareUserData } from './ready-callback.ts';
import { describeUnproven } from './rolled-back.ts';
import { waiterOf } from './waiter.ts';
import { contradiction, olderThanSaga, otherOwner, tagsOf, waveOf } from './ownership.ts';

// A droplet that bears our name, but no tag yet, keeps us from asking for another: so many grace periods long.
const UNDECIDED_GRACES = 10;

const adds = provisionDropletOutputs.pick({ droplet_id: true });
type Made = z.infer<typeof adds>;

const carriedOutBy: Readonly<Record<string, string>> = { ready: 'wait_droplet_ready', lease: 'register_droplet', protected: 'register_droplet', project: 'register_droplet' };

export const createDroplet: Step<StepDeps, JsonObject, Made> = {
  name: 'create_droplet',
  family: dropletFamily,
  adds,
  remains: provisionDropletRemains,
  words: { doing: 'creating the droplet', provider: 'DigitalOcean', remains: describeUnproven },
  recordsFirst: true,
  carriedOutBy,

  async execute(run, deps) {
    const recorded = recordedDropletId(run.saga);
    if (recorded !== null) return done({ droplet_id: recorded });
    requireSteps(run.saga);

    const { settings } = deps;
    let result: StepOutcome<Made> | null = null;
    // Once a create was announced, the lease has begun.
    const lease = creates(run).sends === 0 ? leaseOf(run.saga, settings.lease ?? NO_LEASE_POLICY) : null;
    const { wave, number, announces } = planCreate(run);
    await run.once('droplet', {
      keys: createKeys,
      recordsWithStep: true,
      announcement: 'announced a create',
      // The lease counts from here: also where this worker dies right after.
      announces: { ...announces, ...(lease === null ? {} : { lease }) },
      settleMs: settings.adoptionGraceMs,
      pollMs: settings.pollIntervalMs,
      maxSends: settings.maxCreates,
      notYet: 'a create got no answer: looking for its droplet before sending another',
      giveUp: unanswered,
      // Before the create is announced: one that waits for its turn, or is held, was never sent.
      prepare: async () => {
        const named = await resolveNames(run, deps);
        const userData = await prepareUserData(run, deps, { secret: await run.secret('user_data'), number });
        const request = requestOf(run.saga, named, userData, wave);
        return { request, reserved: await deps.digitalOcean.for(waiterOf(run.saga)).reserveCreate(request) };
      },
      // The droplet is found by its tags: the API takes no mark.
      send: async (_mark, { request, reserved }) => {
        const { droplet, actionId } = await create(request, reserved, run, deps);
        result = done({ droplet_id: droplet.id, droplet_origin: 'created', droplet_wave: wave, create_action_id: actionId }, `created droplet ${droplet.id}`);
        return droplet.id;
      },
      find: async (_mark, { ageMs }) => {
        const { adoptable, undecided } = await findDropletsOfSaga(run, deps);
        const [droplet, ...duplicates] = adoptable;
        if (droplet === undefined) return waitForTags(undecided, ageMs, settings);
        result = adopt(droplet, duplicates, run);
        return droplet.id;
      },
    });
    if (result === null) throw new Error('a droplet was neither created nor adopted');
    return result;
  },

  async compensate(run, stepDeps) {
    const deps = forRollback(stepDeps);
    const recorded = recordedDropletId(run.saga);
    const { sends, unanswered: open, ageMs } = creates(run);
    if (sends === 0 && recorded === null) {
      // It may still wait for its turn: those behind it move up.
      await deps.digitalOcean.withdraw(waiterOf(run.saga));
      return done({}, 'no create was ever sent');
    }

    const notes: string[] = [];
    // A GET, and a DELETE, of a droplet that was accepted a moment ago may say 404: that is no proof of its absence yet.
    let isSettled = true;
    let leftAlone: LeftAlone | null = null;
    let pending: Waiting | null = null;
    if (recorded !== null) {
      const end = await destroyUnlessForeign(recorded, run, deps);
      if (typeof end === 'string') notes.push(`droplet ${recorded} ${end}`);
      else if (end.kind === 'waiting') pending = end;
      else leftAlone = end;
      isSettled = end === 'destroyed';
    }
    let graceMs = deps.settings.adoptionGraceMs;
    let unproven: number[] = [];
    if (open > 0 || run.saga.context['create_duplicates'] !== undefined || leftAlone !== null) {
      const { proven, adoptable, undecided } = await findDropletsOfSaga(run, deps);
      const others = proven.filter((droplet) => droplet.id !== recorded);
      let destroyed = 0;
      for (const droplet of others) {
        const end = await destroyAndConfirm(droplet.id, run, deps);
        if (typeof end === 'object') pending = soonerOf(pending, end);
        else notes.push(`droplet ${droplet.id} ${end}`);
        if (end === 'destroyed') destroyed += 1;
      }
      isSettled &&= destroyed >= Math.max(open, others.length);
      // Its full id may still come; without it, nobody may delete it.
      unproven = [...adoptable.filter((droplet) => !proven.includes(droplet)), ...undecided].map(({ id }) => id).filter((id) => id !== recorded);
      if (unproven.length > 0) graceMs *= UNDECIDED_GRACES;
    }
    if (pending !== null) return pending;
    const settlesInMs = graceMs - ageMs;
    if (!isSettled && settlesInMs > 0) {
      return waiting(Math.min(deps.settings.pollIntervalMs, settlesInMs), 'a create has no known outcome yet: looking for its droplet');
    }
    if (leftAlone !== null) notes.push(`droplet ${recorded} left alone: ${leftAlone.why}`);
    if (leftAlone?.isUnproven === true && recorded !== null) unproven = [recorded, ...unproven];
    if (unproven.length > 0) {
      run.log.error({ dropletIds: unproven }, 'rolled back, but droplets that may belong to this saga remain: check them, and destroy them by hand if they do');
      notes.push(`droplet ${unproven.join(', ')} may belong to this saga, but does not carry its full id: left alone. Check it, and destroy it by hand if it does`);
      return done({ unproven_droplets: unproven }, notes.join(', '));
    }
    return done({}, notes.length === 0 ? 'DigitalOcean has no droplet of this saga' : notes.join(', '));
  },

  async superseded(run, outputs, deps) {
    const made = outputs['droplet_id'];
    if (outputs['droplet_origin'] !== 'created' || typeof made !== 'number') return;
    const recorded = recordedDropletId(run.saga);
    if (recorded === made) return;
    // Nobody has a droplet on record yet: whoever runs this step next finds this one by its tag and adopts it.
    if (recorded === null && run.saga.status === 'running') return;
    run.log.warn({ dropletId: made }, 'destroying the droplet just made: the saga went on without it');
    // Nobody comes back for it: this cannot wait for its turn.
    const digitalOcean = deps.digitalOcean.at('now');
    const droplet = await digitalOcean.getDroplet(made);
    const contradicted = droplet === null ? null : otherOwner(droplet, run.saga);
    if (contradicted === null) await deleteAndLook(made, digitalOcean);
    else run.log.error({ dropletId: made, contradicted }, 'the droplet just made is not this saga\'s any more: left alone');
  },
};

/** `isUnproven`: nobody else's either, so a person has to look. */
type LeftAlone = Readonly<{ kind: 'left alone'; why: string; isUnproven: boolean }>;

/** An id alone is a note of a while ago, in a row that every role with sagas may write: DigitalOcean has the last word. */
async function destroyUnlessForeign(dropletId: number, run: StepRun, deps: StepDeps): Promise<DestroyResult | LeftAlone> {
  const droplet = await deps.digitalOcean.getDroplet(dropletId);
  const leftAlone = droplet === null ? null : await speaksAgainst(droplet, run, deps);
  if (leftAlone === null) return destroyAndConfirm(dropletId, run, deps, droplet);
  run.log.error({ dropletId, contradicted: leftAlone.why }, 'droplet on record is not this saga\'s: left alone');
  return leftAlone;
}

/** What speaks against the droplet on record being this saga's now; null: nothing. Its name and tags are for people to change. */
async function speaksAgainst(droplet: Droplet, run: StepRun, deps: StepDeps): Promise<LeftAlone | null> {
  const owner = otherOwner(droplet, run.saga) ?? ((await isTaken(droplet, run.saga, deps)) ? 'another saga registered it' : null);
  if (owner !== null) return { kind: 'left alone', why: owner, isUnproven: false };
  const older = olderThanSaga(droplet, run.saga);
  return older === null ? null : { kind: 'left alone', why: older, isUnproven: true };
}

/**
 * Droplets that bear the saga's name, and no tag yet, may become its own: as long as they may, no other is asked for.
 *
 * @throws {StepWait} while their tags may come; {StepFailure} `droplet_unproven` when they never came
 */
function waitForTags(undecided: readonly Droplet[], ageMs: number, { adoptionGraceMs, pollIntervalMs }: StepSettings): null {
  if (undecided.length === 0) return null;
  const ids = undecided.map(({ id }) => id).join(', ');
  const leftMs = adoptionGraceMs * UNDECIDED_GRACES - ageMs;
  if (leftMs > 0) throw new StepWait(waiting(Math.min(pollIntervalMs, leftMs), `droplet ${ids} has this saga's name but no tags yet: waiting for its tags`));
  throw new StepFailure({
    code: 'droplet_unproven',
    message: `droplet ${ids} may belong to this saga: it has the saga's name, but never got a tag. Check it, and destroy it by hand if it does`,
    retryable: false,
  });
}

function adopt(droplet: Droplet, duplicates: readonly Droplet[], run: StepRun): StepOutcome<Made> {
  run.log.info({ dropletId: droplet.id, duplicates: duplicates.map(({ id }) => id) }, 'adopted a droplet');
  return done(
    {
      droplet_id: droplet.id,
      droplet_origin: 'adopted',
      droplet_wave: waveOf(droplet),
      ...(duplicates.length === 0 ? {} : { create_duplicates: duplicates.map(({ id }) => id) }),
    },
    `adopted droplet ${droplet.id}, created by an earlier request`,
  );
}

/**
 * Sends a create.
 *
 * @throws {StepFailure} {StepWait} with `sent: false` where it made nothing; {StepFailure} `digitalocean_ambiguous`
 */
async function create(request: CreateDropletRequest, reserved: Reservation, run: StepRun, { digitalOcean }: StepDeps) {
  try {
    const made = await digitalOcean.createDroplet(request, reserved);
    const contradicted = contradiction(made.droplet, run.saga);
    if (contradicted === null) return made;
    throw ambiguous(`DigitalOcean answered with droplet ${made.droplet.id}, which is not this saga's: ${contradicted}`);
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    if (error.kind === 'ambiguous') throw ambiguous(describe(error));
    // Nothing stands yet, so there is nothing to be patient for: the caller learns soon that DigitalOcean is out of reach.
    // Trouble of this worker's own machine says nothing about DigitalOcean, and another worker may have none.
    const outcome = error.kind === 'later' && !isLocalTrouble(error) ? failed(error, true) : toStepOutcome(error, run.direction, run.memo);
    if (outcome?.kind === 'waiting') throw new StepWait(outcome, { sent: false });
    if (outcome?.kind === 'failed') throw new StepFailure({ ...outcome.error, sent: false });
    throw error;
  }
}

function ambiguous(what: string): StepFailure {
  return new StepFailure({ code: 'digitalocean_ambiguous', message: `${what}; the create may have made a droplet`, retryable: true });
}

function unanswered(creates: number): Failure {
  return {
    code: 'create_unanswered',
    message: `sent ${creates} creates to DigitalOcean without an answer, and found no droplet`,
    retryable: false,
  };
}

/**
 * What was asked for must be carried out: a saga of another app may lack the step, and so may one that SQL started before the
 * database was migrated, or that an older version started.
 *
 * @throws {StepFailure} `ready_without_step`, `input_without_step`: nothing was created
 */
function requireSteps({ input, steps }: Saga): void {
  const missing = Object.entries(carriedOutBy).find(([field, by]) => (input[field] ?? false) !== false && !steps.includes(by));
  if (missing === undefined) return;
  const [field, by] = missing;
  const isReady = field === 'ready';
  throw new StepFailure({ code: isReady ? 'ready_without_step' : 'input_without_step', message: `the input has \`${field}\`, but this saga has no step ${by}, so nothing was created`, retryable: false });
}

/** Without the fields that are ours. */
function requestOf(saga: Saga, { sshKeys }: NamedIds, userData: string | undefined, wave: string): CreateDropletRequest {
  const { protected: _protected, project: _project, lease: _lease, ready: _ready, wait_s: _wait, ...input } = storedProvisionInput.parse(saga.input);
  return { ...input, ...(sshKeys === null ? {} : { ssh_keys: sshKeys }), user_data: userData, tags: tagsOf(saga, input.tags ?? [], wave) };
}
