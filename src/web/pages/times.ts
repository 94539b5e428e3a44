// Formats times for the pages: readable at a glance, with the exact UTC time as a tooltip.
import { formatRunning } from '../../platform/duration.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** `2026-01-31 12:00:00.123 UTC` */
export function formatTime(time: Date): string {
  return `${time.toISOString().replace('T', ' ').replace('Z', '')} UTC`;
}

/** Renders a time. The script shows it in the reader's time zone, with UTC as the tooltip. */
export function exactTime(time: Date): Html {
  return html`<time class="exact" datetime="${time.toISOString()}" title="${formatTime(time)}" data-exact>${formatTime(time)}</time>`;
}

/** Renders how long ago a time is. The script keeps it up to date. */
export function ago(time: Date, now: Date): Html {
  return html`<time datetime="${time.toISOString()}" title="${formatTime(time)}" data-ago>${formatRunning(now.getTime() - time.getTime())} ago</time>`;
}

/** Renders the time until something happens. The script counts down. */
export function inTime(ms: number, now: Date): Html {
  const time = new Date(now.getTime() + ms);
  return html`<time datetime="${time.toISOString()}" title="${formatTime(time)}" data-in>${ms <= 0 ? 'now' : `in ${formatRunning(ms)}`}</time>`;
}
