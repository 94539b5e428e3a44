// Remembers how long the request budget has no room, as this process was last told.
import type { RequestBudget } from './budget.ts';
import { DigitalOceanError } from './errors.ts';

/** The budget, and for how long it has no room, in milliseconds; 0: there is some. */
export function watchThrottle(budget: RequestBudget): { budget: RequestBudget; throttledForMs(): number } {
  const until = new Map<string, number>();
  return {
    budget: {
      ...budget,
      draw: async (priority, request) => {
        try {
          const drawn = await budget.draw(priority, request);
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
