// How a sync handles waits for DigitalOcean. It has the lowest priority in the request budget, so it may wait long.
// Meanwhile it renews its lease.
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../../platform/db.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import { SyncLostError, renewSync } from '../syncs.ts';

// Well below the lease of a sync.
const SIGN_OF_LIFE_MS = 15_000;

const MAX_FAILURES = 4;

/**
 * Creates the wait between two tries of a request.
 *
 * @param options.onThrottled called before each wait for the request budget, with its length in milliseconds
 * @param options.retryMs delay between the first and the second try after an error; it doubles each time
 * @returns a function that resolves when the request may be retried, and throws its error if a retry makes no sense
 */
export function createPatience(options: { db: Pick<Database, 'run'>; number: number; retryMs: number; signal: AbortSignal; onThrottled?: ((waitMs: number) => void) | undefined }) {
  const { db, number, retryMs, signal, onThrottled } = options;

  const rest = async (ms: number): Promise<void> => {
    for (let leftMs = ms; leftMs > 0; leftMs -= SIGN_OF_LIFE_MS) {
      await delay(Math.min(leftMs, SIGN_OF_LIFE_MS), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) throw new SyncLostError(`sync ${number} was stopped`);
      await renewSync(db, number);
    }
  };

  let refusals = 0;
  return async (error: unknown, failures: number): Promise<void> => {
    if (failures === 1) refusals = 0;
    if (signal.aborted) throw new SyncLostError(`sync ${number} was stopped`);
    if (!(error instanceof DigitalOceanError)) throw error;
    // Waiting for the budget is not a failure.
    if (error.kind === 'throttled') {
      const waitMs = error.retryAfterMs ?? SIGN_OF_LIFE_MS;
      onThrottled?.(waitMs);
      return rest(waitMs);
    }
    refusals += 1;
    if (error.kind !== 'later' || refusals > MAX_FAILURES) throw error;
    return rest(retryMs * 2 ** (refusals - 1));
  };
}
