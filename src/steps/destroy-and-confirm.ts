// Destroying a droplet for good: DELETE, then a GET that must say 404. A droplet that is still being created may
// survive its DELETE.
import type { Droplet } from '../do/schemas.ts';
import { StepFailure } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';

/**
 * Destroys a droplet and makes sure that it is gone.
 *
 * @returns `destroyed`, or `absent` when it was not there to begin with
 * @throws {StepFailure} (to be retried) when it is still there; whatever the client throws
 */
export async function destroyAndConfirm(dropletId: number, deps: Pick<StepDeps, 'digitalOcean'>): Promise<'destroyed' | 'absent'> {
  const answer = await deps.digitalOcean.destroyDroplet(dropletId);
  if (answer === 'absent') return 'absent';
  const left: Droplet | null = await deps.digitalOcean.getDroplet(dropletId);
  if (left === null) return 'destroyed';
  throw new StepFailure({
    code: 'droplet_still_there',
    message: `droplet ${dropletId} is still there (${left.status}) after DigitalOcean accepted its deletion`,
    retryable: true,
  });
}
