// Reads DigitalOcean's rate limit from response headers. Other modules enforce it.

import type { IncomingHttpHeaders } from 'node:http';
import { parseRetryAfterMs } from '../platform/retry-after.ts';

/** The state of the token's rate limit, as of one response. */
export type RateLimit = {
  /** Requests per window. */
  readonly limit: number;
  readonly remaining: number;
  /** When the oldest counted request expires and frees one slot; not when all slots are free. */
  readonly resetAt: Date;
};

// The minute limit rolls: after a few seconds a part of it is free again.
const DEFAULT_THROTTLE_MS = 10_000;
// After a shorter wait, a whole fleet would retry at once.
const MIN_THROTTLE_MS = 1_000;
// The longest window is a rolling hour, so no correct response asks for more. A nonsense value must not stop a fleet for
// good.
const MAX_THROTTLE_MS = 3_600_000;

/**
 * Reads `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset` (Unix seconds). Null unless all three are valid.
 * Source: https://docs.digitalocean.com/reference/api/, "Rate Limit".
 */
export function readRateLimit(headers: IncomingHttpHeaders): RateLimit | null {
  const limit = readCount(headers['ratelimit-limit']);
  const remaining = readCount(headers['ratelimit-remaining']);
  const resetAt = readUnixTime(headers['ratelimit-reset']);
  if (limit === null || remaining === null || resetAt === null) return null;
  return { limit, remaining, resetAt };
}

/**
 * Reads `retry-after`, in seconds or as an HTTP date (RFC 9110, 10.2.3). Returns milliseconds from 1 s to 1 h; null
 * without the header.
 */
export function readRetryAfterMs(headers: IncomingHttpHeaders, nowMs: number): number | null {
  const value = headers['retry-after'];
  const afterMs = value === undefined ? null : parseRetryAfterMs(value, nowMs);
  return afterMs === null ? null : clampThrottleMs(afterMs);
}

/**
 * Returns the pause after a 429, in milliseconds from 1 s to 1 h: `retry-after` if present; else the time until
 * `ratelimit-reset` if nothing remains; else 10 s.
 */
export function computeThrottleMs(headers: IncomingHttpHeaders, nowMs: number): number {
  const retryAfterMs = readRetryAfterMs(headers, nowMs);
  if (retryAfterMs !== null) return retryAfterMs;
  const resetAt = readUnixTime(headers['ratelimit-reset']);
  if (readCount(headers['ratelimit-remaining']) === 0 && resetAt !== null) {
    return clampThrottleMs(resetAt.getTime() - nowMs);
  }
  return DEFAULT_THROTTLE_MS;
}

function clampThrottleMs(ms: number): number {
  return Math.min(Math.max(ms, MIN_THROTTLE_MS), MAX_THROTTLE_MS);
}

function readUnixTime(value: string | string[] | undefined): Date | null {
  const seconds = readCount(value);
  if (seconds === null) return null;
  const time = new Date(seconds * 1_000);
  return Number.isNaN(time.getTime()) ? null : time;
}

function readCount(value: string | string[] | undefined): number | null {
  return typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : null;
}
