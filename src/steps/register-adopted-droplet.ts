// The step that registers an adopted droplet in the inventory. From then on we manage it. Its current state is the baseline for drift. The
// compensation removes the record and keeps the droplet.
import { ResourceTakenError } from '../inventory/resources.ts';
import type { Droplet } from '../do/schemas.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Step } from '../saga/step.ts';
import { StaleRevisionError, StepFailure, done } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { toCloudResource } from './droplet-resource.ts';
import { dropletFamily } from './family.ts';
import { storedAdoptInput } from './inputs.ts';
import { NO_LEASE_POLICY, leaseOfAdopted } from './lease.ts';
import type { AdoptDropletOutputs } from './outputs.ts';
import { adoptDropletOutputs } from './outputs.ts';
import { otherClaim } from './ownership.ts';

export const registerAdoptedDroplet: Step<StepDeps, JsonObject, AdoptDropletOutputs> = {
  name: 'register_adopted_droplet',
  family: dropletFamily,
  adds: adoptDropletOutputs,
  words: { doing: 'entering the droplet into the inventory', provider: 'DigitalOcean' },

  async execute(run, deps) {
    const { droplet_id: dropletId, protected: isProtected } = storedAdoptInput.parse(run.saga.input);
    const droplet = await deps.digitalOcean.getDroplet(dropletId);
    if (droplet === null) throw new StepFailure({ code: 'droplet_gone', message: `droplet ${dropletId} was destroyed while it was being adopted`, retryable: true });
    const claimed = otherClaim(droplet, run.saga);
    if (claimed !== null) throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not adopted: ${claimed}`, retryable: false });
    const lease = leaseOfAdopted(run.saga, deps.settings.lease ?? NO_LEASE_POLICY);
    const provision = { sagaId: run.saga.id, provisionedBy: `saga:${run.saga.id}`, spec: specOf(droplet), protected: isProtected === true, lease };
    let resourceId: string | null;
    try {
      resourceId = await deps.inventory.register(run.claim, toCloudResource(droplet), provision);
    } catch (error) {
      if (!(error instanceof ResourceTakenError)) throw error;
      throw new StepFailure({ code: 'droplet_already_managed', message: error.message, retryable: false });
    }
    if (resourceId === null) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
    return done({ droplet_id: dropletId, cloud_resource_id: resourceId }, `droplet ${dropletId} is managed from now on`);
  },

  async compensate(run, deps) {
    const stands = await deps.inventory.disown(run.claim);
    if (!stands) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
    return done();
  },
};

/** Values that could not be read are null: any state matches them. */
function specOf({ size_slug: sizeSlug, region, image, status }: Droplet) {
  const powerState = status === 'off' ? { power_state: status } : {};
  return { size_slug: sizeSlug, region: region?.slug ?? null, image: image === null ? null : (image.slug ?? String(image.id)), ...powerState };
}
