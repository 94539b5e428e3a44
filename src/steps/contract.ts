// What those who start a droplet saga must know of it: its name, its input and which fields of that are secret, the names
// of its steps, and what a rollback may leave. It loads no step.
import { refuseProtected } from '../inventory/protection.ts';
import type { StartableSagas } from '../saga/start.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Database } from '../platform/db.ts';
import type { Deployment, Refusal } from '../saga/definition.ts';
import { adoptDropletInput, beyondPolicy, destroyDropletInput, provisionDropletInput, readyOf, storedAdoptInput, storedProvisionInput } from './inputs.ts';
import type { LeaseTerms } from './inputs.ts';
import { provisionDropletRemains } from './outputs.ts';
import { describeRolledBack, describeUnproven } from './rolled-back.ts';

/** `provision_droplet`, as its callers know it. */
export const provisionContract = { name: 'provision_droplet', input: provisionDropletInput, steps: [{ name: 'create_droplet', remains: provisionDropletRemains, words: { remains: describeUnproven } }, { name: 'wait_droplet_active' }, { name: 'wait_droplet_ready', onlyWith: 'ready' }, { name: 'register_droplet' }], secrets: ['user_data'], refusal: refuseProvision, words: { rolledBack: describeRolledBack } } as const;

/** `destroy_droplet`, as its callers know it. */
export const destroyContract = { name: 'destroy_droplet', input: destroyDropletInput, steps: [{ name: 'destroy_droplet' }], refusal: refuseProtected } as const;

/** `adopt_droplet`, as its callers know it. */
export const adoptContract = { name: 'adopt_droplet', input: adoptDropletInput, steps: [{ name: 'tag_droplet' }, { name: 'register_adopted_droplet' }], refusal: refuseAdoption } as const;

/** Refuses what the workers would refuse before they create anything. */
async function refuseProvision(_db: Pick<Database, 'run'>, input: JsonObject, deployment: Deployment): Promise<Refusal | null> {
  await Promise.resolve();
  return refuseDeadCallback(input, deployment) ?? refuseLongLease(storedProvisionInput.parse(input).lease, deployment);
}

/** Refuses what the workers would refuse before they tag anything. */
async function refuseAdoption(_db: Pick<Database, 'run'>, input: JsonObject, deployment: Deployment): Promise<Refusal | null> {
  await Promise.resolve();
  return refuseLongLease(storedAdoptInput.parse(input).lease, deployment);
}

function refuseLongLease(lease: LeaseTerms | undefined, { longestLeaseS = null }: Deployment): Refusal | null {
  const beyond = longestLeaseS === null ? null : beyondPolicy(lease, longestLeaseS);
  return beyond === null ? null : { code: 'lease_too_long', ...beyond };
}

/** A droplet cannot call back where nobody knows the address. */
function refuseDeadCallback(input: JsonObject, { publicUrl }: Deployment): Refusal | null {
  if (publicUrl !== null || readyOf({ input })?.callback !== true) return null;
  return { code: 'ready_callback_unavailable', message: 'ready.callback: the droplet cannot call back, because PUBLIC_URL is not set here. Set it for the web and the workers to the address by which droplets reach the web, such as https://arcadia.example.com' };
}

/** The droplet sagas by name. */
export const dropletContracts: StartableSagas = { [provisionContract.name]: provisionContract, [destroyContract.name]: destroyContract, [adoptContract.name]: adoptContract };
