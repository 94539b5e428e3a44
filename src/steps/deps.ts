// What the steps are given to work with.
import type { DigitalOceanClient } from '../do/client.ts';
import type { Directory } from '../do/directory.ts';
import type { DropletObserver } from '../do/observer.ts';
import type { ReadyCallbacks } from '../inventory/ready-callbacks.ts';
import type { Inventory } from '../inventory/resources.ts';
import type { LeasePolicy } from './lease.ts';
import type { AddressRanges } from '../platform/address-ranges.ts';
import type { Finding, Target } from './probe.ts';
import type { Busy } from './probe-places.ts';

export type StepDeps = Readonly<{
  inventory: Inventory;
  digitalOcean: DigitalOceanClient;
  /** Looks at droplets together with everybody else who waits for one. */
  droplets: DropletObserver;
  /** Finds SSH keys and projects by name. */
  directory: Directory;
  readiness: Readiness;
  settings: StepSettings;
}>;

/** What a rollback works with: its requests go before all others. */
export function forRollback(deps: StepDeps): StepDeps {
  return { ...deps, digitalOcean: deps.digitalOcean.at('destroy') };
}

/** What the wait for a droplet to be ready works with. */
export type Readiness = Readonly<{
  /** Checks once, unless too many other checks are under way; see `probe`. */
  probe(target: Target): Promise<Finding | Busy>;
  /** Addresses beyond public ones that may be checked. */
  allowed: AddressRanges;
  callbacks: ReadyCallbacks;
  /** By which droplets reach the web, without a slash at its end; null: not known. */
  publicUrl: string | null;
  /** Whether there is a key to make tokens from. */
  canIssue: boolean;
}>;

export type StepSettings = Readonly<{
  /** Between two looks at a droplet that is not active yet. */
  pollIntervalMs: number;
  maxPolls: number;
  /** How long a droplet that DigitalOcean may have made is looked for before another is asked for. */
  adoptionGraceMs: number;
  /** How many times at most a saga asks for its droplet where no answer says whether there is one. */
  maxCreates: number;
  /** After a DELETE that DigitalOcean accepted: how long a droplet that is still there is only looked at. */
  deleteAgainAfterMs: number;
  /** How many accepted deletions a droplet may survive before a person is asked to look. */
  maxDeletes: number;
  /** The fleet's policy of leases; where left out, a droplet has the lease that its saga asks for. */
  lease?: LeasePolicy;
}>;
