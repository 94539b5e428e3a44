// Remembers how long the request budget has no room for the requests of sagas, as of this process's last draws.
import type { Priority, RequestBudget } from './budget.ts';
import { DigitalOceanError } from './errors.ts';

// A sync comes last, and waits while sagas have room.
const OF_NO_SAGA: Priority = 'sync';

/** Wraps the budget. `throttledForMs` returns the time until it has room for sagas, in milliseconds; 0: it has room now. */
export function watchThrottle(budget: RequestBudget): { budget: RequestBudget; throttledForMs(): number } {
  const until = new Map<Priority, number>();
  return {
    budget: {
      ...budget,
      draw: async (priority, request, waiter) => {
        try {
          const drawn = await budget.draw(priority, request, waiter);
          until.delete(priority);
          return drawn;
        } catch (error) {
          if (error instanceof DigitalOceanError && error.retryAfterMs !== null && priority !== OF_NO_SAGA) until.set(priority, performance.now() + error.retryAfterMs);
          throw error;
        }
      },
    },
    throttledForMs: () => Math.max(0, ...[...until.values()].map((at) => at - performance.now())),
  };
}
