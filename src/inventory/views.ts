// What the web process shows of the inventory, bound to a database.
import type { Database } from '../platform/db.ts';
import { acceptDrift, listDrift } from './drift-store.ts';
import { listDroplets } from './droplet-list.ts';
import { findDroplet } from './droplet-record.ts';
import { inventoryOutcomes } from './outcomes.ts';
import { acknowledgeOrphans, unacknowledgeOrphans } from './orphan-acknowledgement.ts';
import { approveOrphans, listOrphans } from './orphans.ts';
import { approveLeases, findLeaseRows, listLeases, readLeaseOverview } from './lease-listing.ts';
import { findLeases, renewLease } from './lease.ts';
import { setProtection } from './protection.ts';
import { searchInventory } from './search.ts';
import type { Report } from './ready-callbacks.ts';
import { takeReport } from './ready-callbacks.ts';
import { readRequests } from './request-counts.ts';
import { readInventoryStats } from './stats.ts';
import { adoptContract, destroyContract } from '../steps/contract.ts';
import { listSyncs, readSyncAge } from './syncs.ts';

/** Binds the reads, and the few writes, of the HTTP API and the metrics. */
export function openInventoryViews(db: Database) {
  return {
    resources: { search: (...filter: Tail<typeof searchInventory>) => searchInventory(db, ...filter) },
    inventory: {
      drift: (...how: Tail<typeof listDrift>) => listDrift(db, ...how),
      acceptDrift: (...what: Tail<typeof acceptDrift>) => acceptDrift(db, ...what),
      orphans: (limit: number) => listOrphans(db, limit),
      acknowledgeOrphans: (...what: Tail<typeof acknowledgeOrphans>) => acknowledgeOrphans(db, ...what),
      unacknowledgeOrphans: (...what: Tail<typeof unacknowledgeOrphans>) => unacknowledgeOrphans(db, ...what),
      approveOrphans: (...what: Tail<typeof approveOrphans>) => approveOrphans(db, ...what),
      droplets: (...how: Tail<typeof listDroplets>) => listDroplets(db, ...how),
      droplet: (dropletId: number) => findDroplet(db, dropletId),
      /** Names of the sagas that a person starts for a droplet. */
      sagas: { destroy: destroyContract.name, adopt: adoptContract.name },
      leases: (...how: Tail<typeof listLeases>) => listLeases(db, ...how),
      leaseRows: (...sagaIds: Tail<typeof findLeaseRows>) => findLeaseRows(db, ...sagaIds),
      leaseOverview: () => readLeaseOverview(db),
      leasesOf: (...sagaIds: Tail<typeof findLeases>) => findLeases(db, ...sagaIds),
      approveLeases: (...what: Tail<typeof approveLeases>) => approveLeases(db, ...what),
      renewLease: (...what: Tail<typeof renewLease>) => renewLease(db, ...what),
      report: (token: string, report: Report) => takeReport(db, token, report),
      requests: (...span: Tail<typeof readRequests>) => readRequests(db, ...span),
      syncs: (limit: number) => listSyncs(db, limit),
      syncAge: () => readSyncAge(db),
      setProtection: (...what: Tail<typeof setProtection>) => setProtection(db, ...what),
    },
    stats: () => readInventoryStats(db),
    /** What is told of beside the ends of sagas. */
    outcomes: inventoryOutcomes,
  };
}

export type InventoryViews = ReturnType<typeof openInventoryViews>;

type Tail<F> = F extends (db: never, ...rest: infer Rest) => unknown ? Rest : never;
