// Remembers how long the request budget has no room, as of this process's last draws.
import type { RequestBudget } from './budget.ts';
import { DigitalOceanError } from './errors.ts';

/** Wraps the budget. `throttledForMs` returns the time until it has room, in milliseconds; 0: it has room now. */
export function watchThrottle(budget: RequestBudget): { budget: RequestBudget; throttledForMs(): number } {
  const until = new Map<string, number>();
  return {
    budget: {
      ...budget,
      draw: async (priority, request, waiter) => {
        try {
          const drawn = await budget.draw(priority, request, waiter);
          until.delete(priority);
          return drawn;
        } catch (error) {
          if (error instanceof DigitalOceanError && error.retryAfterMs !== null) until.set(priority, performance.now() + error.retryAfterMs);
          throw error;
        }
      },
    },
    throttledForMs: () => Math.max(0, ...[...until.values()].map((at) => at - performance.now())),
  };
}
