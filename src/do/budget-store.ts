// Stores the fleet's request budget: the contract of budget-redis.ts, budget-postgres.ts and budget-local.ts.

/** One draw: the size of both windows, the part reserved for higher priorities, and the share of reads. */
export type BudgetAsk = Readonly<{
  perMinute: number;
  perHour: number;
  keepMinute: number;
  keepHour: number;
  /**
   * The share reserved for reads. Other requests leave reads the unused part of it. Reads that exceed it leave the same
   * amount to other requests and are allowed only while nothing is queued.
   */
  readsMinute: number;
  readsHour: number;
  isRead: boolean;
  /** Whether earlier refused requests go first. If false, a request succeeds whenever there is room. */
  isQueued: boolean;
}>;

/**
 * `waitMs` is 0 if the request may be sent. It is then counted under the number `serial`. `foreign` counts requests that
 * other software made with the same token.
 */
export type BudgetAnswer = Readonly<{ waitMs: number; usedMinute: number; usedHour: number; foreign: number; serial: number }>;

/** Estimates without drawing. Changes nothing, so that nobody waits for it. */
export type BudgetForecast = Readonly<{
  /** How long a request that asks now would wait, in milliseconds; 0: there is room now. */
  forecast(ask: BudgetAsk): Promise<number>;
}>;

/** The store. Windows roll. All times come from the store's clock, so clock differences between workers don't matter. */
export type BudgetStore = Readonly<{
  draw(ask: BudgetAsk): Promise<BudgetAnswer>;
  /** Counts a drawn request from now on, because it may have reached DigitalOcean only now. */
  late(serial: number): Promise<void>;
  /** Handles a 429: refuses every draw for `forMs` and lowers the minute limit for several minutes. */
  hold(forMs: number): Promise<void>;
  /** Corrects the hourly count with the numbers that DigitalOcean reports. */
  correct(limit: number, remaining: number): Promise<void>;
}>;

// The shortest wait for a request that has no place in the queue.
export const SOONEST_MS = 1_000;

// We count a request when it is drawn; DigitalOcean counts it when it arrives. A request therefore leaves our window this
// much later. A request that takes longer is counted again, from its end.
export const ARRIVAL_MARGIN_MS = 1_000;
