// One pass over the leases: expires those that have ended. A new saga destroys each droplet. A provision that is still in progress
// is rolled back instead, because a destroy would have to wait for it.
import type { Log } from '../platform/log.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import type { NextJob } from '../saga/saga.ts';
import { nextJobOf } from '../saga/saga.ts';
import type { DestroySaga, Expiry, LeaseStore, StartedDestroy } from './leases.ts';
import { LEASE_ACTOR } from './leases.ts';

type LeaseSettings = Readonly<{
  /** How long before the end of a lease a warning is recorded; null: never. */
  warnMs: number | null;
  /** How long after a cancelled destroy of a droplet with an expired lease the next destroy starts. */
  againAfterMs: number;
}>;

export type LeaseDeps = Readonly<{
  store: LeaseStore;
  destroy: DestroySaga;
  /** Cancels a saga. */
  cancel(sagaId: string, by: string, reason: string): Promise<ActionResult>;
  /** Enqueues a job at the front of the queue. If that fails, the reconciler enqueues it. */
  enqueueFirst(job: NextJob): Promise<void>;
  /** Called in each pass in which the brake is on. */
  onHeld(held: NonNullable<Expiry['held']>): void;
  settings: LeaseSettings;
  log: Log;
}>;

/** The result of a pass. `cancelled`: number of cancelled provisions. `leased`: number of leases. */
export type LeasePass = Readonly<{ destroyed: number; cancelled: number; warned: number; isHeld: boolean; leased: number }>;

/**
 * Records warnings, and expires all leases that have ended.
 *
 * @throws errors of the database; the next pass continues
 */
export async function expireLeases(deps: LeaseDeps): Promise<LeasePass> {
  const { store, settings, log } = deps;
  const warned = settings.warnMs === null ? 0 : await store.warn(settings.warnMs);
  await store.reopen(settings.againAfterMs);
  let destroyed = 0;
  let cancelled = 0;
  for (;;) {
    const expiry = await store.expire();
    if (expiry.held !== null) deps.onHeld(expiry.held);
    // Workers take the job that was enqueued last first: that of the lease that ended first.
    for (const one of expiry.started.toReversed()) await enqueueDestroy(one, deps);
    for (const { sagaId, leaseUntil } of expiry.toCancel) {
      const { kind, ...answer } = await deps.cancel(sagaId, LEASE_ACTOR, `the lease of its droplet ended at ${leaseUntil.toISOString()}`);
      if (kind !== 'accepted') continue;
      cancelled += 1;
      log.warn({ sagaId, leaseUntil }, 'lease expired while the droplet was being provisioned: rolling back');
      if ('next' in answer && answer.next !== null) await deps.enqueueFirst(answer.next);
    }
    destroyed += expiry.started.length;
    if (!expiry.hasMore) return { destroyed, cancelled, warned, isHeld: expiry.held !== null, leased: expiry.leased };
  }
}

async function enqueueDestroy({ sagaId, dropletId, leaseUntil, reason }: StartedDestroy, { destroy, enqueueFirst, log }: LeaseDeps): Promise<void> {
  log.info({ sagaId, dropletId, leaseUntil }, 'lease expired: destroying the droplet');
  const job = nextJobOf({ id: sagaId, name: destroy.name, status: 'pending', steps: destroy.steps, cursor: 0, revision: 0, attempt: 0, input: { droplet_id: dropletId, reason }, context: {}, traceparent: null });
  if (job !== null) await enqueueFirst(job);
}
