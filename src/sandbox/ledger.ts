// A record of every API request in order of arrival, so that tests can check a client's claims. Memory is bounded: the
// oldest entries are dropped, but the counts remain.

/**
 * The result of a request: the response status. `lost`: the work was done, but no response was sent or received. `reset`:
 * the connection was reset before any work. `hung`: it waits forever. `pending`: not decided yet.
 */
export type LedgerStatus = number | 'pending' | 'lost' | 'reset' | 'hung';

/** One API request. Times are Unix milliseconds by the sandbox's clock. */
export type LedgerEntry = {
  readonly seq: number;
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly route: string;
  readonly requestId: string;
  readonly userAgent: string;
  /** The droplets that the body of a create names. */
  readonly names: readonly string[];
  status: LedgerStatus;
  answeredAt: number | null;
  made: readonly number[];
  deleted: readonly number[];
  /** The fault that affected it, such as `rule 0` or `errorRate lost`. */
  fault: string | null;
};

/** Counts of all requests since the ledger was cleared, including dropped entries. */
export type LedgerSummary = {
  readonly total: number;
  readonly kept: number;
  readonly byRoute: Readonly<Record<string, number>>;
  readonly byStatus: Readonly<Record<string, number>>;
};

export type Ledger = {
  readonly maxEntries: number;
  readonly ring: LedgerEntry[];
  total: number;
  byRoute: Map<string, number>;
  byStatus: Map<string, number>;
};

/** Creates an empty ledger that keeps the last `maxEntries` requests. */
export function createLedger(maxEntries = 200_000): Ledger {
  return { maxEntries, ring: [], total: 0, byRoute: new Map(), byStatus: new Map() };
}

/** Records a request that has just arrived. */
export function openEntry(
  ledger: Ledger,
  request: Pick<LedgerEntry, 'at' | 'method' | 'path' | 'query' | 'route' | 'requestId' | 'userAgent' | 'names'>,
): LedgerEntry {
  const entry: LedgerEntry = {
    seq: ledger.total,
    ...request,
    status: 'pending',
    answeredAt: null,
    made: [],
    deleted: [],
    fault: null,
  };
  ledger.ring[ledger.total % ledger.maxEntries] = entry;
  ledger.total += 1;
  increment(ledger.byRoute, entry.route);
  return entry;
}

/** Records the result of a request. */
export function closeEntry(ledger: Ledger, entry: LedgerEntry, status: LedgerStatus, at: number): void {
  entry.status = status;
  entry.answeredAt = at;
  // A response in flight when the ledger is cleared counts neither before nor after.
  if (ledger.ring[entry.seq % ledger.maxEntries] === entry) increment(ledger.byStatus, String(status));
}

/** Returns the kept entries, oldest first, from sequence number `since` on. */
export function readLedger(ledger: Ledger, since = 0): LedgerEntry[] {
  const oldest = ledger.total % ledger.maxEntries;
  const ordered =
    ledger.ring.length < ledger.maxEntries ? ledger.ring : [...ledger.ring.slice(oldest), ...ledger.ring.slice(0, oldest)];
  return ordered.filter((entry) => entry.seq >= since);
}

/** Returns counts by route and by status. */
export function summarizeLedger(ledger: Ledger): LedgerSummary {
  return {
    total: ledger.total,
    kept: ledger.ring.length,
    byRoute: Object.fromEntries(ledger.byRoute),
    byStatus: Object.fromEntries(ledger.byStatus),
  };
}

/** Deletes all entries and counts. */
export function clearLedger(ledger: Ledger): void {
  Object.assign(ledger, { ...createLedger(ledger.maxEntries), ring: ledger.ring });
  ledger.ring.length = 0;
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
