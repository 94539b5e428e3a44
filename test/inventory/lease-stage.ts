// The bench of leases: that of the steps, and what one worker does about leases.
import { expireLeases } from '../../src/inventory/expire-leases.ts';
import { createLeaseStore } from '../../src/inventory/leases.ts';
import { renewLease } from '../../src/inventory/lease.ts';
import { silentLog } from '../../src/platform/log.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import type { NextJob } from '../../src/saga/saga.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import type { Bench, BenchOptions } from '../steps/stage.ts';
import { useStepStage } from '../steps/stage.ts';

const destroy = { name: 'destroy_droplet', steps: ['destroy_droplet'] };

export const hour = { ttl_s: 3_600 };

type LeaseEvent = { type: string; dropletId: number | null; sagaId: string; generation: number; leaseUntil: Date };

export type Leases = Awaited<ReturnType<ReturnType<typeof useLeaseStage>>>;

/** Gives each test of the file a bench of its own on one database. */
export function useLeaseStage() {
  const openBench = useStepStage();
  return async (options: BenchOptions = {}) => openLeases(await openBench(options));
}

function openLeases(bench: Bench) {
  const jobs: NextJob[] = [];
  const store = createLeaseStore(bench.db, { destroy, reconcileGraceMs: 60_000 });
  const sagas = createSagaStore(bench.db, { worker: 'leases', reconcileGraceMs: 60_000 });
  const held: unknown[] = [];
  const pass = (settings: { warnMs?: number | null; againAfterMs?: number } = {}) =>
    expireLeases({
      store,
      destroy,
      cancel: (sagaId, by, reason) => cancelSaga(sagas, sagaId, by, reason),
      enqueueFirst: async (job) => Promise.resolve(void jobs.push(job)),
      onHeld: (brake) => void held.push(brake),
      settings: { warnMs: null, againAfterMs: 60_000, ...settings },
      log: silentLog,
    });
  return {
    ...bench,
    jobs,
    held,
    pass,
    store,
    renew: (dropletId: number, ttlS: number) => renewLease(bench.db, dropletId, { ttlS, by: 'cli:ada' }),
    /** Has every lease end so long ago. */
    end: async (agoMs = 1) => {
      await bench.db.sql`update arcadia.cloud_provisioned set lease_until = clock_timestamp() - ${agoMs}::float8 * interval '1 ms' where lease_until is not null`;
      await bench.db.sql`update arcadia.provision_leases set lease_until = clock_timestamp() - ${agoMs}::float8 * interval '1 ms'`;
    },
    events: async () => bench.db.sql<LeaseEvent[]>`select type, droplet_id::float8 as droplet_id, saga_id, generation, lease_until from arcadia.lease_events order by id`,
    destroyers: async () => bench.db.sql<{ id: string; idempotencyKey: string; status: string; requestedBy: string }[]>`select id, idempotency_key, status, requested_by from arcadia.sagas where name = 'destroy_droplet' order by created_at`,
  };
}

export const row = async ({ db }: Pick<Bench, 'db'>) =>
  (await db.sql<{ leaseUntil: Date | null; leaseLimit: Date | null; leaseGeneration: number; leaseExpiredAt: Date | null; leaseSagaId: string | null }[]>`select * from arcadia.cloud_provisioned`)[0];

export const inMs = (date: Date) => date.getTime() - Date.now();
