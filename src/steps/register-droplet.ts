// The step that writes the droplet into the inventory: its current state and its requested state. It is also the last check of
// what the saga created: if it sent more than one create, this step destroys the surplus droplets.
import type { z } from 'zod';
import { DigitalOceanError } from '../do/errors.ts';
import type { Droplet } from '../do/schemas.ts';
import type { JsonObject } from '../platform/json.ts';
import { textOf } from '../platform/json.ts';
import { recordedDropletId } from '../inventory/droplet-of-saga.ts';
import { ResourceTakenError } from '../inventory/resources.ts';
import type { Saga } from '../saga/saga.ts';
import type { Step, StepRun } from '../saga/step.ts';
import { StaleRevisionError, StepFailure, done, waiting } from '../saga/step.ts';
import { missingAddresses } from './addresses.ts';
import { assignProject } from './assign-project.ts';
import type { StepDeps } from './deps.ts';
import { dropletFamily } from './family.ts';
import type { Waiting } from './destroy-and-confirm.ts';
import { destroyAndConfirm, soonerOf } from './destroy-and-confirm.ts';
import { toCloudResource } from './droplet-resource.ts';
import { creates, recordedWave } from './intents.ts';
import { findDropletsOfSaga } from './lookup.ts';
import { provisionDropletOutputs } from './outputs.ts';
import { recordContradiction } from './ownership.ts';

const A_MOMENT_MS = 5_000;
// If the droplet answered or called back this recently, it is not read again.
const WHILE_READY_MS = 120_000;

const adds = provisionDropletOutputs.pick({ cloud_resource_id: true });

export const registerDroplet: Step<StepDeps, JsonObject, z.infer<typeof adds>> = {
  name: 'register_droplet',
  family: dropletFamily,
  needs: provisionDropletOutputs.pick({ droplet_id: true }),
  adds,
  words: { doing: 'entering the droplet into the inventory', provider: 'DigitalOcean' },

  async execute(run, deps) {
    const dropletId = recordedDropletId(run.saga);
    if (dropletId === null) throw new StepFailure({ code: 'no_droplet', message: 'no droplet is on record', retryable: false });

    const notYet = await destroySurplus(dropletId, run, deps);
    if (notYet !== null) return notYet;

    const droplet = await observe(dropletId, run, deps);
    if (droplet === null) throw new StepFailure({ code: 'droplet_gone', message: `droplet ${dropletId} was active, and is not there now`, retryable: true });
    const contradicted = recordContradiction(droplet, run.saga);
    if (contradicted !== null) {
      throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not this saga's: ${contradicted}`, retryable: false });
    }
    await assignProject(dropletId, run, deps);
    const provision = { sagaId: run.saga.id, provisionedBy: `saga:${run.saga.id}`, spec: specOf(run.saga), protected: run.saga.input['protected'] === true };
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
 * A read by the wait, or by a list, of a moment ago is as good as a new one, if it showed no problem and this is the first
 * attempt. While the request budget has no room, so is what the wait may have concluded from.
 */
async function observe(dropletId: number, run: StepRun, deps: StepDeps): Promise<Droplet | null> {
  const momentMs = run.saga.steps.includes('wait_droplet_ready') ? WHILE_READY_MS : A_MOMENT_MS;
  const maxAgeMs = run.saga.attempt === 0 ? momentMs : 0;
  const isWell = (droplet: Droplet | null) => droplet?.status === 'active' && recordContradiction(droplet, run.saga) === null && missingAddresses(droplet, run.saga).length === 0;
  try {
    const { droplet, ageMs } = await deps.droplets.observe(dropletId, { wave: recordedWave(run.saga), maxAgeMs });
    if (ageMs <= 0 || isWell(droplet)) return droplet;
    return (await deps.droplets.observe(dropletId, { wave: null, maxAgeMs: 0 })).droplet;
  } catch (error) {
    const known = run.saga.attempt === 0 && error instanceof DigitalOceanError && error.kind === 'throttled' ? await deps.droplets.recall(dropletId) : null;
    if (known === null || !isWell(known.droplet)) throw error;
    return known.droplet;
  }
}

/** Each create but one may have made a surplus droplet. Destroys those and keeps the recorded one; null: no surplus is left. */
async function destroySurplus(keep: number, run: StepRun, deps: StepDeps): Promise<Waiting | null> {
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
    // DELETE may return 404 for a droplet that was accepted a moment ago. That does not prove that it is absent.
    if (end === 'destroyed') destroyed += 1;
  }
  if (pending !== null) return pending;
  if (destroyed >= Math.max(surplus.length, unanswered)) return null;
  const settlesInMs = deps.settings.adoptionGraceMs - ageMs;
  if (settlesInMs <= 0) return null;
  return waiting(Math.min(deps.settings.pollIntervalMs, settlesInMs), 'more than one create was sent: looking for surplus droplets');
}

/** The requested state: the baseline of drift detection. */
function specOf(saga: Saga) {
  return { size_slug: saga.input['size'] ?? null, region: saga.input['region'] ?? null, image: saga.input['image'] ?? null };
}
