// The worker loop for droplet leases: each worker runs a pass every few seconds.
import { setTimeout as delay } from 'node:timers/promises';
import type { LeaseDeps } from '../inventory/expire-leases.ts';
import { expireLeases } from '../inventory/expire-leases.ts';
import type { Expiry } from '../inventory/leases.ts';
import { createLeaseStore } from '../inventory/leases.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import { cancelSaga } from '../saga/cancel-and-retry.ts';
import type { WorkerHost } from '../saga/extension.ts';
import type { NextJob } from '../saga/saga.ts';
import { createSagaStore } from '../saga/store.ts';
import { destroyContract } from '../steps/contract.ts';

// Deadline for a queue store that does not answer.
const ENQUEUE_WITHIN_MS = 3_000;

// The fleet's state raises the alarm. The log repeats it.
const TELL_AGAIN_MS = 600_000;

// While there is no lease at all, passes are this many times rarer: a new lease lasts a while.
const IDLE_PASSES = 4;

// How long a person who cancels a destruction has to protect the droplet.
const AGAIN_AFTER_MS = 60_000;

const destroy = { name: destroyContract.name, steps: destroyContract.steps.map(({ name }) => name) };

export type LeaseWork = Readonly<{
  /** Runs one pass. Failures are logged. Resolves with whether there may be leases. */
  pass(): Promise<boolean>;
  /** Runs passes until the signal is aborted. */
  run(signal: AbortSignal): Promise<null>;
}>;

/** Creates the lease work of a worker. */
export function createLeaseWork({ name, config, db, enqueueFirst }: Pick<WorkerHost, 'name' | 'config' | 'db' | 'enqueueFirst'>, log: Log): LeaseWork {
  const reconcileGraceMs = config.reconcileIntervalMs;
  const store = createSagaStore(db, { worker: name, reconcileGraceMs });
  const tellHeld = onceInAWhile(TELL_AGAIN_MS, ({ ended, leased }: NonNullable<Expiry['held']>) =>
    log.error({ ended, leased }, 'too many leases ended at once: none expires until someone approves (run arcadia leases --ended, then arcadia leases --destroy)'),
  );
  const deps: LeaseDeps = {
    store: createLeaseStore(db, { destroy, reconcileGraceMs }),
    destroy,
    cancel: (sagaId, by, reason) => cancelSaga(store, sagaId, by, reason),
    enqueueFirst: async (job: NextJob) => {
      try {
        await withDeadline(ENQUEUE_WITHIN_MS, enqueueFirst(job), () => new Error(`the queue store did not answer within ${ENQUEUE_WITHIN_MS} ms`));
      } catch (error) {
        log.warn({ sagaId: job.sagaId, err: error }, 'could not enqueue the saga: the reconciler will');
      }
    },
    onHeld: tellHeld,
    settings: { warnMs: config.lease.warnS === null ? null : config.lease.warnS * 1_000, againAfterMs: AGAIN_AFTER_MS },
    log,
  };
  const pass = async (): Promise<boolean> => {
    try {
      const { leased } = await expireLeases(deps);
      return leased > 0;
    } catch (error) {
      log.warn({ err: error }, 'a pass over the leases failed: trying again in the next one');
      return true;
    }
  };
  return {
    pass,
    run: async (signal) => {
      let passes = 1;
      while (!signal.aborted) {
        await delay(passes * config.lease.checkMs * (0.75 + Math.random() * 0.5), undefined, { signal }).catch(() => undefined);
        if (!signal.aborted) passes = (await pass()) ? 1 : IDLE_PASSES;
      }
      return null;
    },
  };
}
