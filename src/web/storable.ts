// Values that Postgres can store and search: not every JavaScript string or time.
import { z } from 'zod';

/** Text of at most `max` characters, without NUL and lone surrogates. */
export function storableText(max: number): z.ZodString {
  return z
    .string(`expected text of at most ${max} characters`)
    .max(max, `expected at most ${max} characters`)
    .refine((given) => !given.includes('\0') && given.isWellFormed(), 'expected text without NUL characters and broken surrogates');
}

export const STORABLE_TIMES = 'expected a time from the year 1 to 9999';

/** Postgres has no year 0, and does not parse JavaScript's format for years of more than four digits. */
export function isStorableTime(time: Date): boolean {
  const year = time.getUTCFullYear();
  return year >= 1 && year <= 9999;
}
