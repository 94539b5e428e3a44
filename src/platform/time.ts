// Times that were written down, and ages counted from them. What cannot be read as a time is an error, never NaN: each
// comparison with NaN is false, and a guard that asks "is it still young?" would let everything pass.

/** Thrown for what should be a time and is none. */
export class UnreadableTimeError extends Error {
  override readonly name = 'UnreadableTimeError';
  readonly code = 'unreadable_time';

  constructor(what: string) {
    super(`expected a time as ISO 8601 has it, found ${what}`);
  }
}

// As Postgres writes timestamptz with DateStyle ISO; zones of whole minutes.
const ofPostgres = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?)([+-]\d{2})(:\d{2})?$/;

const ISO_8601 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[zZ]|[+-]\d{2}:?\d{2})$/;

// The last time that a Date can be.
const INFINITY_MS = 8.64e15;

/**
 * Reads Postgres's text of a timestamptz.
 *
 * @returns for `infinity`, the last time that there is
 * @throws {UnreadableTimeError} for every other way to write it: `11.12.2026` is one day in one DateStyle, and another in
 *   the next
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
 * Reads a time that was written down as text.
 *
 * @returns milliseconds since 1970; null: it is no ISO 8601 time with a zone
 */
export function readTimeMs(written: unknown): number | null {
  if (typeof written !== 'string' || !ISO_8601.test(written)) return null;
  const ms = Date.parse(written);
  return Number.isNaN(ms) ? null : ms;
}

/**
 * Milliseconds from one time to another; negative, when the other was before.
 *
 * @throws {UnreadableTimeError} when either is no time
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
