// Time passes: what was to happen meanwhile does, locks expire, and what is down comes back.
import { carryOut, happen } from './operations.ts';
import { LOCK_MS } from './settings.ts';
import type { SimulatedJob } from './simulated-queues.ts';
import type { Process, State } from './state.ts';
import { count, oneOf, tell } from './state.ts';
import type { World } from './world.ts';

export function advance(world: World, to: number): void {
  const { state, bull, workers } = world;
  renewLocks(world);
  for (const operation of state.operations) {
    const isListening = operation.run.process.state !== 'frozen';
    if (operation.reply === null && isListening && operation.deadline < to) {
      operation.reply = carryOut(state, operation, oneOf(state, ['unanswered', 'done, reply lost', 'done late, reply lost']));
    }
  }
  for (const { at, operation } of state.lateEffects.filter(({ at }) => at <= to).toSorted((a, b) => a.at - b.at)) {
    state.now = at;
    tell(state, () => `late: ${operation.name} ${operation.tell()}`);
    happen(state, operation);
  }
  state.lateEffects = state.lateEffects.filter(({ at }) => at > to);
  state.now = to;
  for (const worker of workers) {
    if (worker.state !== 'up' && worker.wakeAt <= state.now) wake(state, worker);
  }
  renewLocks(world);
  for (const job of bull.jobs()) {
    if (job.state === 'active' && job.lockUntil <= state.now) stall(state, job);
  }
  if (state.violation !== null) throw state.violation;
}

function stall(state: State, job: SimulatedJob): void {
  job.stalls += 1;
  job.token = null;
  job.state = job.stalls > 10 ? 'failed' : 'waiting';
  count(state, 'job stalls');
  tell(state, () => `job ${job.id} is stalled: ${job.state}`);
}

export function wake(state: State, worker: Process): void {
  tell(state, () => `${worker.name} is back`);
  worker.state = 'up';
}

/** A lock is renewed for as long as the process that has it runs, and works on the job. */
function renewLocks({ state, bull }: World): void {
  for (const job of bull.jobs()) {
    if (job.state !== 'active') continue;
    const isHeld = state.runs.some((run) => run.token === job.token && run.process.state === 'up');
    if (isHeld) job.lockUntil = Number.POSITIVE_INFINITY;
    else if (job.lockUntil === Number.POSITIVE_INFINITY) job.lockUntil = state.now + LOCK_MS;
  }
}

export function nextEventAt(world: World): number {
  const { state, bull, workers } = world;
  renewLocks(world);
  const skews = workers.filter(({ state }) => state === 'up').map(({ skewMs }) => skewMs);
  const fastest = Math.max(...skews);
  let at = Math.min(state.nextLeasePassAt, state.without === 'reconciler' ? Number.POSITIVE_INFINITY : state.nextReconcileAt);
  for (const job of bull.jobs()) {
    if (job.state === 'delayed' && skews.length > 0) at = Math.min(at, job.dueAt - fastest);
    if (job.state === 'active') at = Math.min(at, job.lockUntil);
  }
  for (const late of state.lateEffects) at = Math.min(at, late.at);
  for (const worker of workers) if (worker.state !== 'up') at = Math.min(at, worker.wakeAt);
  return at;
}
