// The record of every API request in the order of arrival: what tests hold a client's claims against.
// Memory is bounded: the oldest entries give way, the counts go on.

/**
 * What became of a request: the status answered; `lost` when the work was done but no answer left (or nobody was there
 * to take it), `reset` when the connection was broken before any work, `hung` when it waits for ever, `pending` before that.
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
  status: LedgerStatus;
  answeredAt: number | null;
  made: readonly number[];
  deleted: readonly number[];
  /** The fault that hit it, such as `rule 0` or `errorRate lost`. */
  fault: string | null;
};

/** Counts since the ledger was cleared, of all requests, also of those that gave way. */
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

/** Makes an empty ledger that keeps the last `maxEntries` requests. */
export function createLedger(maxEntries = 200_000): Ledger {
  return { maxEntries, ring: [], total: 0, byRoute: new Map(), byStatus: new Map() };
}

/** Writes down a request that has just arrived. */
export function openEntry(
  ledger: Ledger,
  request: Pick<LedgerEntry, 'at' | 'method' | 'path' | 'query' | 'route' | 'requestId' | 'userAgent'>,
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

/** Writes down what became of it. */
export function closeEntry(ledger: Ledger, entry: LedgerEntry, status: LedgerStatus, at: number): void {
  entry.status = status;
  entry.answeredAt = at;
  // An answer that is still on its way when the ledger is cleared belongs to neither count.
  if (ledger.ring[entry.seq % ledger.maxEntries] === entry) increment(ledger.byStatus, String(status));
}

/** The entries that are kept, oldest first, from sequence number `since` on. */
export function readLedger(ledger: Ledger, since = 0): LedgerEntry[] {
  const oldest = ledger.total % ledger.maxEntries;
  const ordered =
    ledger.ring.length < ledger.maxEntries ? ledger.ring : [...ledger.ring.slice(oldest), ...ledger.ring.slice(0, oldest)];
  return ordered.filter((entry) => entry.seq >= since);
}

/** Counts by route and by status. */
export function summarizeLedger(ledger: Ledger): LedgerSummary {
  return {
    total: ledger.total,
    kept: ledger.ring.length,
    byRoute: Object.fromEntries(ledger.byRoute),
    byStatus: Object.fromEntries(ledger.byStatus),
  };
}

/** Forgets all entries and counts. */
export function clearLedger(ledger: Ledger): void {
  Object.assign(ledger, { ...createLedger(ledger.maxEntries), ring: ledger.ring });
  ledger.ring.length = 0;
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
