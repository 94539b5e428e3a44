// The step that destroys a droplet on request, and only one that arcadia-cloud provisioned or adopted. It cannot be undone, so it is
// not given up either: while DigitalOcean refuses the deletion the saga goes on trying, for hours, and then asks for a person.
import { DigitalOceanError } from '../do/errors.ts';
import type { Droplet } from '../do/schemas.ts';
import { PROTECTED_CODE, protectedMessage } from '../inventory/protection.ts';
import type { Provisioner } from '../inventory/resources.ts';
import type { Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StaleRevisionError, StepFailure, done, waiting } from '../saga/step.ts';
import type { JsonObject } from '../platform/json.ts';
import { msBetween } from '../platform/time.ts';
import type { StepDeps } from './deps.ts';
import { dropletFamily } from './family.ts';
import { forRollback } from './deps.ts';
import { destroyAndConfirm, isDeletionAccepted } from './destroy-and-confirm.ts';
import type { Undone } from './failures.ts';
import { toStepOutcome } from './failures.ts';
import { storedDestroyInput } from './inputs.ts';
import type { DestroyDropletOutputs } from './outputs.ts';
import { destroyDropletOutputs, destroyDropletRemains } from './outputs.ts';
import { lookForBilled, withOutputs } from './still-billed.ts';
import { describeDestruction } from './words.ts';
import { stepAgeMs } from '../saga/stamps.ts';

/**
 * What became of the droplet, in the saga's context as `destroy_result`. `already_gone`: it was gone before this saga did
 * anything. `not_destroyed`: the saga was refused or cancelled, and the droplet was there when it ended.
 */
type DestroyEnd = 'destroyed' | 'already_gone' | 'not_destroyed';

// A 404 after a cancel is believed at the second look.
const MISSES_UNTIL_GONE = 2;

// In the saga's context: when a DELETE and a GET first said 404.
const MISSED_AT = 'droplet_missed_at';

const DECLINED = new Set(['droplet_unknown', 'droplet_not_ours']);

type Outcome = StepOutcome<DestroyDropletOutputs>;

export const destroyDroplet: Step<StepDeps, JsonObject, DestroyDropletOutputs> = {
  name: 'destroy_droplet',
  family: dropletFamily,
  adds: destroyDropletOutputs,
  remains: destroyDropletRemains,
  words: { doing: 'destroying the droplet', provider: 'DigitalOcean', remains: describeDestruction },
  forwardOnly: true,

  async execute(run, stepDeps) {
    const deps = forRollback(stepDeps);
    const { droplet_id: dropletId } = storedDestroyInput.parse(run.saga.input);
    try {
      return await destroyOnRequest(dropletId, run, deps);
    } catch (error) {
      const outcome = patientOutcome(error, run);
      if (outcome === null) throw error;
      return outcome;
    }
  },

  /** Runs after a cancel, or where the step declined: says what is so. */
  async compensate(run, stepDeps) {
    const { droplet_id: dropletId } = storedDestroyInput.parse(run.saga.input);
    if (DECLINED.has(run.saga.error?.code ?? '')) return ended('not_destroyed', `nothing was done: ${run.saga.error?.message ?? ''}`);
    const deps = forRollback(stepDeps);
    const droplet = await deps.digitalOcean.getDroplet(dropletId);
    if (droplet === null) return goneAfterCancel(dropletId, run, deps);
    if (!isDeletionAccepted(dropletId, run)) return ended('not_destroyed', `droplet ${dropletId} was not destroyed: it is still there (${droplet.status})`);
    const goesInMs = deps.settings.deleteAgainAfterMs - stepAgeMs(run);
    if (goesInMs > 0) return waiting(Math.min(deps.settings.pollIntervalMs, goesInMs), `DigitalOcean accepted the deletion of droplet ${dropletId} before the cancel: looking whether it goes`);
    return ended('not_destroyed', `droplet ${dropletId} is still there (${droplet.status}), though DigitalOcean accepted its deletion before the cancel: it may go yet`);
  },
};

/** As patient as a rollback: one odd answer is no reason to leave a droplet that should be gone. */
function patientOutcome(error: unknown, run: StepRun): Undone | null {
  return error instanceof DigitalOceanError ? toStepOutcome(error, 'backward', run.memo) : null;
}

async function destroyOnRequest(dropletId: number, run: StepRun, deps: StepDeps): Promise<Outcome> {
  const droplet = await deps.digitalOcean.getDroplet(dropletId);
  const provisioner = await deps.inventory.findProvisioner(String(dropletId));
  if (!(droplet === null && isDeletionAccepted(dropletId, run))) requireOurs(dropletId, droplet, provisioner);
  if (droplet === null && provisioner?.deletedAt instanceof Date && !isDeletionAccepted(dropletId, run)) {
    if (wasMarkedHere(provisioner, run)) return finish('destroyed', `droplet ${dropletId} destroyed`, dropletId, run, deps);
    return finish('already_gone', `nothing to destroy: droplet ${dropletId} has been gone since ${provisioner.deletedAt.toISOString()}`, dropletId, run, deps);
  }
  // A 404 proves little of a droplet that was there a moment ago: a DELETE is sent all the same, and looks follow.
  if (droplet === null && run.saga.context[MISSED_AT] !== undefined && wasSeenLately(provisioner, run, deps)) return lookAgain(dropletId, deps);
  // Once there is no droplet, nobody can say what belonged to it.
  const billed = droplet === null ? {} : await lookForBilled(dropletId, run, deps);
  return withOutputs(run, billed, () => destroyNow(dropletId, { droplet, provisioner, billed }, run, deps), (error) => patientOutcome(error, run));
}

