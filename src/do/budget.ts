// The fleet's budget of requests to DigitalOcean. Every request is drawn from it before it is sent. All workers share one
// store, and the rate-limit headers of responses correct it.

import { createHash, randomUUID } from 'node:crypto';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import type { ObservedAnswer } from './observed-answer.ts';
import { createLocalBudgetStore } from './budget-local.ts';
import type { BudgetAnswer, BudgetAsk, BudgetForecast, BudgetStore, Turn } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS } from './budget-store.ts';
import { DigitalOceanError } from './errors.ts';
import type { Method } from './outcome.ts';
import type { RateLimit } from './rate-limit.ts';

/**
 * Priorities when the budget is short, highest first. `now` is for requests that cannot be postponed because nothing
 * would retry them; they are never refused, and counted as far as the windows have room. `page` is the next page of a list
 * that has already started: if it were refused, the list would start over and never reach its end.
 */
export type Priority = 'now' | 'destroy' | 'create' | 'page' | 'read' | 'sync';

/**
 * Who waits for the budget, as plain data. Creates are many, and each needs its own request, so they take turns over
 * `requester` (null: those without one share a turn). Within a requester, a higher priority goes first, then the older
 * one.
 */
export type Waiter = Readonly<{ id: string; requester: string | null; priority: 'high' | 'normal' | 'low'; since: Date }>;

/** The weights of requesters, by name. The others have weight 1. */
export type RequesterWeights = Readonly<Record<string, number>>;

/** The remaining budget, as of the last draw of this process. What it knew of a window counts no longer than that window lasts. */
export type BudgetLeft = Readonly<{ minute: number; hour: number }>;

/** A request that was drawn from the budget. */
export type Drawn = Readonly<{
  /**
   * Call this when the request has been answered or has failed. A request that took long counts from then on. Never
   * throws.
   */
  over(): void;
}>;

/** A request that no budget counts. */
export const uncounted: Drawn = { over: () => undefined };

export type RequestBudget = Readonly<{
  /**
   * Draws one request from the budget.
   *
   * @param waiter who waits for it, for requests that take turns; null: the request itself
   * @throws {DigitalOceanError} `throttled` if the budget has no room; `retryAfterMs` says when to ask again
   */
  draw(priority: Priority, request: { method: Method; path: string }, waiter?: Waiter | null): Promise<Drawn>;
  /** Gives up the turn of somebody who will not ask again. Never throws. */
  withdraw(waiter: Waiter): Promise<void>;
  /** Updates the budget from the rate-limit headers of a response. Never throws. */
  answered(answer: ObservedAnswer): void;
  /** Null before the first draw and while the store is unreachable. */
  left(): BudgetLeft | null;
}>;

// The share of each window that a priority leaves to higher priorities.
const KEPT: Readonly<Record<Priority, number>> = { now: 0, destroy: 0, create: 0.02, page: 0.02, read: 0.02, sync: 0.25 };

// The share that creates leave to reads. Without it, a long queue of creates would hide until its end that droplets are
// active. The minute share allows about one poll of the droplets in flight every ten seconds. The hour share sustains
// that while creates use up the hour, and then covers the last droplets.
const READS = { minute: 0.04, hour: 0.06 };
const MINDS_READS: ReadonlySet<Priority> = new Set(['create', 'read']);

// Deletes go first however many there are. One read serves many callers.
const TAKES_TURNS: Priority = 'create';

const REQUESTER_LENGTH = 16;

// Until the year 33658.
const SINCE_DIGITS = 15;

const RANKS: Readonly<Record<Waiter['priority'], number>> = { high: 0, normal: 1, low: 2 };

const STORE_LIMIT_MS = 1_000;

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

// A store that answers late still counts the requests it was asked for. If this process switched to its local share at
// once, it would draw twice. The store counts as unreachable after this much silence.
const SILENCE_MS = 5_000;
const WARN_EVERY_MS = 10_000;

// The largest difference between DigitalOcean's count and ours that we ignore. Requests in flight appear in only one of
// the two.
const TOLERANCE = { requests: 10, share: 0.02 };

