// The faults. Each says whether there was an occasion for it.
import { cancelSaga, retrySaga } from '../../src/saga/cancel-and-retry.ts';
import { carryOut, perform } from './operations.ts';
import { startLeasePass, startReconciler, act, renew } from './processes.ts';
import type { SimulatedJob, SimulatedQueues } from './simulated-queues.ts';
import type { Ambush, Operation, Process, State, Way } from './state.ts';
import { count, oneOf, pick, tell } from './state.ts';
import { advance } from './time.ts';
import type { Scenario, World } from './world.ts';

type Fault = (world: World) => boolean | Promise<boolean>;

const ways: Record<Operation['kind'], readonly [Way, ...Way[]]> = {
  sql: ['not done', 'done, reply lost', 'done late, reply lost'],
  queue: ['not done', 'done, reply lost', 'done late, reply lost'],
  http: ['unanswered', 'done, reply lost', 'done late, reply lost', 'not done', 'throttled', 'unauthorized'],
};

const spoilOperation: Fault = async ({ state }) => {
  const open = state.operations.filter(({ run, reply }) => run.process.state === 'up' && reply === null);
  const operation = open[pick(state, Math.max(1, open.length))];
  if (operation === undefined) return false;
  await spoil(state, operation);
  return true;
};

const spoil = async (state: State, operation: Operation) => {
  const mayBeRejected = operation.name.startsWith('POST') || operation.name.startsWith('DELETE');
  await perform(state, operation, mayBeRejected && pick(state, 8) === 7 ? 'rejected' : oneOf(state, ways[operation.kind]));
  return true;
};

// A fault at random seldom meets the few moments that matter: these lie in wait for them.
const lieInWait: Fault = (world) => {
  const { state } = world;
  const what = oneOf(state, ['POST', 'announced', 'POST', 'step_completed', 'DELETE', 'inventory.', 'compensation_completed', 'GET /v2/droplets?tag']);
  const fault = oneOf<Ambush['fault']>(state, [
    (operation) => spoil(state, operation),
    (operation) => crashProcess(world, operation.run.process),
    (operation) => freezeProcess(world, operation.run.process),
    () => loseLock(world),
    () => cancel(world),
    () => letTimePass(world),
  ]);
  state.ambush = { what, fault };
  return false;
};

const oneUp = ({ state, workers }: World) => {
  const up = workers.filter(({ state }) => state === 'up');
  return up[pick(state, Math.max(1, up.length))];
};

const toOneUp = (strike: (world: World, worker: Process) => boolean): Fault => (world) => {
  const worker = oneUp(world);
  return worker !== undefined && strike(world, worker);
};

const crashProcess = ({ state, people }: World, worker: Process) => {
  if (worker === people) return false;
  count(state, 'worker crashes');
  tell(state, () => `${worker.name} crashes`);
  for (const operation of state.operations) {
    if (operation.run.process !== worker || operation.reply !== null) continue;
    const way = oneOf<Way>(state, ['not done', 'done, reply lost', 'done late, reply lost']);
    if (way !== 'not done') carryOut(state, operation, way);
  }
  state.operations = state.operations.filter(({ run }) => run.process !== worker);
  state.runs = state.runs.filter(({ process }) => process !== worker);
  Object.assign(worker, { state: 'down', wakeAt: state.now + oneOf(state, [1_000, 8_000, 35_000, 90_000]), isReconciling: false, isExpiring: false });
  if (state.violation !== null) throw state.violation;
  return true;
};

const freezeProcess = ({ state, people }: World, worker: Process) => {
  if (worker === people) return false;
  count(state, 'worker freezes');
  tell(state, () => `${worker.name} freezes`);
  Object.assign(worker, { state: 'frozen', wakeAt: state.now + oneOf(state, [40_000, 12_000, 100_000]) });
  for (const operation of state.operations) {
    if (operation.run.process !== worker || operation.reply !== null) continue;
    // A POST is out of the house by now: see the limits in world.ts. Anything else may be sent when the process goes on.
    if ((operation.name.startsWith('POST') && !state.isBeyondLimits) || pick(state, 2) === 0) operation.reply = carryOut(state, operation, 'done');
  }
  if (state.violation !== null) throw state.violation;
  return true;
};

const crash = toOneUp(crashProcess);
const freeze = toOneUp(freezeProcess);

const onJob = (what: string, matches: (job: SimulatedJob) => boolean, change: (job: SimulatedJob, bull: SimulatedQueues) => void): Fault => (world) => {
  const matching = world.bull.jobs().filter(matches);
  const job = matching[pick(world.state, Math.max(1, matching.length))];
  if (job === undefined) return false;
  count(world.state, what);
  tell(world.state, () => `${what}: ${job.id}`);
  change(job, world.bull);
  return true;
};

const loseLock = onJob('lock lost, job delivered twice', (job) => job.state === 'active', (job) => {
  job.state = 'waiting';
  job.token = null;
});
const promote = onJob('job promoted', (job) => job.state === 'delayed', (job) => {
  job.state = 'waiting';
});
const redeliver = onJob('finished job run again', (job) => job.state === 'completed' || job.state === 'failed', (job) => {
  job.state = 'waiting';
});
const remove = onJob('job removed', (job) => job.state !== 'active', (job, bull) => bull.remove(job));

