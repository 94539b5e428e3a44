// All state of one sandbox, as plain data that every route takes as its first argument.
import type { ActionStore } from './action-store.ts';
import type { Image } from './catalog.ts';
import type { DropletStore } from './droplet-store.ts';
import type { FaultBox } from './faults.ts';
import type { Ledger } from './ledger.ts';
import type { MsOrRange } from './random.ts';
import type { ProjectStore } from './project-store.ts';
import type { RateLimits, RateWindows } from './rate-window.ts';
import type { SshKeyStore } from './ssh-key-store.ts';
import type { Vpc } from './vpc-store.ts';

/** Options with defaults applied. */
export type Settings = {
  readonly token: string | undefined;
  readonly activateAfterMs: MsOrRange;
  readonly actionMs: MsOrRange;
  readonly dropletLimit: number;
  readonly loopbackAddresses: boolean;
  readonly ratePerMinute: number | null;
  readonly ratePerHour: number | null;
};

/** The sandbox's clock: the system clock plus what was added manually. Unix milliseconds. */
export type Clock = { advancedMs: number };

/** The state of one sandbox. */
export type World = {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly store: DropletStore;
  readonly sshKeys: SshKeyStore;
  readonly actions: ActionStore;
  /** By image number. `made` is the counter for the next number. */
  readonly snapshots: { readonly byId: Map<number, Readonly<{ image: Image; dropletId: number }>>; made: number };
  readonly vpcs: Map<string, Vpc>;
  readonly projects: ProjectStore;
  readonly faultBox: FaultBox;
  readonly ledger: Ledger;
  readonly rates: Map<string, RateWindows>;
  /** Aborts waits when the sandbox closes. */
  readonly closing: AbortSignal;
};

/** The sandbox's time in Unix milliseconds. */
export function nowMs(world: World): number {
  return Date.now() + world.clock.advancedMs;
}

/** The images created from the account's droplets. */
export function snapshotImages(world: World): Image[] {
  return [...world.snapshots.byId.values()].map(({ image }) => image);
}

/** The effective rate limits: faults override options. */
export function rateLimits(world: World): RateLimits {
  const { ratePerMinute, ratePerHour } = world.faultBox.settings;
  return {
    perMinute: ratePerMinute === undefined ? world.settings.ratePerMinute : ratePerMinute,
    perHour: ratePerHour === undefined ? world.settings.ratePerHour : ratePerHour,
  };
}

/** The effective droplet limit: faults override options. */
export function dropletLimit(world: World): number {
  return world.faultBox.settings.dropletLimit ?? world.settings.dropletLimit;
}
