// What the steps are given to work with.
import type { DigitalOceanClient } from '../do/client.ts';
import type { DropletObserver } from '../do/observer.ts';
import type { Inventory } from '../inventory/resources.ts';

export type StepDeps = Readonly<{
  inventory: Inventory;
  digitalOcean: DigitalOceanClient;
  /** Looks at droplets together with everybody else who waits for one. */
  droplets: DropletObserver;
  settings: StepSettings;
}>;

/** What a rollback works with: its requests go before all others. */
export function forRollback(deps: StepDeps): StepDeps {
  return { ...deps, digitalOcean: deps.digitalOcean.at('destroy') };
}

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
}>;
