// What keeps the account of the request budget: the contract of budget-redis.ts, budget-postgres.ts and budget-local.ts.

/** One draw: what the windows hold, and how much of them is kept for those who go first. */
export type BudgetAsk = Readonly<{ perMinute: number; perHour: number; keepMinute: number; keepHour: number }>;

/** `waitMs` is 0 when the request may be made; it was counted then. `foreign`: requests of others with the same token. */
export type BudgetAnswer = Readonly<{ waitMs: number; usedMinute: number; usedHour: number; foreign: number }>;

/** The account itself. Windows are rolling; times are the store's own, so that the clocks of workers don't matter. */
export type BudgetStore = Readonly<{
  draw(ask: BudgetAsk): Promise<BudgetAnswer>;
  /** A 429: nobody draws for so long, and the minute's window is taken for smaller for some minutes. */
  hold(forMs: number): Promise<void>;
  /** What DigitalOcean itself says of the rolling hour. */
  correct(limit: number, remaining: number): Promise<void>;
}>;

// A request is counted when it is drawn, and by DigitalOcean when it arrives: it leaves our window so much later.
export const ARRIVAL_MARGIN_MS = 1_000;
