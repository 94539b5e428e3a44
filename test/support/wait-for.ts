// Polls for a condition up to a deadline. The error names the condition that was not met.

import { setTimeout as sleep } from 'node:timers/promises';
import { patience } from './patience.ts';

export type WaitOptions = {
  /** What is awaited, in words that complete "waited … ms for". */
  readonly what: string;
  /** Default 30000. On a slow machine it is longer: see `patience`. */
  readonly deadlineMs?: number;
  /** Default 50. */
  readonly everyMs?: number;
};

type Nothing = undefined | null | false;

/**
 * Calls `condition` until it returns something other than undefined, null or false, and returns that. Throws at the
 * deadline, naming `what`; the last error that `condition` threw, which ends no wait, is its cause.
 */
export async function waitFor<T>(condition: () => Promise<T | Nothing> | T | Nothing, options: WaitOptions): Promise<T> {
  const { what, everyMs = 50 } = options;
  const deadlineMs = Math.round((options.deadlineMs ?? 30_000) * patience());
  const giveUpAt = Date.now() + deadlineMs;
  for (;;) {
    let cause: unknown;
    try {
      const found = await condition();
      if (found !== undefined && found !== null && found !== false) return found;
    } catch (error) {
      cause = error;
    }
    if (Date.now() >= giveUpAt) throw new Error(`waited ${deadlineMs} ms for ${what}`, { cause });
    await sleep(everyMs);
  }
}
