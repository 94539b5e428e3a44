// Finds the droplets that a saga may have created although DigitalOcean's response was lost: by tag and by name, because
// a droplet gets its tags after it was accepted, and lists lag.
import type { Droplet } from '../do/schemas.ts';
import { textOf } from '../platform/json.ts';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { hasTag, isAdoptable, isProvenOurs, mayBecomeOurs, sagaTag } from './ownership.ts';

/** The droplets in DigitalOcean's lists that may belong to a saga. */
export type Sighting = Readonly<{
  /** Can be adopted by the saga; proven ones first, then by id. */
  adoptable: readonly Droplet[];
  /** Carry the saga's full id, so they may be deleted. */
  proven: readonly Droplet[];
  /** Have the saga's name and no tag yet, so they may be ours. */
  undecided: readonly Droplet[];
}>;

/** Finds the saga's droplets. */
export async function findDropletsOfSaga(run: StepRun, deps: StepDeps): Promise<Sighting> {
  const { saga } = run;
  const candidates = new Map<number, Droplet>();
  for (const droplet of await deps.digitalOcean.listDropletsByTag(sagaTag(saga))) candidates.set(droplet.id, droplet);
  // Another saga's droplet with our tag must not hide ours, which lists by tag may not show (yet).
  if (![...candidates.values()].some((droplet) => isProvenOurs(droplet, saga))) {
    for (const droplet of await listByName(saga, deps)) candidates.set(droplet.id, droplet);
  }
  const adoptable: Droplet[] = [];
  for (const droplet of candidates.values()) {
    if (isAdoptable(droplet, saga) && !(await isTaken(droplet, saga, deps))) adoptable.push(droplet);
  }
  const rank = (droplet: Droplet) => (isProvenOurs(droplet, saga) ? 0 : 1);
  adoptable.sort((a, b) => rank(a) - rank(b) || a.id - b.id);
  const all = [...candidates.values()];
  return {
    adoptable,
    proven: all.filter((droplet) => isProvenOurs(droplet, saga)),
    undecided: all.filter((droplet) => mayBecomeOurs(droplet, saga)),
  };
}

/** Plain lists omit GPU droplets. Whether lists by tag omit them too is undocumented. */
async function listByName(saga: Saga, deps: StepDeps): Promise<Droplet[]> {
  const name = textOf(saga.input['name']);
  const plain = await deps.digitalOcean.listDroplets({ name });
  if (!textOf(saga.input['size']).toLowerCase().startsWith('gpu-')) return plain;
  const gpus = await deps.digitalOcean.listDroplets({ type: 'gpus' });
  return [...plain, ...gpus.filter((droplet) => droplet.name?.toLowerCase() === name.toLowerCase() || hasTag(droplet, sagaTag(saga)))];
}

/** Whether another saga registered a droplet. */
export async function isTaken(droplet: Droplet, saga: Saga, deps: StepDeps): Promise<boolean> {
  const provisioner = await deps.inventory.findProvisioner(String(droplet.id));
  return provisioner !== null && provisioner.sagaId !== saga.id;
}