// DigitalOcean's minute limit. The headers report it once it is used up. Source: DigitalOcean's documentation, "Rate
// Limit".
const DOCUMENTED_PER_MINUTE = 250;

class LateStoreError extends Error {
  override readonly name = 'LateStoreError';
}

/** Derives the id of a token's budget without revealing the token. */
export function budgetId(token: string, apiUrl: string): string {
  return createHash('sha256').update(`${apiUrl}\n${token}`).digest('hex').slice(0, 32);
}

/** Creates the budget of one process on the store that the fleet shares. */
export function createRequestBudget(options: {
  store: BudgetStore;
  perMinute: number;
  perHour: number;
  weights?: RequesterWeights;
  io: Io;
  log: Log;
}): RequestBudget {
  const { store, perMinute, perHour, weights = {}, io, log } = options;
  const local = createLocalBudgetStore();
  let last: BudgetAnswer | null = null;
  let heardAt = performance.now();
  // What DigitalOcean grants the token, which may be less than what is configured.
  let theirPerHour = Number.POSITIVE_INFINITY;

  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> =>
    io('queue', name, () => withDeadline(STORE_LIMIT_MS, operation(), () => new LateStoreError(`${name}: no answer within ${STORE_LIMIT_MS} ms`)));

  const warn = onceInAWhile(WARN_EVERY_MS, (error: unknown, what: string) => log.warn({ reason: error instanceof Error ? error.message : String(error) }, what));

  const drawFromStore = async (priority: Priority, turn: Turn | null): Promise<Pick<BudgetAnswer, 'waitMs' | 'againMs' | 'serial'>> => {
    const wanted = { ...askOf(perMinute, perHour, priority), turn };
    try {
      last = await ask('budget.draw', () => store.draw(wanted));
      heardAt = performance.now();
      return last;
    } catch (error) {
      if (error instanceof LateStoreError && performance.now() - heardAt < SILENCE_MS) {
        warn(error, 'the request budget answers late: requests wait for it');
        return { waitMs: STORE_LIMIT_MS, againMs: STORE_LIMIT_MS, serial: 0 };
      }
      warn(error, 'the request budget is out of reach: this process goes on with a small share of its own');
      last = null;
      return local.draw({ ...askOf(localShareOf(perMinute), localShareOf(perHour), priority), turn });
    }
  };

  const tell = (what: Promise<void>) => {
    what.catch((error: unknown) => warn(error, 'the request budget could not be corrected'));
  };

  const correct = ({ limit, remaining }: RateLimit) => {
    if (last === null || isOfTheMinute(limit, perMinute, perHour)) return;
    theirPerHour = limit;
    const off = limit - remaining - last.usedHour - last.foreign;
    const tolerance = Math.max(TOLERANCE.requests, limit * TOLERANCE.share);
    const isCorrectedDown = last.foreign > 0 && -off > tolerance;
    if (off > tolerance || isCorrectedDown) tell(ask('budget.correct', () => store.correct(limit, remaining)));
  };

  return {
    draw: async (priority, request, waiter = null) => {
      const askedAt = performance.now();
      const turn = priority === TAKES_TURNS ? turnOf(waiter ?? waiterOf(request), weights) : null;
      const { waitMs, againMs, serial } = await drawFromStore(priority, turn);
      if (waitMs > 0 && priority !== 'now') throw usedUp(request, { waitMs, againMs });
      return {
        over: () => {
          if (performance.now() - askedAt > ARRIVAL_MARGIN_MS) tell(ask('budget.late', () => store.late(serial)));
        },
      };
    },
    withdraw: async (waiter) => {
      const turn = turnOf(waiter, weights);
      await Promise.all([local.withdraw(turn), ask('budget.withdraw', () => store.withdraw(turn))]).catch((error: unknown) => warn(error, 'a turn in the request budget could not be given up: it ends by itself'));
    },
    answered: ({ status, rateLimit, retryAfterMs }) => {
      if (status === 429 && retryAfterMs !== null) {
        void local.hold(retryAfterMs);
        tell(ask('budget.hold', () => store.hold(retryAfterMs)));
      } else if (rateLimit !== null) {
        correct(rateLimit);
      }
    },
    left: () => {
      if (last === null) return null;
      const knownForMs = performance.now() - heardAt;
      const usedMinute = knownForMs > MINUTE_MS ? 0 : last.usedMinute;
      const usedHour = knownForMs > HOUR_MS ? 0 : last.usedHour + last.foreign;
      return { minute: Math.max(0, perMinute - usedMinute), hour: Math.max(0, Math.min(perHour, theirPerHour) - usedHour) };
    },
  };
}

