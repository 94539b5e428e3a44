// The cost of a droplet, and the most that a smoke test can cost.

/**
 * Computes the cost of a droplet in USD: `max($0.01, seconds × hourly price / 3600)`. DigitalOcean has billed by the
 * second since 2026-01-01, with a minimum of one minute and one cent.
 */
export function costUsd(seconds: number, priceUsdPerHour: number): number {
  return Math.max(0.01, (Math.max(60, seconds) * priceUsdPerHour) / 3_600);
}

/** A smoke droplet is destroyed by then, unless DigitalOcean refuses, or the smoke test is killed and not run again. */
export const LONGEST_LIFE_S = 1_800;

/** The most that this many droplets can cost, in USD. */
export function mostUsd(droplets: number, priceUsdPerHour: number): number {
  return droplets * costUsd(LONGEST_LIFE_S, priceUsdPerHour);
}

/** How many droplets an amount in USD pays for, whatever happens. */
export function dropletsFor(amountUsd: number, priceUsdPerHour: number): number {
  return Math.floor(amountUsd / mostUsd(1, priceUsdPerHour) + 1e-9);
}

/** Formats an amount like `0.0104 USD`. Never rounds down. */
export function usd(amount: number): string {
  return `${(Math.ceil(amount * 10_000 - 1e-6) / 10_000).toFixed(4)} USD`;
}
