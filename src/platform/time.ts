// Parses stored times and computes ages. An unreadable time is an error, never NaN: every comparison with NaN is false,
// so a guard such as "is it still young?" would let everything pass.

/** Thrown if a value should be a time and is not. */
export class UnreadableTimeError extends Error {
  override readonly name = 'UnreadableTimeError';
  readonly code = 'unreadable_time';

  constructor(what: string) {
    super(`expected a time as ISO 8601 has it, found ${what}`);
  }
}

// timestamptz as Postgres writes it with DateStyle ISO. Zones have whole minutes.
const ofPostgres = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?)([+-]\d{2})(:\d{2})?$/;

const ISO_8601 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[zZ]|[+-]\d{2}:?\d{2})$/;

// The latest time that a Date can represent.
const INFINITY_MS = 8.64e15;

/**
 * Parses Postgres's text of a timestamptz.
 *
 * @returns for `infinity`, the latest possible Date
 * @throws {UnreadableTimeError} for any other format: the meaning of `11.12.2026` depends on the DateStyle
 */
export function parseTimestamp(text: string): Date {
  if (text === 'infinity') return new Date(INFINITY_MS);
  const parts = ofPostgres.exec(text);
  const [, day, time, hours, minutes = ':00'] = parts ?? [];
  const parsed = new Date(`${day}T${time}${hours}${minutes}`);
  if (parts === null || Number.isNaN(parsed.getTime())) throw new UnreadableTimeError(`${JSON.stringify(text)} (is DateStyle ISO?)`);
  return parsed;
}

/**
 * Parses a time in text form.
 *
 * @returns milliseconds since 1970; null unless it is an ISO 8601 time with a zone
 */
export function readTimeMs(written: unknown): number | null {
  if (typeof written !== 'string' || !ISO_8601.test(written)) return null;
  const ms = Date.parse(written);
  return Number.isNaN(ms) ? null : ms;
}

/**
 * Returns the milliseconds from one time to another; negative if the second is earlier.
 *
 * @throws {UnreadableTimeError} if either is not a time
 */
export function msBetween(from: Date | string, to: Date | string): number {
  return msOf(to) - msOf(from);
}

/** @throws {UnreadableTimeError} */
export function msOf(time: Date | string): number {
  const ms = typeof time === 'string' ? readTimeMs(time) : time.getTime();
  if (ms === null || Number.isNaN(ms)) throw new UnreadableTimeError(typeof time === 'string' ? JSON.stringify(time) : 'an invalid date');
  return ms;
}
