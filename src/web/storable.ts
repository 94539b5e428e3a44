// What Postgres can store and look for: neither every text of JavaScript's, nor every time.
import { z } from 'zod';

/** Text of at most `max` characters, without NUL and halves of surrogate pairs. */
export function storableText(max: number): z.ZodString {
  return z
    .string(`expected text of at most ${max} characters`)
    .max(max, `expected at most ${max} characters`)
    .refine((given) => !given.includes('\0') && given.isWellFormed(), 'expected text without NUL characters and broken surrogates');
}

export const STORABLE_TIMES = 'expected a time from the year 1 to 9999';

/** Postgres knows no year 0, and JavaScript writes years of more than four digits as Postgres does not read them. */
export function isStorableTime(time: Date): boolean {
  const year = time.getUTCFullYear();
  return year >= 1 && year <= 9999;
}
