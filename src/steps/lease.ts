// The lease of a droplet: what its saga requested, within the fleet's policy.
import type { Saga } from '../saga/saga.ts';
import { StepFailure } from '../saga/step.ts';
import type { LeaseTerms } from './inputs.ts';
import { beyondPolicy, storedAdoptInput, storedProvisionInput } from './inputs.ts';

/** The fleet's lease policy, in seconds. `defaultS`: the lease of a new droplet that requests none. `maxS`: the longest lease. Null: none. */
export type LeasePolicy = Readonly<{ defaultS: number | null; maxS: number | null }>;

/** Allows any lease, and gives none by default. */
export const NO_LEASE_POLICY: LeasePolicy = { defaultS: null, maxS: null };

/**
 * Returns the lease of a saga's droplet; null: none. A droplet that is protected from the start gets no default lease.
 *
 * @throws {StepFailure} `lease_too_long` if the lease exceeds the policy
 */
export function leaseOf({ input }: Pick<Saga, 'input'>, { defaultS, maxS }: LeasePolicy): LeaseTerms | null {
  const { lease, protected: isProtected } = storedProvisionInput.parse(input);
  const asked = lease ?? (defaultS === null || isProtected === true ? null : { ttl_s: defaultS });
  return withinPolicy(asked, maxS);
}

/**
 * Returns the lease of a droplet that a saga adopts; null: none. The default lease does not apply: the droplet existed before, and
 * may hold work that nobody expects to be destroyed.
 *
 * @throws {StepFailure} `lease_too_long` if the lease exceeds the policy
 */
export function leaseOfAdopted({ input }: Pick<Saga, 'input'>, { maxS }: Pick<LeasePolicy, 'maxS'>): LeaseTerms | null {
  return withinPolicy(storedAdoptInput.parse(input).lease ?? null, maxS);
}

function withinPolicy(asked: LeaseTerms | null, maxS: number | null): LeaseTerms | null {
  if (asked === null || maxS === null) return asked;
  const beyond = beyondPolicy(asked, maxS);
  if (beyond !== null) throw new StepFailure({ code: 'lease_too_long', message: beyond.message, retryable: false });
  return { ...asked, max_s: asked.max_s ?? maxS };
}
