// DigitalOcean's rate limits: a rolling minute and a rolling hour for each token. A request counts for one window
// length from when it was made; refused ones do not count.

const minuteMs = 60_000;
const hourMs = 3_600_000;

/** Requests a window lets through; null is no limit. */
export type RateLimits = { readonly perMinute: number | null; readonly perHour: number | null };

/** When the requests of one token were made that still count, oldest first. */
export type RateWindows = { readonly minute: Window; readonly hour: Window };

type Window = { madeAtMs: number[]; expired: number };

/** Whether a request may pass, and what to tell about it. */
export type RateVerdict = { readonly allowed: boolean; readonly headers: Record<string, string> };

/** Makes the windows of a token that was not seen before. */
export function createRateWindows(): RateWindows {
  return { minute: { madeAtMs: [], expired: 0 }, hour: { madeAtMs: [], expired: 0 } };
}

/**
 * Counts a request made at `nowMs` if both windows have room. The headers tell of the hour, or of the minute once that
 * is used up; `ratelimit-reset` is the Unix second at which the oldest request expires; `retry-after` (seconds) comes
 * with the minute's refusal only.
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

/** The headers for an answer that is not counted, such as a 401. */
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
