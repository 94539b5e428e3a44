// The header `Retry-After`, as every server that we ask may send it.

/**
 * Parses `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3).
 *
 * @returns milliseconds from `nowMs` on, negative for a date that is past; null for anything else
 */
export function parseRetryAfterMs(value: string, nowMs: number): number | null {
  if (/^\d{1,15}$/.test(value)) return Number(value) * 1_000;
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? null : dateMs - nowMs;
}
