// Parts of the pages about droplets: prices, states, leases, and how old all of that is.
import type { ListedDroplet } from '../../inventory/droplet-list.ts';
import type { SyncAge } from '../../inventory/syncs.ts';
import { syncLimitSeconds } from '../../fleet/postgres-conditions.ts';
import { formatRunning } from '../../platform/duration.ts';
import { shortTextOf } from '../../platform/text.ts';
import { statusWords } from '../../saga/words.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { ago, formatTime, inTime } from './times.ts';

/** Formats USD an hour: all digits of a single droplet, cents of a sum. */
export function usd(perHour: number): string {
  const digits = perHour >= 1 ? 2 : 5;
  return `$${perHour.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

/** Formats a count. */
export function number(count: number): string {
  return count.toLocaleString('en-US');
}

type Shown = Pick<ListedDroplet, 'status' | 'deletedAt' | 'absences' | 'isManaged' | 'isProtected' | 'drift' | 'orphan' | 'atWork' | 'lastSeenAt'>;

/** The droplet's states as badges: a sign and words, not color alone. */
export function badgesOf(droplet: Shown): Html[] {
  const { status, deletedAt, absences, isManaged, isProtected, drift, orphan, atWork } = droplet;
  const isGone = deletedAt !== null;
  return [
    ...(isGone ? [badge('gone', 'gone')] : [badge(status === 'active' ? 'active' : 'plain', status)]),
    ...(drift.length > 0 ? [badge('drifted', `drifted: ${drift.join(', ')}`)] : []),
    ...(orphan === null || isGone ? [] : [badge('orphan', `orphan: ${orphan}`)]),
    ...(isProtected ? [badge('protected', 'protected')] : []),
    ...(isManaged || isGone || orphan !== null ? [] : [badge('plain', 'not managed')]),
    ...(absences > 0 && !isGone ? [badge('unseen-droplet', 'missing in the last sync')] : []),
    ...(atWork === null ? [] : [html`<a class="badge ${atWork.status}" href="/sagas/${atWork.id}">${atWork.name}: ${statusWords[atWork.status]}</a>`]),
  ];
}

/** A badge of a tone: see pages.css. */
export function badge(tone: string, words: string): Html {
  return html`<span class="badge ${tone}">${words}</span>`;
}

/** When the lease ends, or that it is over. */
export function leaseOf({ leaseUntil, leaseExpiredAt, isManaged }: Pick<ListedDroplet, 'leaseUntil' | 'leaseExpiredAt' | 'isManaged'>, now: Date): Html {
  if (leaseUntil === null) return html`<span class="none">${isManaged ? 'none' : ''}</span>`;
  if (leaseExpiredAt !== null) return html`expired ${ago(leaseExpiredAt, now)}`;
  const leftMs = leaseUntil.getTime() - now.getTime();
  return leftMs > 0 ? html`<span>ends ${inTime(leftMs, now)}</span>` : html`<b class="over">ended ${ago(leaseUntil, now)}</b>`;
}

/** Age in two units, with the exact time as a tooltip. */
export function ageOf(createdAt: Date, now: Date): Html {
  return html`<time datetime="${createdAt.toISOString()}" title="${formatTime(createdAt)}">${formatRunning(now.getTime() - createdAt.getTime())}</time>`;
}

/** Whether something that was last read at `readAt` is too old to be believed. */
export function isOutdated(readAt: Date, now: Date, syncIntervalMs: number | null): boolean {
  return syncIntervalMs !== null && now.getTime() - readAt.getTime() > syncLimitSeconds(syncIntervalMs) * 1_000;
}

/** Whether the whole inventory is: then nothing on a page may look well. */
export function isListOutdated({ readAt }: SyncAge, now: Date, syncIntervalMs: number | null): boolean {
  return readAt === null || isOutdated(readAt, now, syncIntervalMs);
}

/** How old the inventory is: one line while that is well, a warning otherwise. */
export function syncNotice({ readAt, failed }: SyncAge, now: Date, syncIntervalMs: number | null): Html {
  const why = failed === null ? null : html` The last sync failed ${ago(failed.at, now)}${failed.error === null ? '.' : html`: <q>${shortTextOf(failed.error)}</q>`}`;
  const action = html` Run <code>arcadia sync</code> to see why.`;
  if (readAt === null) return html`<div class="now wait"><p><b>The inventory was never synced.</b> It lacks droplets that were made elsewhere, and nobody has checked the others.${why} Run <code>arcadia sync</code>, or start a worker.</p></div>`;
  if (isOutdated(readAt, now, syncIntervalMs)) return html`<div class="now wait"><p><b>Out of date: the inventory was last synced ${ago(readAt, now)}.</b> Later changes at DigitalOcean are missing from it.${why}${action}</p></div>`;
  return html`<p class="synced">Synced ${ago(readAt, now)}.${why}</p>`;
}
