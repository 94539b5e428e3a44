// Formats syncs, drift and orphans as text.
import type { Drift } from '../inventory/drift-store.ts';
import type { Change } from '../inventory/listing.ts';
import type { Orphan } from '../inventory/orphans.ts';
import { stateOfOrphan } from '../inventory/orphans.ts';
import type { SyncAge } from '../inventory/syncs.ts';
import { formatDuration } from '../platform/duration.ts';
import type { SyncReport } from '../inventory/sync/sync-inventory.ts';
import { printable } from '../platform/text.ts';
import { formatTable } from './table.ts';

// The first sync of a large account reports everything as new.
const MOST_LINES = 50;

/** Formats the result of a sync. */
export function formatSync(report: SyncReport): string {
  const { summary, changes, drift, orphans, destroyed, notDestroyed, held, isPaused, tagsRefused, number, tookMs } = printable(report);
  const changed = summary.appeared + summary.returned + summary.changed + summary.vanished;
  const lines = [
    ...some(changes.map(describeChange), changed),
    ...some(drift.map(({ id, providerId, name, field, desired, actual }) => `drifted   ${providerId} ${name}: ${field} is ${actual}, ${desired} is desired (drift ${id})`), summary.drifted),
    ...some(orphans.map(({ id, providerId, name, category, reason }) => `orphan    ${providerId} ${name}: ${category}, ${reason} (orphan ${id})`), orphans.length),
    ...destroyed.map(({ providerId, name, reason }) => `destroyed ${providerId} ${name}: ${reason}`),
    ...some(notDestroyed.map(({ providerId, name, sweepError }) => `FAILED    ${providerId} ${name}: a surplus droplet that could not be destroyed: ${sweepError}`), summary.notDestroyed),
  ];
  if (held.length > 0) lines.push(`HELD      ${summary.held} surplus droplets at once: none is destroyed until you review them with \`arcadia orphans\` and approve with \`arcadia orphans --destroy\``);
  if (isPaused) lines.push('PAUSED    the queue inventory is paused: no surplus droplet is destroyed until it is resumed');
  if (tagsRefused) lines.push('TAGS      tags of destroyed droplets are left in the account: the token probably lacks the scope tag:read or tag:delete');
  const counts = `${summary.appeared} appeared, ${summary.returned} returned, ${summary.changed} changed, ${summary.vanished} vanished, ${summary.drifted} drifted, ${summary.resolved} resolved${summary.tagsDeleted === 0 ? '' : `, ${summary.tagsDeleted} tags deleted`}`;
  lines.push(`sync ${number}: ${summary.droplets} droplets in ${formatDuration(tookMs)}; ${counts}`);
  return lines.join('\n');
}

function describeChange({ kind, providerId, name, fields }: Change): string {
  return `${kind.padEnd(9)} ${providerId} ${name}${fields.length === 0 ? '' : `: ${fields.join(', ')}`}`;
}

function some(lines: readonly string[], count: number): string[] {
  const shown = lines.slice(0, MOST_LINES);
  return count > shown.length ? [...shown, `… and ${count - shown.length} more`] : shown;
}

/** How old the findings are. */
export type AsOf = Readonly<{ sync: Pick<SyncAge, 'readAt'>; now: Date }>;

/** Says that nothing was found, and when somebody looked. */
function noneOf(what: string, { sync: { readAt }, now }: AsOf): string {
  if (readAt === null) return `nothing is known of ${what}: the inventory was never synced. Run \`arcadia sync\`, or start a worker`;
  return `no ${what} as of the last complete sync, ${formatDuration(Math.max(0, now.getTime() - readAt.getTime()))} ago`;
}

/** Formats findings as a table. */
export function formatDrift(findings: readonly Drift[], asOf: AsOf, maxWidth: number | null): string {
  if (findings.length === 0) return noneOf('drift', asOf);
  return formatTable(
    [
      'id',
      'droplet',
      { name: 'name', rank: 4, least: 8 },
      { name: 'field', rank: 1, least: 8 },
      { name: 'desired', rank: 2, least: 8 },
      { name: 'actual', rank: 3, least: 8 },
      { name: 'since', rank: 6, least: 16 },
      { name: 'last seen', rank: 7, least: 16 },
      { name: 'resolved', rank: 5, least: 8 },
    ],
    findings.map((drift) => [
      String(drift.id),
      drift.providerId,
      drift.name,
      drift.field,
      drift.desired,
      drift.actual,
      minute(drift.firstSeenAt),
      minute(drift.lastSeenAt),
      drift.resolvedAt === null ? '' : `${drift.resolution?.replace('_', ' ')} ${minute(drift.resolvedAt)}`,
    ]),
    maxWidth,
  );
}

/** Formats orphans as a table, with their cost. `what`: what they are, if there are none. */
export function formatOrphans(orphans: readonly Orphan[], { what = 'orphans', ...asOf }: AsOf & Readonly<{ what?: string }>, maxWidth: number | null): string {
  if (orphans.length === 0) return noneOf(what, asOf);
  const table = formatTable(
    [
      'id',
      { name: 'category', rank: 1, least: 8 },
      { name: 'droplet', rank: 2, least: Number.POSITIVE_INFINITY },
      { name: 'name', rank: 4, least: 8 },
      { name: 'region', rank: 9, least: 6 },
      { name: 'size', rank: 8, least: 8 },
      { name: 'USD/h', rank: 5, least: 7 },
      { name: 'created', rank: 10, least: 16 },
      { name: 'seen since', rank: 7, least: 16 },
      { name: 'why', rank: 6, least: 12 },
      { name: 'saga', rank: 3, least: Number.POSITIVE_INFINITY },
    ],
    orphans.map((orphan) => [
      String(orphan.id),
      describeState(orphan),
      orphan.providerId,
      orphan.name,
      orphan.region ?? '',
      orphan.sizeSlug ?? '',
      orphan.priceUsdPerHour === null ? '?' : usd(orphan.priceUsdPerHour),
      minute(orphan.createdAt),
      minute(orphan.firstSeenAt),
      orphan.sweepError === null ? orphan.reason : `${orphan.reason}; not destroyed: ${orphan.sweepError}`,
      orphan.sagaId ?? '',
    ]),
    maxWidth,
  );
  const sums = (['surplus', 'unknown', 'acknowledged'] as const).flatMap((state) => {
    const those = orphans.filter((orphan) => stateOfOrphan(orphan) === state);
    return those.length === 0 ? [] : [`${those.length} ${state}: ${describeCost(those)}`];
  });
  return [table, '', ...sums].join('\n');
}

function describeState(orphan: Orphan): string {
  return orphan.approvedAt === null ? stateOfOrphan(orphan) : `${orphan.category}, approved`;
}

/** Describes the total price of droplets: a lower bound if that of some is unknown. */
export function describeCost(orphans: readonly Pick<Orphan, 'priceUsdPerHour'>[]): string {
  const known = orphans.flatMap(({ priceUsdPerHour }) => priceUsdPerHour ?? []);
  if (known.length === 0) return 'price unknown';
  return `${known.length < orphans.length ? 'at least ' : ''}${usd(known.reduce((sum, price) => sum + price, 0))} USD an hour`;
}

function usd(amount: number): string {
  return amount.toFixed(5);
}

function minute(time: Date): string {
  return time.toISOString().slice(0, 16);
}
