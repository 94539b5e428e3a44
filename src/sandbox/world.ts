// All state of one sandbox, as plain data that every route takes as its first argument.
import type { DropletStore } from './droplet-store.ts';
import type { FaultBox } from './faults.ts';
import type { Ledger } from './ledger.ts';
import type { MsOrRange } from './random.ts';
import type { RateLimits, RateWindows } from './rate-window.ts';

/** Options with defaults filled in. */
export type Settings = {
  readonly token: string | undefined;
  readonly activateAfterMs: MsOrRange;
  readonly dropletLimit: number;
  readonly ratePerMinute: number | null;
  readonly ratePerHour: number | null;
};

/** The sandbox's clock: the system's, and what was added by hand. Unix milliseconds. */
export type Clock = { advancedMs: number };

/** The state of one sandbox. */
export type World = {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly store: DropletStore;
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

/** The limits in force: a setting of the faults goes before the option. */
export function rateLimits(world: World): RateLimits {
  const { ratePerMinute, ratePerHour } = world.faultBox.settings;
  return {
    perMinute: ratePerMinute === undefined ? world.settings.ratePerMinute : ratePerMinute,
    perHour: ratePerHour === undefined ? world.settings.ratePerHour : ratePerHour,
  };
}

/** The droplet limit in force: a setting of the faults goes before the option. */
export function dropletLimit(world: World): number {
  return world.faultBox.settings.dropletLimit ?? world.settings.dropletLimit;
}
