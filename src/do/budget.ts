// The fleet's budget of requests to DigitalOcean: every request is drawn from it before it is made. The account is kept
// in a store that all workers share; the answers of the API correct it.

import { createHash } from 'node:crypto';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import type { ObservedAnswer } from './observed-answer.ts';
import { createLocalBudgetStore } from './budget-local.ts';
import type { BudgetAnswer, BudgetAsk, BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS } from './budget-store.ts';
import { DigitalOceanError } from './errors.ts';
import type { Method } from './outcome.ts';
import type { RateLimit } from './rate-limit.ts';

/**
 * Who goes first when the budget is short, first to last. `now` is for what cannot be put off, as nobody would come
 * back for it: it is counted, and never refused. `page` is the next page of a list that was begun: begun over and over,
 * its end would never be seen.
 */
export type Priority = 'now' | 'destroy' | 'create' | 'page' | 'read' | 'sync';

/** What is left of the budget, by the last draw of this process. */
export type BudgetLeft = Readonly<{ minute: number; hour: number }>;

/** A request that was taken out of the budget. */
export type Drawn = Readonly<{
  /** To be called once it was answered, or has failed: where it took long, it counts from then. Never throws. */
  over(): void;
}>;

/** One that no budget keeps count of. */
export const uncounted: Drawn = { over: () => undefined };

export type RequestBudget = Readonly<{
  /**
   * Takes one request out of the budget.
   *
   * @throws {DigitalOceanError} `throttled`, with `retryAfterMs` until there will be some, when there is none
   */
  draw(priority: Priority, request: { method: Method; path: string }): Promise<Drawn>;
  /** Takes note of what an answer says about the limit. Never throws. */
  answered(answer: ObservedAnswer): void;
  /** Null before the first draw, and while the store is away. */
  left(): BudgetLeft | null;
}>;

// The share of each window that a class leaves to those before it.
const KEPT: Readonly<Record<Priority, number>> = { now: 0, destroy: 0, create: 0.02, page: 0.02, read: 0.02, sync: 0.25 };

// What creates leave to reads: nobody would see that the droplets of a long queue of creates are active before its end.
// Of a minute, a look every ten seconds or so at what is in flight; of the hour, that for as long as creates take to use
// it up, and for the last of their droplets.
const READS = { minute: 0.04, hour: 0.06 };
const MINDS_READS: ReadonlySet<Priority> = new Set(['create', 'read']);

// They are many, and each is for itself. Deletions go first however many there are; what one read sees is for all.
const QUEUED: Priority = 'create';

const STORE_LIMIT_MS = 1_000;

// A store that answers late is there, and counts what it was asked for: a process that went on with a share of its own
// beside it would have drawn twice. After so long without a word it is taken to be away.
const SILENCE_MS = 5_000;
const WARN_EVERY_MS = 10_000;

// How far DigitalOcean's count may be from ours before we take note: requests under way are in one, and not in the other.
const TOLERANCE = { requests: 10, share: 0.02 };

// DigitalOcean's limit of a minute, of which the headers tell once it is used up. Source: its documents, "Rate Limit".
const DOCUMENTED_PER_MINUTE = 250;

class LateStoreError extends Error {
  override readonly name = 'LateStoreError';
}

/** Names a token's budget without giving the token away. */
export function budgetId(token: string, apiUrl: string): string {
  return createHash('sha256').update(`${apiUrl}\n${token}`).digest('hex').slice(0, 32);
}

