// DigitalOcean's rate limits: a rolling minute and a rolling hour per token. A request counts for one window length from
// when it was made. Refused requests do not count.

const minuteMs = 60_000;
const hourMs = 3_600_000;

/** Requests allowed per window; null: no limit. */
export type RateLimits = { readonly perMinute: number | null; readonly perHour: number | null };

/** The times of one token's requests that still count, oldest first. */
export type RateWindows = { readonly minute: Window; readonly hour: Window };

type Window = { madeAtMs: number[]; expired: number };

/** Whether a request may pass, and the rate-limit headers. */
export type RateVerdict = { readonly allowed: boolean; readonly headers: Record<string, string> };

/** Creates the windows of a new token. */
export function createRateWindows(): RateWindows {
  return { minute: { madeAtMs: [], expired: 0 }, hour: { madeAtMs: [], expired: 0 } };
}

/**
 * Counts a request at `nowMs` if both windows have room. The headers describe the hour, or the minute once it is used up.
 * `ratelimit-reset` is the Unix second at which the oldest request expires. `retry-after` (seconds) comes only with the
 * minute's refusal.
 */
export function countRequest(windows: RateWindows, limits: RateLimits, nowMs: number): RateVerdict {
  expire(windows.minute, nowMs - minuteMs);
  expire(windows.hour, nowMs - hourMs);
  const allowed = remaining(windows.minute, limits.perMinute) > 0 && remaining(windows.hour, limits.perHour) > 0;
  if (allowed) {
    if (limits.perMinute !== null) windows.minute.madeAtMs.push(nowMs);
    if (limits.perHour !== null) windows.hour.madeAtMs.push(nowMs);
  }
  return { allowed, headers: rateHeaders(windows, limits, nowMs, allowed) };
}

/** The headers of a response that is not counted, such as a 401. */
export function uncountedRateHeaders(limits: RateLimits, nowMs: number): Record<string, string> {
  return rateHeaders(createRateWindows(), limits, nowMs, true);
}

function rateHeaders(windows: RateWindows, limits: RateLimits, nowMs: number, allowed: boolean): Record<string, string> {
  const hourIsFull = remaining(windows.hour, limits.perHour) <= 0;
  const minuteIsFull = remaining(windows.minute, limits.perMinute) <= 0;
  const tellMinute = limits.perMinute !== null && ((minuteIsFull && !hourIsFull) || limits.perHour === null);
  const [window, limit, lengthMs] = tellMinute
    ? [windows.minute, limits.perMinute ?? 0, minuteMs]
    : [windows.hour, limits.perHour ?? 5000, hourMs];
  const resetMs = (oldest(window) ?? nowMs) + lengthMs;
  const headers: Record<string, string> = {
    'ratelimit-limit': String(limit),
    'ratelimit-remaining': String(Math.max(0, limit - count(window))),
    'ratelimit-reset': String(Math.ceil(resetMs / 1000)),
  };
  if (!allowed && !hourIsFull) headers['retry-after'] = String(Math.max(1, Math.ceil((resetMs - nowMs) / 1000)));
  return headers;
}

function expire(window: Window, olderThanMs: number): void {
  while ((window.madeAtMs[window.expired] ?? Infinity) <= olderThanMs) window.expired += 1;
  if (window.expired > 1000) {
    window.madeAtMs = window.madeAtMs.slice(window.expired);
    window.expired = 0;
  }
}

function remaining(window: Window, limit: number | null): number {
  return limit === null ? Infinity : limit - count(window);
}

function count(window: Window): number {
  return window.madeAtMs.length - window.expired;
}

function oldest(window: Window): number | undefined {
  return window.madeAtMs[window.expired];
}
