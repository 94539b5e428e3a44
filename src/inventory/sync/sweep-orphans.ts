// The orphan sweep: destroys a few surplus droplets per pass and checks each again right before. If there are more than a
// few, it destroys none and raises an alarm, because a person should check first what is wrong.
import type { Database } from '../../platform/db.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import { withRetries } from '../../do/pages.ts';
import type { Orphan } from '../orphans.ts';
import { announceDestruction, listDoomed, markOrphanGone, recordFailedSweep, recordHold } from '../orphans.ts';
import { SyncLostError } from '../syncs.ts';
import type { Log } from '../../platform/log.ts';
import { shorten } from '../../platform/text.ts';
import { deleteAndLook } from '../../steps/destroy-and-confirm.ts';
import { lookForOrphans } from './orphan-look.ts';

/** Maximum number of droplets per pass, unless a person approved more. */
const MOST_DESTROYED = 5;

const MAX_ERROR = 1_000;

/** `failed`: they could not be destroyed, and the next sync tries again. `isPaused`: there was something to destroy, but a person had paused the queue. */
export type SweepResult = Readonly<{ destroyed: Orphan[]; failed: Orphan[]; held: Orphan[]; isPaused: boolean }>;

/**
 * Runs one pass, as part of a sync.
 *
 * @throws {SyncLostError} if another worker has taken over the sync
 */
export async function sweepOrphans(
  sync: { number: number; startedAt: Date },
  deps: {
    db: Database;
    digitalOcean: DigitalOceanClient;
    graceMs: number;
    isPaused: () => Promise<boolean>;
    beforeRetry: (error: unknown, failures: number) => Promise<void>;
    signal: AbortSignal;
    log: Log;
  },
): Promise<SweepResult> {
  const { db, log } = deps;
  const doomed = await listDoomed(db, sync.number, deps.graceMs);
  const approved = doomed.filter(({ approvedAt }) => approvedAt !== null);
  const others = doomed.filter(({ approvedAt }) => approvedAt === null);
  const isHeld = others.length > MOST_DESTROYED;
  if (isHeld) {
    log.error(
      { droplets: others.length, most: MOST_DESTROYED, dropletIds: others.slice(0, 20).map(({ providerId }) => providerId) },
      'too many surplus droplets at once: none is destroyed until someone approves (run arcadia orphans, then arcadia orphans --destroy)',
    );
    await recordHold(db, others, MOST_DESTROYED);
  }
  const destroyed: Orphan[] = [];
  const failed: Orphan[] = [];
  const fail = async (orphan: Orphan, why: string): Promise<void> => {
    await recordFailedSweep(db, orphan, why);
    failed.push({ ...orphan, sweepError: why });
  };
  let isPaused = false;
  for (const orphan of isHeld ? approved : [...approved, ...others]) {
    if (deps.signal.aborted) throw new SyncLostError(`sync ${sync.number} was stopped`);
    try {
      isPaused = await deps.isPaused();
      if (isPaused) break;
      const came = await destroyOrphan(orphan, sync.number, deps);
      if (came.kind === 'destroyed') destroyed.push(orphan);
      if (came.kind === 'failed') await fail(orphan, came.why);
    } catch (error) {
      if (error instanceof SyncLostError) throw error;
      log.warn({ err: error, dropletId: orphan.providerId }, 'could not destroy a surplus droplet: the next sync tries again');
      // What else fails, such as a store of ours, says nothing of the droplet.
      if (error instanceof DigitalOceanError) await fail(orphan, shorten(error.message, MAX_ERROR));
    }
  }
  if (isPaused) log.warn({ droplets: doomed.length - destroyed.length }, 'the queue inventory is paused: no surplus droplet is destroyed');
  return { destroyed, failed, held: isHeld ? others : [], isPaused };
}

type Sweep = Readonly<{ kind: 'destroyed' | 'left alone' }> | Readonly<{ kind: 'failed'; why: string }>;

/** Destroys one droplet if it is still surplus. */
async function destroyOrphan(orphan: Orphan, number: number, { db, digitalOcean, beforeRetry, log }: Parameters<typeof sweepOrphans>[1]): Promise<Sweep> {
  const id = Number(orphan.providerId);
  const droplet = await withRetries(() => digitalOcean.getDroplet(id), beforeRetry);
  if (droplet === null) {
    await markOrphanGone(db, orphan);
    return { kind: 'left alone' };
  }
  const [found] = await lookForOrphans(db, [droplet]);
  if (found?.verdict.category !== 'surplus' || found.verdict.sagaId !== orphan.sagaId) {
    log.warn({ dropletId: id, was: orphan.reason, is: found?.verdict.reason ?? 'accounted for' }, 'a surplus droplet has changed: left alone');
    return { kind: 'left alone' };
  }
  await announceDestruction(db, number, orphan);
  log.warn({ dropletId: id, sagaId: orphan.sagaId, name: droplet.name, reason: found.verdict.reason, approvedBy: orphan.approvedBy }, 'destroying a surplus droplet');
  const { left } = await withRetries(() => deleteAndLook(id, digitalOcean), beforeRetry);
  if (left !== null) {
    log.warn({ dropletId: id, status: left.status }, 'DigitalOcean accepted the deletion of a surplus droplet but still shows it: the next sync checks again');
    return { kind: 'failed', why: 'DigitalOcean accepted the deletion but still shows the droplet' };
  }
  await markOrphanGone(db, orphan);
  return { kind: 'destroyed' };
}