const flush: Fault = ({ state, bull }) => {
  count(state, 'queues flushed');
  tell(state, () => 'the queues are flushed');
  bull.flush();
  return true;
};

const restore: Fault = ({ state, bull }) => {
  if (state.snapshot === null) {
    state.snapshot = bull.snapshot();
    return false;
  }
  count(state, 'queues restored from an old snapshot');
  tell(state, () => 'the queues are restored from an old snapshot');
  bull.restore(state.snapshot);
  state.snapshot = null;
  return true;
};

const letTimePass: Fault = (world) => {
  const { state } = world;
  const ms = oneOf(state, [2_000, 8_000, 25_000, 70_000, 300_000]);
  count(state, 'time passes amid I/O');
  tell(state, () => `${ms / 1_000} s pass`);
  advance(world, state.now + ms);
  return true;
};

const cancel: Fault = async (world) => {
  const { state, db } = world;
  const sagas = db.all().filter(({ status }) => status !== 'compensated');
  const saga = sagas[pick(state, Math.max(1, sagas.length))];
  if (saga === undefined) return false;
  count(state, `cancel of a ${saga.status} saga`);
  await act(world, 'cancel', saga.id, () => cancelSaga(db.store, saga.id, 'somebody'));
  return true;
};

const retry: Fault = async (world) => {
  const { state, db } = world;
  const saga = db.all().find(({ status }) => status === 'stuck');
  if (saga === undefined) return false;
  count(state, 'retry of a stuck saga');
  await act(world, 'retry', saga.id, () => retrySaga(db.store, saga.id, 'somebody'));
  return true;
};

const refuseToken: Fault = ({ state }) => {
  count(state, 'token refused for a while');
  state.unauthorizedUntil = state.now + oneOf(state, [5_000, 40_000]);
  return true;
};

const goDown: Fault = ({ state }) => {
  count(state, 'DigitalOcean down for a while');
  state.downUntil = state.now + oneOf(state, [5_000, 40_000]);
  return true;
};

const protect: Fault = ({ state, cloud }) => {
  const own = [...cloud.droplets.values()].filter(({ owner, deletedAt, isProtected }) => owner !== null && deletedAt === null && !isProtected);
  const droplet = own[pick(state, Math.max(1, own.length))];
  if (droplet === undefined) return false;
  count(state, 'deletion refused for good');
  tell(state, () => `droplet ${droplet.id} refuses its deletion`);
  droplet.isProtected = true;
  return true;
};

const reconcileEarly: Fault = async (world) => {
  const worker = oneUp(world);
  if (worker === undefined || worker.isReconciling || world.state.without === 'reconciler') return false;
  await startReconciler(world, worker);
  return true;
};

const renewLease: Fault = async (world) => {
  const { state, cloud } = world;
  const own = [...cloud.droplets.values()].filter(({ owner }) => owner !== null);
  const droplet = own[pick(state, Math.max(1, own.length))];
  if (droplet === undefined) return false;
  await renew(world, droplet.id, oneOf(state, [60_000, 20_000, 200_000]));
  return true;
};

const expireEarly: Fault = async (world) => {
  const worker = oneUp(world);
  if (worker === undefined || worker.isExpiring) return false;
  count(world.state, 'several workers look for leases');
  await startLeasePass(world, worker);
  return true;
};

const moveOtherFleet: Fault = ({ state, cloud }) => {
  const [droplet] = [...cloud.droplets.values()].filter(({ owner }) => owner === null);
  if (droplet === undefined || ['kept', 'gone'].includes(cloud.otherFleet())) return false;
  cloud.moveOtherFleet(droplet.id);
  tell(state, () => `another fleet, at droplet ${droplet.id}: ${cloud.otherFleet()}`);
  return true;
};

/** The faults of a scenario, in an order that must stay: a decision names its fault by the place. */
export function faultsOf(scenario: Scenario): readonly Fault[] {
  if (scenario === 'adoptions') return adoptionFaults;
  return scenario === 'leases' ? leaseFaults : faults;
}

/** How often one is in here is how often it is drawn. A decision names its fault by the place: a change makes other schedules of the same seeds. */
const faults: readonly Fault[] = [
  spoilOperation, crash, spoilOperation, letTimePass, spoilOperation, freeze, loseLock, crash, spoilOperation, flush, cancel, loseLock,
  spoilOperation, restore, promote, redeliver, remove, spoilOperation, crash, restore, letTimePass, reconcileEarly, refuseToken, goDown,
  protect, retry, freeze, lieInWait, spoilOperation, lieInWait, cancel, lieInWait, lieInWait, lieInWait,
];

const leaseFaults: readonly Fault[] = [...faults, renewLease, renewLease, expireEarly, renewLease, letTimePass, renewLease, expireEarly, cancel];

const adoptionFaults: readonly Fault[] = [...faults, moveOtherFleet, moveOtherFleet, moveOtherFleet, cancel, letTimePass];
