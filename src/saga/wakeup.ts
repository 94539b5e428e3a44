// A wait that can be cut short: the reconciler sleeps, and is woken if there is work to do at once.
import { setTimeout as delay } from 'node:timers/promises';

export type Wakeup = Readonly<{
  /** Ends the current wait, or else the next one. */
  wake(): void;
  /** Resolves after `ms` milliseconds, when woken, or when the signal is aborted. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
}>;

// Minimum time between two rounds, even if woken continuously.
const MIN_PAUSE_MS = 50;

const START_SPREAD_MS = 800;

/** A random time before the first round of a loop, in milliseconds: loops that begin at different moments share a connection. */
export function startSpreadMs(): number {
  return Math.random() * START_SPREAD_MS;
}

export function createWakeup(): Wakeup {
  let alarm = new AbortController();
  return {
    wake: () => {
      // Each end of a saga wakes, and an abort makes an error with its stack even where it is not the first.
      if (!alarm.signal.aborted) alarm.abort();
    },
    wait: async (ms, signal) => {
      if (alarm.signal.aborted) await delay(MIN_PAUSE_MS, undefined, { signal }).catch(() => undefined);
      else await delay(ms, undefined, { signal: AbortSignal.any([signal, alarm.signal]) }).catch(() => undefined);
      alarm = new AbortController();
    },
  };
}
