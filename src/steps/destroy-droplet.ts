// The step that destroys a droplet on request, and only one that arcadia-cloud provisioned. It cannot be undone.
import type { Step } from '../saga/step.ts';
import { StaleRevisionError, StepFailure, done } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { forRollback } from './deps.ts';
import { destroyAndConfirm } from './destroy-and-confirm.ts';
import { storedDestroyInput } from './inputs.ts';

export const destroyDroplet: Step<StepDeps> = {
  name: 'destroy_droplet',

  async execute(run, stepDeps) {
    const deps = forRollback(stepDeps);
    const { droplet_id: dropletId } = storedDestroyInput.parse(run.saga.input);
    const droplet = await deps.digitalOcean.getDroplet(dropletId);
    if (droplet !== null) {
      await requireOurs(dropletId, droplet.tags, deps);
      await destroyAndConfirm(dropletId, deps);
    }
    const stands = await deps.inventory.markDestroyed(run.claim, String(dropletId));
    if (!stands) throw new StaleRevisionError(`saga ${run.saga.id} has moved on`);
    return done({ droplet_id: dropletId }, droplet === null ? `droplet ${dropletId} was not there any more` : `droplet ${dropletId} destroyed`);
  },

  async compensate(run) {
    run.log.warn('destroying a droplet cannot be undone');
    return done({}, 'irreversible: a destroyed droplet does not come back');
  },
};

/** The droplet must be on record as provisioned by us, and must not carry another saga's id. */
async function requireOurs(dropletId: number, tags: readonly string[], deps: StepDeps): Promise<void> {
  const provisioner = await deps.inventory.findProvisioner(String(dropletId));
  const foreignTag = tags.find((tag) => /^arcadia-saga-id-/i.test(tag) && tag.toLowerCase() !== `arcadia-saga-id-${provisioner?.sagaId}`);
  if (provisioner !== null && foreignTag === undefined) return;
  const why = foreignTag === undefined ? 'it is not in this environment\'s cloud_provisioned' : `it carries the tag ${foreignTag}`;
  throw new StepFailure({
    code: 'droplet_not_ours',
    message: `droplet ${dropletId} was not provisioned by this arcadia-cloud (${why}), so it is left alone`,
    retryable: false,
  });
}
