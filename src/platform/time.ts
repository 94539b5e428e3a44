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

// The same in UTC, as our sessions have it. `Date.UTC` takes years below 100 for those of another century.
const ofPostgresInUtc = /^[1-9]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?\+00$/;

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
  // Each row of a saga has six of them, and Date's own parser takes three times as long.
  if (ofPostgresInUtc.test(text)) {
    const month = digitsAt(text, 5, 2) - 1;
    return new Date(Date.UTC(digitsAt(text, 0, 4), month, digitsAt(text, 8, 2), digitsAt(text, 11, 2), digitsAt(text, 14, 2), digitsAt(text, 17, 2), digitsAt(text, 20, 3)));
  }
  if (text === 'infinity') return new Date(INFINITY_MS);
  const parts = ofPostgres.exec(text);
  const [, day, time, hours, minutes = ':00'] = parts ?? [];
  const parsed = new Date(`${day}T${time}${hours}${minutes}`);
  if (parts === null || Number.isNaN(parsed.getTime())) throw new UnreadableTimeError(`${JSON.stringify(text)} (is DateStyle ISO?)`);
  return parsed;
}

/** Reads a number of so many digits. What is no digit counts as zero, as do the digits of the zone behind a short fraction. */
function digitsAt(text: string, at: number, count: number): number {
  let value = 0;
  for (let place = at; place < at + count; place += 1) {
    const digit = text.charCodeAt(place) - ZERO;
    value = value * 10 + (digit >= 0 && digit <= 9 ? digit : 0);
  }
  return value;
}

const ZERO = '0'.charCodeAt(0);

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
