// What keeps the account of the request budget: the contract of budget-redis.ts, budget-postgres.ts and budget-local.ts.

/** One draw: what the windows hold, how much of them is kept for those who go first, and what belongs to reads. */
export type BudgetAsk = Readonly<{
  perMinute: number;
  perHour: number;
  keepMinute: number;
  keepHour: number;
  /**
   * The share of reads: others leave them what they have not used of it. Reads beyond it leave as much to others, and
   * are for when nobody is queued.
   */
  readsMinute: number;
  readsHour: number;
  isRead: boolean;
  /** Whether those who were refused before go first; else whoever comes at the right moment does. */
  isQueued: boolean;
}>;

/**
 * `waitMs` is 0 when the request may be made; it was counted then, under the number `serial`. `foreign`: requests of
 * others with the same token.
 */
export type BudgetAnswer = Readonly<{ waitMs: number; usedMinute: number; usedHour: number; foreign: number; serial: number }>;

/** The account itself. Windows are rolling; times are the store's own, so that the clocks of workers don't matter. */
export type BudgetStore = Readonly<{
  draw(ask: BudgetAsk): Promise<BudgetAnswer>;
  /** A request that was drawn a while ago may have arrived only now: it counts from now on. */
  late(serial: number): Promise<void>;
  /** A 429: nobody draws for so long, and the minute's window is taken for smaller for some minutes. */
  hold(forMs: number): Promise<void>;
  /** What DigitalOcean itself says of the rolling hour. */
  correct(limit: number, remaining: number): Promise<void>;
}>;

// Whoever has no place in the queue does not come back sooner.
export const SOONEST_MS = 1_000;

// A request is counted when it is drawn, and by DigitalOcean when it arrives: it leaves our window so much later. One that
// takes longer is counted anew.
export const ARRIVAL_MARGIN_MS = 1_000;
