// The command line was used wrongly: exit code 2.
import { parseDuration } from '../platform/duration.ts';

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** @throws {UsageError} for what can't be the id of a droplet */
export function requireDropletId(text: string): void {
  if (/^[1-9]\d{0,14}$/.test(text)) return;
  throw new UsageError(`expected a droplet id, a positive whole number; found ${JSON.stringify(text)}`);
}

/**
 * Reads a duration such as `90s`, `30m`, `2h`, `7d`, or `1h30m`.
 *
 * @returns seconds
 * @throws {UsageError} for anything else
 */
export function requireSeconds(option: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null) throw new UsageError(`${option}: expected a duration such as 90s, 30m, 2h or 7d; found ${JSON.stringify(text)}`);
  return seconds;
}
