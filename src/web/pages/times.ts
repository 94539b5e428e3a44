// Times on the pages: what a person reads at a glance, with the exact time in UTC behind it.
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** Milliseconds in two units at most: `250 ms`, `4.2 s`, `3 min 20 s`, `5 h 2 min`, `12 d 3 h`. */
export function formatDuration(durationMs: number): string {
  const ms = Math.max(0, Math.round(durationMs));
  if (ms > 0 && ms < 1_000) return `${ms} ms`;
  if (ms < 59_500) return `${(ms / 1_000).toFixed(ms < 9_950 && ms % 1_000 !== 0 ? 1 : 0)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / (24 * 60))} d ${Math.floor((minutes % (24 * 60)) / 60)} h`;
}

/** `2026-01-31 12:00:00.123 UTC` */
export function formatTime(time: Date): string {
  return `${time.toISOString().replace('T', ' ').replace('Z', '')} UTC`;
}

/** How long ago a time is; the script keeps it up to date. */
export function ago(time: Date, now: Date): Html {
  return html`<time datetime="${time.toISOString()}" title="${formatTime(time)}" data-ago>${formatDuration(wholeSeconds(now.getTime() - time.getTime()))} ago</time>`;
}

/** How long it is until something happens; the script counts down. */
export function inTime(ms: number, now: Date): Html {
  const time = new Date(now.getTime() + ms);
  return html`<time datetime="${time.toISOString()}" title="${formatTime(time)}" data-in>${ms <= 0 ? 'now' : `in ${formatDuration(wholeSeconds(ms))}`}</time>`;
}

/** What changes while it is looked at is told in whole seconds. */
function wholeSeconds(ms: number): number {
  return Math.max(0, Math.ceil(ms / 1_000)) * 1_000;
}