type Found = Readonly<{ droplet: Droplet | null; provisioner: Provisioner | null; billed: JsonObject }>;

async function destroyNow(dropletId: number, { droplet, provisioner, billed }: Found, run: StepRun, deps: StepDeps): Promise<Outcome> {
  // The last word before a DELETE. What was checked when the saga was started may have changed since.
  if (await deps.inventory.isProtected(String(dropletId))) throw new StepFailure({ code: PROTECTED_CODE, message: protectedMessage(dropletId), retryable: false });
  const end = await destroyAndConfirm(dropletId, run, deps, droplet, billed);
  if (typeof end === 'object') return end;
  if (end === 'destroyed') return finish('destroyed', `droplet ${dropletId} destroyed`, dropletId, run, deps);
  if (wasSeenLately(provisioner, run, deps)) {
    await run.record(`DigitalOcean returned 404 for droplet ${dropletId}, which existed a moment ago`, {}, [MISSED_AT]);
    return lookAgain(dropletId, deps);
  }
  return finish('already_gone', `nothing to destroy: droplet ${dropletId} was gone already`, dropletId, run, deps);
}

function wasSeenLately(provisioner: Provisioner | null, run: StepRun, { settings }: StepDeps): boolean {
  if (provisioner === null) return false;
  return msBetween(provisioner.lastSeenAt, run.now) <= settings.adoptionGraceMs;
}

function lookAgain(dropletId: number, { settings }: StepDeps): Undone {
  return waiting(settings.pollIntervalMs, `droplet ${dropletId} was there a moment ago: looking again before it counts as gone`);
}

/** The inventory lost the droplet since this saga began: this saga, or its sibling for the same droplet, destroyed it. */
function wasMarkedHere({ deletedAt }: Provisioner, { saga }: StepRun): boolean {
  return deletedAt !== null && msBetween(saga.createdAt, deletedAt) >= 0;
}

async function goneAfterCancel(dropletId: number, run: StepRun, deps: StepDeps): Promise<StepOutcome> {
  const provisioner = await deps.inventory.findProvisioner(String(dropletId));
  if (provisioner === null) return ended('already_gone', `there is no droplet ${dropletId}`);
  if (provisioner.deletedAt !== null) {
    if (!wasMarkedHere(provisioner, run)) return ended('already_gone', `droplet ${dropletId} has been gone since ${provisioner.deletedAt.toISOString()}`);
    return ended('destroyed', `droplet ${dropletId} is gone: the cancel came too late`);
  }
  const misses = (run.memo['misses'] ?? 0) + 1;
  if (misses < MISSES_UNTIL_GONE) return waiting(deps.settings.pollIntervalMs, `droplet ${dropletId} seems to be gone: checking again`, { memo: { misses } });
  return finish('destroyed', `droplet ${dropletId} is gone: the cancel came too late`, dropletId, run, deps);
}

/** @throws {StaleRevisionError} */
async function finish(end: DestroyEnd, note: string, dropletId: number, run: StepRun, deps: StepDeps): Promise<Outcome> {
  const stands = await deps.inventory.markDestroyed(run.claim, String(dropletId));
  if (!stands) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
  return done({ droplet_id: dropletId, destroy_result: end }, note);
}

function ended(end: DestroyEnd, note: string): StepOutcome {
  return done({ destroy_result: end }, note);
}

/**
 * The droplet must be on record as provisioned or adopted by us, and must not carry another saga's id.
 *
 * @throws {StepFailure} `droplet_unknown`, `droplet_not_ours`: nothing was done
 */
function requireOurs(dropletId: number, droplet: Droplet | null, provisioner: Provisioner | null): void {
  if (provisioner === null && droplet === null) {
    throw declined('droplet_unknown', `there is no droplet ${dropletId}, neither at DigitalOcean nor on record here, so nothing was destroyed: check the id`);
  }
  const foreignTag = droplet?.tags?.find((tag) => /^arcadia-saga-id-/i.test(tag) && tag.toLowerCase() !== `arcadia-saga-id-${provisioner?.sagaId}`);
  if (provisioner !== null && foreignTag === undefined) return;
  const why = foreignTag === undefined ? 'it is not in this environment\'s cloud_provisioned' : `it carries the tag ${foreignTag}`;
  throw declined('droplet_not_ours', `droplet ${dropletId} was neither provisioned nor adopted by this arcadia-cloud (${why}), so it is left alone`);
}

function declined(code: string, message: string): StepFailure {
  return new StepFailure({ code, message, retryable: false, nothingDone: true });
}