/**
 * Estimates how long a create that asks now would wait for the budget, in milliseconds. Draws nothing and keeps no place.
 *
 * @param how.requester who would ask
 * @throws if the store does not answer
 */
export async function forecastCreateMs(store: BudgetForecast, how: { perMinute: number; perHour: number; requester: string; weights: RequesterWeights }): Promise<number> {
  const { perMinute, perHour, requester, weights } = how;
  const turn = turnOf({ id: randomUUID(), requester, priority: 'normal', since: new Date() }, weights);
  return withDeadline(STORE_LIMIT_MS, store.forecast({ ...askOf(perMinute, perHour, 'create'), turn }), () => new LateStoreError(`budget.forecast: no answer within ${STORE_LIMIT_MS} ms`));
}

/** An unlimited budget, for tools and tests that make a few requests. */
export const unlimitedBudget: RequestBudget = {
  draw: async () => Promise.resolve(uncounted),
  withdraw: async () => Promise.resolve(),
  answered: () => undefined,
  left: () => null,
};

/** A request that nobody in particular waits for is a waiter itself, by its path, and the oldest of those without a requester. */
function waiterOf({ method, path }: { method: Method; path: string }): Waiter {
  return { id: `${method} ${path}`, requester: null, priority: 'normal', since: new Date(0) };
}

function turnOf({ id, requester, priority, since }: Waiter, weights: RequesterWeights): Turn {
  return {
    // Of one length, and no name in the store.
    requester: requester === null ? '-'.repeat(REQUESTER_LENGTH) : createHash('sha256').update(requester).digest('hex').slice(0, REQUESTER_LENGTH),
    own: `${RANKS[priority]}:${String(Math.max(0, since.getTime())).padStart(SINCE_DIGITS, '0')}:${id}`,
    weight: requester !== null && Object.hasOwn(weights, requester) ? (weights[requester] ?? 1) : 1,
  };
}

/** What a request of this priority asks of the windows. */
export function askOf(perMinute: number, perHour: number, priority: Priority): Omit<BudgetAsk, 'turn'> {
  const readsOf = (limit: number, share: number) => (priority === 'page' ? limit : partOf(limit, MINDS_READS.has(priority) ? share : 0));
  return {
    perMinute,
    perHour,
    keepMinute: partOf(perMinute, KEPT[priority]),
    keepHour: partOf(perHour, KEPT[priority]),
    readsMinute: readsOf(perMinute, READS.minute),
    readsHour: readsOf(perHour, READS.hour),
    isRead: priority === 'read' || priority === 'page',
  };
}

/** Returns at least one, so that small budgets have a reserve too, but never the whole limit. */
function partOf(limit: number, share: number): number {
  return share === 0 ? 0 : Math.min(limit - 1, Math.ceil(limit * share));
}

// While the store is unreachable, a worker cannot know how many workers there are. A tenth each is a guess on the safe
// side.
const LOCAL_SHARE = 0.1;

function localShareOf(limit: number): number {
  return Math.max(1, Math.floor(limit * LOCAL_SHARE));
}

function isOfTheMinute(limit: number, perMinute: number, perHour: number): boolean {
  return limit !== perHour && (limit === perMinute || limit === DOCUMENTED_PER_MINUTE);
}

function usedUp({ method, path }: { method: Method; path: string }, { waitMs, againMs }: Pick<BudgetAnswer, 'waitMs' | 'againMs'>): DigitalOceanError {
  return new DigitalOceanError(`${method} ${path} was not sent: the fleet's request budget has room in ${Math.ceil(waitMs / 1_000)} s`, {
    kind: 'throttled',
    code: 'request_budget',
    status: null,
    requestId: null,
    retryAfterMs: againMs,
    method,
    path,
  });
}
