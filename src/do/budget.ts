// The fleet's budget of requests to DigitalOcean: every request is drawn from it before it is made. The account is kept
// in a store that all workers share; the answers of the API correct it.

import { createHash } from 'node:crypto';
import { withDeadline } from '../deadline.ts';
import type { Io } from '../io.ts';
import type { Log } from '../log.ts';
import type { ObservedAnswer } from './call.ts';
import { createLocalBudgetStore } from './budget-local.ts';
import type { BudgetAnswer, BudgetAsk, BudgetStore } from './budget-store.ts';
import { DigitalOceanError } from './errors.ts';
import type { Method } from './outcome.ts';
import type { RateLimit } from './rate-limit.ts';

/**
 * Who goes first when the budget is short, first to last. `now` is for what cannot be put off, as nobody would come
 * back for it: it is counted, and never refused.
 */
export type Priority = 'now' | 'destroy' | 'create' | 'read' | 'sync';

/** What is left of the budget, by the last draw of this process. */
export type BudgetLeft = Readonly<{ minute: number; hour: number }>;

export type RequestBudget = Readonly<{
  /**
   * Takes one request out of the budget.
   *
   * @throws {DigitalOceanError} `throttled`, with `retryAfterMs` until there will be some, when there is none
   */
  draw(priority: Priority, request: { method: Method; path: string }): Promise<void>;
  /** Takes note of what an answer says about the limit. Never throws. */
  answered(answer: ObservedAnswer): void;
  /** Null before the first draw, and while the store is away. */
  left(): BudgetLeft | null;
}>;

// The share of each window that a class leaves to those before it.
const KEPT: Readonly<Record<Priority, number>> = { now: 0, destroy: 0, create: 0.02, read: 0.04, sync: 0.25 };

const STORE_LIMIT_MS = 1_000;
const WARN_EVERY_MS = 10_000;

// How far DigitalOcean's count may be from ours before we take note: requests under way are in one, and not in the other.
const TOLERANCE = { requests: 10, share: 0.02 };

// DigitalOcean's limit of a minute, of which the headers tell once it is used up. Source: its documents, "Rate Limit".
const DOCUMENTED_PER_MINUTE = 250;

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
  let warnedAt = Number.NEGATIVE_INFINITY;

  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> =>
    io('queue', name, () => withDeadline(STORE_LIMIT_MS, operation(), () => new Error(`${name}: no answer within ${STORE_LIMIT_MS} ms`)));

  const warn = (error: unknown, what: string) => {
    if (performance.now() - warnedAt < WARN_EVERY_MS) return;
    warnedAt = performance.now();
    log.warn({ reason: error instanceof Error ? error.message : String(error) }, what);
  };

  const drawFromStore = async (priority: Priority): Promise<BudgetAnswer> => {
    const wanted = { perMinute, perHour, keepMinute: keptOf(perMinute, priority), keepHour: keptOf(perHour, priority) };
    try {
      last = await ask('budget.draw', () => store.draw(wanted));
      return last;
    } catch (error) {
      warn(error, 'the request budget is out of reach: this process goes on with a small share of its own');
      last = null;
      return local.draw(localShareOf(wanted, priority));
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
      const { waitMs } = await drawFromStore(priority);
      if (waitMs > 0 && priority !== 'now') throw usedUp(request, waitMs);
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
  draw: async () => Promise.resolve(),
  answered: () => undefined,
  left: () => null,
};

/** At least one, so that small budgets have a reserve too; never all of it. */
function keptOf(limit: number, priority: Priority): number {
  const share = KEPT[priority];
  return share === 0 ? 0 : Math.min(limit - 1, Math.ceil(limit * share));
}

// Nobody knows how many workers there are while the store is away; a tenth each is a fair guess on the safe side.
const LOCAL_SHARE = 0.1;

function localShareOf({ perMinute, perHour }: BudgetAsk, priority: Priority): BudgetAsk {
  const minute = Math.max(1, Math.floor(perMinute * LOCAL_SHARE));
  const hour = Math.max(1, Math.floor(perHour * LOCAL_SHARE));
  return { perMinute: minute, perHour: hour, keepMinute: keptOf(minute, priority), keepHour: keptOf(hour, priority) };
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
