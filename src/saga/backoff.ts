// Computes the delay before the next attempt.

/** The longest delay between two attempts. */
export const BACKOFF_CAP_MS = 60_000;

/** The same for a failure that may last for hours. 20 attempts then take two and a half hours on average. */
export const PATIENT_BACKOFF_CAP_MS = 30 * 60_000;

// The shortest delay. Without it, a saga that fails at once could spin.
const BACKOFF_FLOOR_MS = 100;

/**
 * Computes exponential backoff with full jitter: a random delay up to `baseMs * 2^(attempt - 1)`, at most `capMs`. Full
 * jitter spreads the retries of a fleet that failed together (AWS Architecture Blog, "Exponential Backoff And Jitter").
 *
 * @param attempt the number of failed attempts so far, from 1
 * @param random from 0 (inclusive) to 1 (exclusive)
 * @returns milliseconds, from 100 to `capMs`
 */
export function computeBackoffMs(attempt: number, baseMs: number, random: number, capMs = BACKOFF_CAP_MS): number {
  return Math.max(BACKOFF_FLOOR_MS, Math.round(backoffCeilingMs(attempt, baseMs, capMs) * random));
}

/** The longest delay that {@link computeBackoffMs} may choose, in milliseconds. */
export function backoffCeilingMs(attempt: number, baseMs: number, capMs = BACKOFF_CAP_MS): number {
  return Math.min(capMs, baseMs * 2 ** Math.min(Math.max(attempt, 1) - 1, 30));
}