/** Makes the budget of one process on the store that its fleet shares. */
export function createRequestBudget(options: {
  store: BudgetStore;
  perMinute: number;
  perHour: number;
  io: Io;
  log: Log;
}): RequestBudget {
  const { store, perMinute, perHour, io, log } = options;
  const local = createLocalBudgetStore();
  let last: BudgetAnswer | null = null;
  let heardAt = performance.now();

  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> =>
    io('queue', name, () => withDeadline(STORE_LIMIT_MS, operation(), () => new LateStoreError(`${name}: no answer within ${STORE_LIMIT_MS} ms`)));

  const warn = onceInAWhile(WARN_EVERY_MS, (error: unknown, what: string) => log.warn({ reason: error instanceof Error ? error.message : String(error) }, what));

  const drawFromStore = async (priority: Priority): Promise<Pick<BudgetAnswer, 'waitMs' | 'serial'>> => {
    const wanted = askOf(perMinute, perHour, priority);
    try {
      last = await ask('budget.draw', () => store.draw(wanted));
      heardAt = performance.now();
      return last;
    } catch (error) {
      if (error instanceof LateStoreError && performance.now() - heardAt < SILENCE_MS) {
        warn(error, 'the request budget answers late: requests wait for it');
        return { waitMs: STORE_LIMIT_MS, serial: 0 };
      }
      warn(error, 'the request budget is out of reach: this process goes on with a small share of its own');
      last = null;
      return local.draw(askOf(localShareOf(perMinute), localShareOf(perHour), priority));
    }
  };

  const tell = (what: Promise<void>) => {
    what.catch((error: unknown) => warn(error, 'the request budget could not be corrected'));
  };

  const correct = ({ limit, remaining }: RateLimit) => {
    if (last === null || isOfTheMinute(limit, perMinute, perHour)) return;
    const off = limit - remaining - last.usedHour - last.foreign;
    const tolerance = Math.max(TOLERANCE.requests, limit * TOLERANCE.share);
    const isCorrectedDown = last.foreign > 0 && -off > tolerance;
    if (off > tolerance || isCorrectedDown) tell(ask('budget.correct', () => store.correct(limit, remaining)));
  };

  return {
    draw: async (priority, request) => {
      const askedAt = performance.now();
      const { waitMs, serial } = await drawFromStore(priority);
      if (waitMs > 0 && priority !== 'now') throw usedUp(request, waitMs);
      return {
        over: () => {
          if (performance.now() - askedAt > ARRIVAL_MARGIN_MS) tell(ask('budget.late', () => store.late(serial)));
        },
      };
    },
    answered: ({ status, rateLimit, retryAfterMs }) => {
      if (status === 429 && retryAfterMs !== null) {
        void local.hold(retryAfterMs);
        tell(ask('budget.hold', () => store.hold(retryAfterMs)));
      } else if (rateLimit !== null) {
        correct(rateLimit);
      }
    },
    left: () =>
      last === null
        ? null
        : { minute: Math.max(0, perMinute - last.usedMinute), hour: Math.max(0, perHour - last.usedHour - last.foreign) },
  };
}

/** A budget without an end: for tools and tests that make a few requests. */
export const unlimitedBudget: RequestBudget = {
  draw: async () => Promise.resolve(uncounted),
  answered: () => undefined,
  left: () => null,
};

function askOf(perMinute: number, perHour: number, priority: Priority): BudgetAsk {
  const readsOf = (limit: number, share: number) => (priority === 'page' ? limit : partOf(limit, MINDS_READS.has(priority) ? share : 0));
  return {
    perMinute,
    perHour,
    keepMinute: partOf(perMinute, KEPT[priority]),
    keepHour: partOf(perHour, KEPT[priority]),
    readsMinute: readsOf(perMinute, READS.minute),
    readsHour: readsOf(perHour, READS.hour),
    isRead: priority === 'read' || priority === 'page',
    isQueued: priority === QUEUED,
  };
}

/** At least one, so that small budgets have a reserve too; never all of it. */
function partOf(limit: number, share: number): number {
  return share === 0 ? 0 : Math.min(limit - 1, Math.ceil(limit * share));
}

// Nobody knows how many workers there are while the store is away; a tenth each is a fair guess on the safe side.
const LOCAL_SHARE = 0.1;

function localShareOf(limit: number): number {
  return Math.max(1, Math.floor(limit * LOCAL_SHARE));
}

function isOfTheMinute(limit: number, perMinute: number, perHour: number): boolean {
  return limit !== perHour && (limit === perMinute || limit === DOCUMENTED_PER_MINUTE);
}

function usedUp({ method, path }: { method: Method; path: string }, waitMs: number): DigitalOceanError {
  return new DigitalOceanError(`${method} ${path} was not sent: the fleet's request budget has room in ${Math.ceil(waitMs / 1_000)} s`, {
    kind: 'throttled',
    code: 'request_budget',
    status: null,
    requestId: null,
    retryAfterMs: waitMs,
    method,
    path,
  });
}
