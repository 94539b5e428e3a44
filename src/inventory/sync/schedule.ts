// Schedules syncs: a timer in each worker asks Postgres whether a sync is due, and creates a job for it. Unlike a schedule in the
// queue store, this survives the loss of the queues.
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../../platform/db.ts';
import { lookWhetherDue } from '../syncs.ts';
import type { Log } from '../../platform/log.ts';
import type { SyncReport } from './sync-inventory.ts';

const LONGEST_TICK_MS = 30_000;

/** Checks until the signal is aborted. The first check is after one tick: a starting worker has more urgent work. */
export async function scheduleSyncs(options: {
  db: Pick<Database, 'run'>;
  intervalMs: number;
  /** Creates a job for the sync with this number. */
  ensure: (syncNumber: number) => Promise<void>;
  signal: AbortSignal;
  log: Log;
}): Promise<void> {
  const { db, intervalMs, signal, log } = options;
  const tickMs = Math.min(LONGEST_TICK_MS, intervalMs / 4);
  for (;;) {
    // Jitter spreads the workers of a fleet.
    await delay(tickMs * (0.75 + Math.random() * 0.5), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const { isDue, next } = await lookWhetherDue(db, intervalMs);
      if (isDue) await options.ensure(next);
    } catch (error) {
      log.warn({ err: error }, 'could not check whether an inventory sync is due: checking again later');
    }
  }
}

/** The data of a sync's job. */
export function describeSync(report: SyncReport | null): string {
  if (report === null) return 'no sync is due, or another worker is running it';
  const { droplets, appeared, returned, changed, vanished, drifted, destroyed, notDestroyed, held, tagsDeleted } = report.summary;
  return `sync ${report.number}: ${droplets} droplets; ${appeared} appeared, ${returned} returned, ${changed} changed, ${vanished} vanished; ${drifted} drifted; ${destroyed} surplus destroyed${notDestroyed > 0 ? `, ${notDestroyed} NOT destroyed` : ''}${held > 0 ? `, ${held} HELD until a person has looked` : ''}${report.isPaused ? '; PAUSED: nothing is destroyed' : ''}${tagsDeleted > 0 ? `; ${tagsDeleted} tags deleted` : ''}${report.tagsRefused ? '; tags are left: the token lacks tag:read or tag:delete' : ''}`;
}
