// Counts the requests that a process draws from the request budget, by priority, so that they can be reported.
import type { Priority, RequestBudget } from './budget.ts';

/** How many requests were drawn, by priority; priorities without any are omitted. */
export type RequestCounts = Readonly<Partial<Record<Priority, number>>>;

/** Counts until they are taken. */
export type RequestCounter = Readonly<{
  budget: RequestBudget;
  /** Returns what was counted since the last call; null: nothing. */
  take(): RequestCounts | null;
  /** Counts again what was taken and could not be reported. */
  giveBack(counts: RequestCounts): void;
}>;

/** Wraps the budget. A request that the budget refuses is not sent, and not counted. */
export function countRequests(budget: RequestBudget): RequestCounter {
  const counts = new Map<Priority, number>();
  const add = (priority: Priority, requests: number) => counts.set(priority, (counts.get(priority) ?? 0) + requests);
  return {
    budget: {
      ...budget,
      draw: async (priority, request, waiter) => {
        const drawn = await budget.draw(priority, request, waiter);
        add(priority, 1);
        return drawn;
      },
    },
    take: () => {
      if (counts.size === 0) return null;
      const taken = Object.fromEntries(counts);
      counts.clear();
      return taken;
    },
    giveBack: (taken) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- keys of counts taken from here
      for (const [priority, requests] of Object.entries(taken)) add(priority as Priority, requests);
    },
  };
}
