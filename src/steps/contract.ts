// What those who start a droplet saga must know of it: its name, its input and which fields of that are secret, and the names
// of its steps. It loads no step.
import type { StartableSagas } from '../saga/start.ts';
import { destroyDropletInput, provisionDropletInput } from './inputs.ts';

/** `provision_droplet`, as its callers know it. */
export const provisionContract = { name: 'provision_droplet', input: provisionDropletInput, steps: namesOf('create_droplet', 'wait_droplet_active', 'register_droplet'), secrets: ['user_data'] } as const;

/** `destroy_droplet`, as its callers know it. */
export const destroyContract = { name: 'destroy_droplet', input: destroyDropletInput, steps: namesOf('destroy_droplet') } as const;

/** The droplet sagas by name. */
export const dropletContracts: StartableSagas = { [provisionContract.name]: provisionContract, [destroyContract.name]: destroyContract };

function namesOf(...names: readonly string[]): readonly Readonly<{ name: string }>[] {
  return names.map((name) => ({ name }));
}
