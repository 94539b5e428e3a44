// What the web process shows of the inventory, bound to a database.
import type { Database } from '../platform/db.ts';
import { acceptDrift, listDrift } from './drift-store.ts';
import { listOrphans } from './orphans.ts';
import { searchInventory } from './search.ts';
import { readInventoryStats } from './stats.ts';

/** Binds the reads, and the one write, of the HTTP API and the metrics. */
export function openInventoryViews(db: Database) {
  return {
    resources: { search: (...filter: Tail<typeof searchInventory>) => searchInventory(db, ...filter) },
    inventory: {
      drift: (...how: Tail<typeof listDrift>) => listDrift(db, ...how),
      acceptDrift: (...what: Tail<typeof acceptDrift>) => acceptDrift(db, ...what),
      orphans: (limit: number) => listOrphans(db, limit),
    },
    stats: () => readInventoryStats(db),
  };
}

type Tail<F> = F extends (db: never, ...rest: infer Rest) => unknown ? Rest : never;
