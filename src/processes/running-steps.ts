// Remembers which steps run in this process, and since when: a step that never returns leaves no other trace.
import type { LongRuns } from '../fleet/sign-of-life.ts';

export type RunningSteps = Readonly<{
  /** Runs a step of a saga. */
  during: <Value>(what: Readonly<{ sagaId: string; step: string }>, run: () => Promise<Value>) => Promise<Value>;
  longRuns: () => LongRuns;
}>;

/** Long for a step: a wait of that length belongs into `waiting`. */
const LONG_MS = 600_000;

// The heartbeat carries them.
const MOST_TOLD = 20;

/** @param monotonicMs a clock in milliseconds that only goes forward */
export function rememberRunningSteps(monotonicMs: () => number = () => performance.now()): RunningSteps {
  const running = new Set<Readonly<{ sagaId: string; step: string; sinceMs: number }>>();
  return {
    during: async ({ sagaId, step }, run) => {
      const one = { sagaId, step, sinceMs: monotonicMs() };
      running.add(one);
      try {
        return await run();
      } finally {
        running.delete(one);
      }
    },
    longRuns: () => {
      const now = monotonicMs();
      // A set keeps the order in which they began.
      const long = [...running].filter(({ sinceMs }) => now - sinceMs > LONG_MS);
      return { runs: long.slice(0, MOST_TOLD).map(({ sagaId, step }) => ({ sagaId, step })), longestMs: long[0] === undefined ? null : now - long[0].sinceMs };
    },
  };
}
