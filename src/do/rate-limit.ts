// What the headers of an answer say about DigitalOcean's rate limit. It reads them; keeping to the limit is up to others.

import type { IncomingHttpHeaders } from 'node:http';

/** DigitalOcean's account of the token's budget, as of one answer. */
export type RateLimit = {
  /** Requests per window. */
  readonly limit: number;
  readonly remaining: number;
  /** When the oldest counted request expires and frees one; not when all are free again. */
  readonly resetAt: Date;
};

// The minute limit is a rolling one: after a few seconds a part of it is free again.
const DEFAULT_THROTTLE_MS = 10_000;
// A wait below this would have a whole fleet knock again at once.
const MIN_THROTTLE_MS = 1_000;
// The longest window is a rolling hour, so no honest answer asks for more; a nonsense value must not stop a fleet for good.
const MAX_THROTTLE_MS = 3_600_000;

/**
 * Reads `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset` (Unix seconds), or null unless all three make sense.
 * Source: https://docs.digitalocean.com/reference/api/, "Rate Limit".
 */
export function readRateLimit(headers: IncomingHttpHeaders): RateLimit | null {
  const limit = readCount(headers['ratelimit-limit']);
  const remaining = readCount(headers['ratelimit-remaining']);
  const resetAt = readUnixTime(headers['ratelimit-reset']);
  if (limit === null || remaining === null || resetAt === null) return null;
  return { limit, remaining, resetAt };
}

/** Reads `retry-after`, in seconds or as an HTTP date (RFC 9110, 10.2.3), as milliseconds from 1 s to 1 h; null without one. */
export function readRetryAfterMs(headers: IncomingHttpHeaders, nowMs: number): number | null {
  const value = headers['retry-after'];
  if (value === undefined) return null;
  const seconds = readCount(value);
  if (seconds !== null) return clampThrottleMs(seconds * 1_000);
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? null : clampThrottleMs(dateMs - nowMs);
}

/**
 * Says how long to pause after a 429, in milliseconds from 1 s to 1 h: `retry-after` if there is one, else, when nothing
 * remains, the time until `ratelimit-reset`, else 10 s.
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
