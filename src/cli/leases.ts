// `leases` lists when droplets will be destroyed, and approves leases that the brake against mass expiry holds.
import { approveLeases, listLeases } from '../inventory/lease-listing.ts';
import type { LeaseRow } from '../inventory/lease-listing.ts';
import { describeLease } from '../inventory/lease.ts';
import { createDatabaseClock } from '../platform/clock.ts';
import { printable } from '../platform/text.ts';
import type { App } from '../saga/app.ts';
import { isConfirmed } from './inventory.ts';
import { complain, terminalWidth, write } from './output.ts';
import { requester } from './requester.ts';
import { formatTable } from './table.ts';
import { withInventoryDatabase } from './with-database.ts';

const MOST_ROWS = 10_000;

export async function leasesCommand(app: App, options: { ended?: boolean; without?: boolean; destroy?: boolean; yes?: boolean; json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db) => {
    const choice = options.ended === true || options.destroy === true ? 'ended' : options.without === true ? 'without' : 'all';
    const leases = await listLeases(db, { choice, limit: MOST_ROWS });
    const now = new Date(await createDatabaseClock(db)());
    if (options.destroy !== true) {
      write(options.json === true ? JSON.stringify(leases) : formatLeases(leases, now));
      return 0;
    }
    const held = leases.filter(({ state, approvedAt }) => state === 'ended' && approvedAt === null);
    if (options.json !== true) write(formatLeases(held, now));
    if (held.length > 0 && options.yes !== true && !(await isConfirmed(`Destroy these ${held.length} droplets?`, held.length))) {
      complain('nothing was approved');
      return 1;
    }
    const approved = await approveLeases(db, held.map(({ sagaId, generation }) => ({ sagaId, generation })), requester());
    if (options.json === true) write(JSON.stringify({ approved }));
    else if (approved.length > 0) write(`approved ${approved.length}: the workers destroy these droplets within seconds`);
    return 0;
  });
}

const words: Readonly<Record<LeaseRow['state'], (lease: LeaseRow, now: Date) => string>> = {
  leased: ({ leaseUntil, expiredAt, isWarned }, now) => (leaseUntil === null ? '' : `${describeLease({ leaseUntil, expiredAt }, now)}${isWarned ? ', warned' : ''}`),
  ended: ({ approvedAt }) => (approvedAt === null ? 'ended' : 'ended, approved'),
  protected: () => 'ended, protected',
  expired: ({ destroyedBy }) => `expired${destroyedBy === null ? '' : `, saga ${destroyedBy}`}`,
  none: () => 'no lease',
};

function formatLeases(given: readonly LeaseRow[], now: Date): string {
  if (given.length === 0) return 'no leases';
  const table = formatTable(
    ['droplet', { name: 'name', rank: 2, least: 8 }, { name: 'lease', rank: 1, least: 9 }, { name: 'ends', rank: 3, least: 19 }, { name: 'limit', rank: 4, least: 19 }, { name: 'requested by', rank: 5, least: 8 }, 'saga'],
    printable(given).map((lease) => [
      lease.dropletId === null ? '' : String(lease.dropletId),
      lease.name,
      words[lease.state](lease, now),
      lease.leaseUntil?.toISOString().slice(0, 19) ?? '',
      lease.leaseLimit?.toISOString().slice(0, 19) ?? '',
      lease.requestedBy ?? '',
      lease.sagaId,
    ]),
    terminalWidth(),
  );
  return [table, ...whatToDo(given)].join('\n');
}

/** What to run for droplets whose lease has ended, but which their protection keeps. */
function whatToDo(leases: readonly LeaseRow[]): string[] {
  const kept = leases.flatMap(({ state, dropletId }) => (state === 'protected' && dropletId !== null ? [dropletId] : []));
  const [first] = kept;
  if (first === undefined) return [];
  const example = kept.length === 1 ? '' : 'For example:\n';
  return ['', `${kept.length === 1 ? `The lease of droplet ${first} has ended. It is not destroyed, because it is protected.` : `The leases of ${kept.length} protected droplets have ended. They are not destroyed while protected.`}\n${example}  keep it:    arcadia renew ${first} --ttl 4h\n  destroy it: arcadia unprotect ${first}`];
}
