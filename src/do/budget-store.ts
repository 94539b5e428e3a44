// Stores the fleet's request budget: the contract of budget-redis.ts, budget-postgres.ts and budget-local.ts.

/**
 * The place of a waiting request. Requesters take turns by their weights; within a requester, `own` decides, compared as
 * text. A request that asks again has the same `requester` and `own`.
 */
export type Turn = Readonly<{
  /** 16 characters that stand for the requester. */
  requester: string;
  own: string;
  /** How many turns the requester has for each turn of a requester with weight 1; above 0. */
  weight: number;
}>;

/** One draw: the size of both windows, the part reserved for higher priorities, and the share of reads. */
export type BudgetAsk = Readonly<{
  perMinute: number;
  perHour: number;
  keepMinute: number;
  keepHour: number;
  /**
   * The share reserved for reads. Other requests leave reads the unused part of it. Reads that exceed it leave the same
   * amount to other requests and are allowed only while nobody waits for a turn.
   */
  readsMinute: number;
  readsHour: number;
  isRead: boolean;
  /** Its turn, if it waits for one. Null: the request succeeds whenever there is room. */
  turn: Turn | null;
}>;

/**
 * `waitMs` is 0 if the request may be sent. It is then counted under the number `serial`. Otherwise `waitMs` estimates when
 * its turn comes, and `againMs` says when to ask again: sooner, if the turn is far away and the estimate may be wrong.
 * `foreign` counts requests that other software made with the same token.
 */
export type BudgetAnswer = Readonly<{ waitMs: number; againMs: number; usedMinute: number; usedHour: number; foreign: number; serial: number }>;

/** Estimates without drawing. Changes nothing, so that nobody waits for it. */
export type BudgetForecast = Readonly<{
  /** How long a request that asks now would wait, in milliseconds; 0: there is room now. */
  forecast(ask: BudgetAsk): Promise<number>;
}>;

/** The store. Windows roll. All times come from the store's clock, so clock differences between workers don't matter. */
export type BudgetStore = Readonly<{
  draw(ask: BudgetAsk): Promise<BudgetAnswer>;
  /** Gives up the place of a request that will not ask again. Without this, it is given up a few seconds after its time. */
  withdraw(turn: Turn): Promise<void>;
  /** Counts a drawn request from now on, because it may have reached DigitalOcean only now. */
  late(serial: number): Promise<void>;
  /** Handles a 429: refuses every draw for `forMs` and lowers the minute limit for several minutes. */
  hold(forMs: number): Promise<void>;
  /** Corrects the hourly count with the numbers that DigitalOcean reports. */
  correct(limit: number, remaining: number): Promise<void>;
}>;

// The shortest wait for a request that has no turn.
export const SOONEST_MS = 1_000;

// We count a request when it is drawn; DigitalOcean counts it when it arrives. A request therefore leaves our window this
// much later. A request that takes longer is counted again, from its end.
export const ARRIVAL_MARGIN_MS = 1_000;

// How long after its time a waiting request keeps its place without asking again. Its worker may be busy, or gone. A
// request that comes later takes its place in its requester's order again, so a short time costs it nothing.
export const TURN_GRACE_MS = 5_000;

// A far turn may come sooner than estimated: others are cancelled, or a limit grows back. So a request asks again at half
// its wait, but not sooner than this. A request that waits for an hour asks about seven times.
export const ASK_AGAIN_MS = 60_000;

// The part of the creates of a window that is not granted in one burst, but evenly over the window, so that a requester
// that comes while others use up the window waits for the next of these and not for the window's end. Requests that would
// otherwise be alone are not held back: if all that wait fit into the rest of the window, they go at once.
export const PACED_MINUTE = 0.1;
export const PACED_HOUR = 0.1;

// Requests that go before creates, such as those of deletions, count as part of the bursts. Bursts leave room for those that
// are still to come, as many as came within this time suggest, and at most as many as are paced: after many deletions at
// once, no more come. They would otherwise take the room of what is paced later in the window.
export const FIRSTS_OVER_MS = 1_200_000;

// When a request that only the pace of a minute holds back asks again: by then the store knows how many wait.
export const GATHER_MS = 2_000;
