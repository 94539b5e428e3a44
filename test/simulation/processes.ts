// What the processes do: workers take jobs and reconcile, clients start sagas, cancel and retry them.
import { DelayedError } from 'bullmq';
import { reconcile } from '../../src/saga/reconciler.ts';
import { expireLeases } from '../../src/inventory/expire-leases.ts';
import type { NextJob, Saga } from '../../src/saga/saga.ts';
import { nextJobOf } from '../../src/saga/saga.ts';
import { stepsFor } from '../../src/saga/names.ts';
import type { ActionResult } from '../../src/saga/cancel-and-retry.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { enqueueOrLeave } from '../../src/queues/start-and-enqueue.ts';
import { newRun, start } from './runs.ts';
import type { SimulatedJob } from './simulated-queues.ts';
import type { Process } from './state.ts';
import { DESTROY_AGAIN_MS } from './settings.ts';
import { count, pick, tell } from './state.ts';
import { Violation } from './violation.ts';
import type { World } from './world.ts';

export async function deliver(world: World, job: SimulatedJob, worker: Process): Promise<void> {
  const { state } = world;
  state.deliveries += 1;
  const token = `${worker.name}:${state.deliveries}`;
  job.state = 'active';
  job.token = token;
  job.lockUntil = Number.POSITIVE_INFINITY;
  tell(state, () => `${worker.name} takes the job ${job.id} ${job.name}`);
  const run = newRun(worker, job.id, job.id.slice(0, 36), { token });
  await start(state, run, () => work(world, job, token));
}

/** What BullMQ's worker does around its processor. */
async function work({ bull, call }: World, job: SimulatedJob, token: string): Promise<void> {
  let end: 'completed' | 'failed' = 'completed';
  try {
    await bull.process(job, token);
  } catch (error) {
    if (error instanceof Violation) throw error;
    if (error instanceof DelayedError) return;
    end = 'failed';
  }
  await bull.addHanded(token);
  try {
    await call('queue', `move to ${end}`, () => bull.finish(job, token, end), () => job.id);
  } catch (error) {
    // BullMQ goes on to the next job; this one's lock is not renewed any more.
    if (error instanceof Violation) throw error;
  }
}

export async function startReconciler({ state, db, queues, log }: World, worker: Process): Promise<void> {
  worker.isReconciling = true;
  const run = newRun(worker, 'reconciler', null, { isParallel: true });
  await start(state, run, async () => {
    try {
      await reconcile({ store: db.store, ensure: queues.ensure, log });
    } finally {
      worker.isReconciling = false;
    }
  });
}

/** A worker looks for leases that ended. */
export async function startLeasePass({ state, db, queues, log }: World, worker: Process): Promise<void> {
  worker.isExpiring = true;
  const enqueueFirst = async (job: NextJob) => {
    try {
      await queues.follow(job);
    } catch (error) {
      if (error instanceof Violation) throw error;
    }
  };
  await start(state, newRun(worker, 'leases', null), async () => {
    try {
      const { destroyed, cancelled } = await expireLeases({
        store: db.leases.store,
        destroy: { name: 'destroy_droplet', steps: ['destroy_droplet'] },
        cancel: (sagaId, by, reason) => cancelSaga(db.store, sagaId, by, reason),
        enqueueFirst,
        onHeld: () => undefined,
        settings: { warnMs: null, againAfterMs: DESTROY_AGAIN_MS },
        log,
      });
      if (destroyed > 0) count(state, 'lease expired: droplet destroyed');
      if (cancelled > 0) count(state, 'lease expired: provision rolled back');
    } finally {
      worker.isExpiring = false;
    }
  });
}

/** A client renews a lease. */
export async function renew({ state, db, people }: World, dropletId: number, ttlMs: number): Promise<void> {
  tell(state, () => `client renews the lease of droplet ${dropletId}`);
  await start(state, newRun(people, 'renew', null), async () => {
    const until = await db.leases.renew(dropletId, ttlMs);
    count(state, until === null ? 'renewal refused' : 'lease renewed');
  });
}

export async function act({ state, people, queues, log }: World, label: string, sagaId: string, request: () => Promise<ActionResult>): Promise<void> {
  tell(state, () => `client asks to ${label} ${sagaId}`);
  await start(state, newRun(people, label, null), async () => {
    const answered = await request();
    if (answered.kind === 'accepted' && answered.next !== null) await enqueueOrLeave(answered.next, queues, log);
  });
}

export async function startSaga({ catalog, state, db, people, queues, log }: World, id: string, name: string, input: Saga['input']): Promise<void> {
  const definition = catalog[name];
  const steps = definition === undefined ? [] : stepsFor(definition, input);
  // Some callers insert the row in their own transaction, by SQL, and enqueue nothing.
  const isBySql = state.without !== 'reconciler' && pick(state, 4) === 3;
  db.insert({ id, name, steps, input, inputChecked: !isBySql });
  tell(state, () => `client starts ${name} ${id}`);
  const job = nextJobOf(db.saga(id));
  if (job !== null && !isBySql) await start(state, newRun(people, 'enqueue', null), () => enqueueOrLeave(job, queues, log));
}
