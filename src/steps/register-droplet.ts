// The step that writes the droplet into the inventory: what there is, and what was asked for. It is also the last look
// at what the saga made: where more than one create was sent, the surplus droplets are destroyed here.
import type { Droplet } from '../do/schemas.ts';
import { textOf } from '../platform/json.ts';
import { recordedDropletId } from '../inventory/droplet-of-saga.ts';
import { ResourceTakenError } from '../inventory/resources.ts';
import type { Saga } from '../saga/saga.ts';
import type { Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StaleRevisionError, StepFailure, done, waiting } from '../saga/step.ts';
import { missingAddresses } from './addresses.ts';
import type { StepDeps } from './deps.ts';
import { dropletFamily } from './family.ts';
import type { Waiting } from './destroy-and-confirm.ts';
import { destroyAndConfirm, soonerOf } from './destroy-and-confirm.ts';
import { toCloudResource } from './droplet-resource.ts';
import { creates, recordedWave } from './intents.ts';
import { findDropletsOfSaga } from './lookup.ts';
import { provisionDropletOutputs } from './outputs.ts';
import { otherOwner } from './ownership.ts';

const A_MOMENT_MS = 5_000;

export const registerDroplet: Step<StepDeps> = {
  name: 'register_droplet',
  family: dropletFamily,
  needs: provisionDropletOutputs.pick({ droplet_id: true }),
  adds: provisionDropletOutputs.pick({ cloud_resource_id: true }),
  words: { doing: 'entering the droplet into the inventory', provider: 'DigitalOcean' },

  async execute(run, deps) {
    const dropletId = recordedDropletId(run.saga);
    if (dropletId === null) throw new StepFailure({ code: 'no_droplet', message: 'no droplet is on record', retryable: false });

    const notYet = await destroySurplus(dropletId, run, deps);
    if (notYet !== null) return notYet;

    const droplet = await observe(dropletId, run, deps);
    if (droplet === null) throw new StepFailure({ code: 'droplet_gone', message: `droplet ${dropletId} was active, and is not there now`, retryable: true });
    const contradicted = otherOwner(droplet, run.saga);
    if (contradicted !== null) {
      throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not this saga's: ${contradicted}`, retryable: false });
    }
    const provision = { sagaId: run.saga.id, provisionedBy: `saga:${run.saga.id}`, spec: specOf(run.saga) };
    const seen = toCloudResource(droplet);
    let resourceId: string | null;
    try {
      resourceId = await deps.inventory.register(run.claim, { ...seen, name: seen.name ?? textOf(run.saga.input['name']) }, provision);
    } catch (error) {
      if (!(error instanceof ResourceTakenError)) throw error;
      throw new StepFailure({ code: 'droplet_not_ours', message: error.message, retryable: false });
    }
    if (resourceId === null) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
    return done({ cloud_resource_id: resourceId });
  },

  async compensate(run, deps) {
    const stands = await deps.inventory.unregister(run.claim);
    if (!stands) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
    return done();
  },
};

/**
 * What the wait, or a list, has shown a moment ago is as good as a look now: as long as all is well, and this is the
 * first attempt.
 */
async function observe(dropletId: number, run: StepRun, deps: StepDeps): Promise<Droplet | null> {
  const maxAgeMs = run.saga.attempt === 0 ? A_MOMENT_MS : 0;
  const { droplet, ageMs } = await deps.droplets.observe(dropletId, { wave: recordedWave(run.saga), maxAgeMs });
  const isWell = droplet?.status === 'active' && otherOwner(droplet, run.saga) === null && missingAddresses(droplet, run.saga).length === 0;
  if (ageMs <= 0 || isWell) return droplet;
  return (await deps.droplets.observe(dropletId, { wave: null, maxAgeMs: 0 })).droplet;
}

/** Each create but one may have made a droplet too many. Keeps the recorded one; null: there is no other (left). */
async function destroySurplus(keep: number, run: StepRun, deps: StepDeps): Promise<StepOutcome | null> {
  const { unanswered, ageMs } = creates(run);
  const mayHaveMore = unanswered > 0 || run.saga.context['create_duplicates'] !== undefined;
  if (!mayHaveMore) return null;
  const surplus = (await findDropletsOfSaga(run, deps)).proven.filter((droplet) => droplet.id !== keep);
  let destroyed = 0;
  let pending: Waiting | null = null;
  for (const droplet of surplus) {
    run.log.warn({ dropletId: droplet.id, keep }, 'destroying a surplus droplet of this saga');
    const end = await destroyAndConfirm(droplet.id, run, deps);
    if (typeof end === 'object') pending = soonerOf(pending, end);
    // A DELETE of a droplet that was accepted a moment ago may say 404: no proof of its absence yet.
    if (end === 'destroyed') destroyed += 1;
  }
  if (pending !== null) return pending;
  if (destroyed >= Math.max(surplus.length, unanswered)) return null;
  const settlesInMs = deps.settings.adoptionGraceMs - ageMs;
  if (settlesInMs <= 0) return null;
  return waiting(Math.min(deps.settings.pollIntervalMs, settlesInMs), 'more than one create was sent: looking for surplus droplets');
}

/** The desired state, as it was asked for: the baseline of drift detection. */
function specOf(saga: Saga) {
  return { size_slug: saga.input['size'] ?? null, region: saga.input['region'] ?? null, image: saga.input['image'] ?? null };
}
