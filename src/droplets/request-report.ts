// Reports a worker's requests to DigitalOcean to Postgres, every few seconds while it sends any.
import { setTimeout as delay } from 'node:timers/promises';
import type { RequestCounter } from '../do/count-requests.ts';
import { saveRequests } from '../inventory/request-counts.ts';
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';

const EVERY_MS = 5_000;

/** Reports until the signal is aborted, and then the last ones. What cannot be written now is written later; never throws. */
export async function reportRequests({ db, counter, signal, log }: { db: Pick<Database, 'run'>; counter: RequestCounter; signal: AbortSignal; log: Log }): Promise<null> {
  const report = async (): Promise<void> => {
    const counts = counter.take();
    if (counts === null) return;
    try {
      await saveRequests(db, counts, counter.budget.left());
    } catch (error) {
      counter.giveBack(counts);
      log.debug({ err: error }, 'could not report the requests to DigitalOcean');
    }
  };
  while (!signal.aborted) {
    await delay(EVERY_MS, undefined, { signal }).catch(() => undefined);
    await report();
  }
  return null;
}
