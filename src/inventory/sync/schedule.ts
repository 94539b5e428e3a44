// When to sync: a plain timer in each worker asks Postgres whether a sync is due, and makes a job for it. What is kept
// in the queue store is lost with it; this is not.
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../../platform/db.ts';
import { lookWhetherDue } from '../syncs.ts';
import type { Log } from '../../platform/log.ts';
import type { SyncReport } from './sync-inventory.ts';

const LONGEST_TICK_MS = 30_000;

/** Looks until the signal is aborted; first after one tick: a worker has better things to do when it starts. */
export async function scheduleSyncs(options: {
  db: Pick<Database, 'run'>;
  intervalMs: number;
  /** Makes a job for the sync of this number. */
  ensure: (syncNumber: number) => Promise<void>;
  signal: AbortSignal;
  log: Log;
}): Promise<void> {
  const { db, intervalMs, signal, log } = options;
  const tickMs = Math.min(LONGEST_TICK_MS, intervalMs / 4);
  for (;;) {
    // Some jitter, so that a fleet's workers spread.
    await delay(tickMs * (0.75 + Math.random() * 0.5), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const { isDue, next } = await lookWhetherDue(db, intervalMs);
      if (isDue) await options.ensure(next);
    } catch (error) {
      log.warn({ err: error }, 'could not look whether an inventory sync is due: looking again later');
    }
  }
}

/** What stands on the job of a sync. */
export function describeSync(report: SyncReport | null): string {
  if (report === null) return 'no sync is due, or another worker is at it';
  const { droplets, appeared, returned, changed, vanished, drifted, destroyed, held } = report.summary;
  return `sync ${report.number}: ${droplets} droplets; ${appeared} appeared, ${returned} returned, ${changed} changed, ${vanished} vanished; ${drifted} drifted; ${destroyed} surplus destroyed${held > 0 ? `, ${held} HELD until a person has looked` : ''}${report.isPaused ? '; PAUSED: nothing is destroyed' : ''}`;
}
