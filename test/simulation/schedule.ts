// What comes next: the ordinary, the same in another order, or a fault.
import { isAtRest } from '../../src/saga/saga.ts';
import { faultsOf } from './faults.ts';
import { perform } from './operations.ts';
import { deliver, startLeasePass, startReconciler } from './processes.ts';
import { CONCURRENCY, LEASE_PASS_MS, RECONCILE_MS } from './settings.ts';
import type { Ambush, Process, State } from './state.ts';
import { FIRST_FAULT } from './tape.ts';
import { advance, nextEventAt } from './time.ts';
import { Violation } from './violation.ts';
import type { World } from './world.ts';

type Action = () => Promise<void>;

export async function step(world: World, decision: number): Promise<void> {
  const { state } = world;
  state.steps += 1;
  if (state.ambush !== null && !state.isCalm && (await spring(state, state.ambush))) return;
  if (decision >= FIRST_FAULT) {
    const faults = faultsOf(world.scenario);
    const fault = faults[(decision - FIRST_FAULT) % faults.length];
    if (fault !== undefined && (await fault(world))) return;
  }
  let left = decision < FIRST_FAULT ? decision : 0;
  if (left > 0) {
    const actions = [...ordinaryActions(world)];
    left %= actions.length;
    await actions[left]?.();
    return;
  }
  for (const action of ordinaryActions(world)) {
    await action();
    return;
  }
}

/** The fault that lay in wait strikes, as soon as what it waits for is about to happen. */
async function spring(state: State, { what, fault }: Ambush): Promise<boolean> {
  const operation = state.operations.find(
    (operation) => operation.run.process.state === 'up' && operation.reply === null && `${operation.name} ${operation.tell()}`.includes(what),
  );
  if (operation === undefined) return false;
  state.ambush = null;
  return fault(operation);
}

function* ordinaryActions(world: World): Generator<Action> {
  const { state, bull, workers } = world;
  for (const operation of state.operations) {
    if (operation.run.process.state === 'up') yield () => perform(state, operation, 'done');
  }
  if (state.without !== 'reconciler' && state.now >= state.nextReconcileAt) {
    for (const worker of workers) if (worker.state === 'up' && !worker.isReconciling) yield () => reconcileNow(world, worker);
  }
  if (state.now >= state.nextLeasePassAt) {
    for (const worker of workers) if (worker.state === 'up' && !worker.isExpiring) yield () => expireNow(world, worker);
  }
  const free = workers.filter((worker) => worker.state === 'up' && jobsInHandOf(state, worker) < CONCURRENCY);
  if (free.length > 0) {
    for (const job of bull.jobs()) {
      if (job.state !== 'waiting' && job.state !== 'delayed') continue;
      for (let index = 0; index < free.length; index += 1) {
        const worker = free[(index + state.deliveries) % free.length];
        if (worker !== undefined && (job.state === 'waiting' || job.dueAt <= state.now + worker.skewMs)) yield () => deliver(world, job, worker);
      }
    }
  }
  yield async () => {
    const at = nextEventAt(world);
    if (at === Number.POSITIVE_INFINITY) throw new Violation(`nothing will ever happen again, and ${unfinished(world)}`);
    advance(world, Math.max(at, state.now + 1));
  };
}

function jobsInHandOf({ runs }: State, worker: Process): number {
  return runs.filter((run) => run.process === worker && run.token !== null).length;
}

async function reconcileNow(world: World, worker: Process): Promise<void> {
  world.state.nextReconcileAt = world.state.now + RECONCILE_MS;
  await startReconciler(world, worker);
}

async function expireNow(world: World, worker: Process): Promise<void> {
  world.state.nextLeasePassAt = world.state.now + LEASE_PASS_MS;
  await startLeasePass(world, worker);
}

export function unfinished({ db }: World): string {
  const sagas = db.all().filter(({ status }) => !isAtRest(status));
  return sagas.map((saga) => `${saga.id} is ${saga.status} at revision ${saga.revision}`).join('; ') || 'all sagas are at rest';
}
