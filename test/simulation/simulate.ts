// One schedule from its beginning to its end: faults for a while, then calm, until every saga is at rest and is checked.
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { retrySaga } from '../../src/saga/cancel-and-retry.ts';
import { act } from './processes.ts';
import { setTheScene, startWhatFollows } from './scene.ts';
import { step, unfinished } from './schedule.ts';
import { policy } from './settings.ts';
import { oneOf, tell, wallClockMs } from './state.ts';
import type { Tape } from './tape.ts';
import { wake } from './time.ts';
import type { Mechanism } from './violation.ts';
import { Violation } from './violation.ts';
import type { Scenario, World } from './world.ts';
import { createWorld } from './world.ts';

const MAX_CALM_STEPS = 8_000;
// The longest way there is: a droplet of the saga's name that never gets a tag is waited for, for ten grace periods.
const MAX_CALM_MS = 3_600_000;

/** How a schedule went. */
export type Result = Readonly<{
  steps: number;
  /** How often each thing happened. */
  counts: ReadonlyMap<string, number>;
  /** How each saga ended. */
  ends: readonly string[];
}>;

/**
 * Runs one schedule to its end.
 *
 * @param options.scenario what is played: droplets unless told otherwise
 * @param options.without a mechanism to be left out
 * @param options.trace is told what happens, line by line
 * @throws {Violation}
 */
export async function simulate(tape: Tape, options: { scenario?: Scenario; without?: Mechanism; trace?: (line: string) => void } = {}): Promise<Result> {
  const world = createWorld(tape, { scenario: options.scenario ?? 'droplets', without: options.without ?? null, trace: options.trace ?? null });
  const realNow = Date.now;
  // The queues' code reads the clocks of its process. The wall clock is as wrong here as the schedule wants it; the other
  // one only goes on with the schedule, so that the speed of the machine decides nothing.
  Date.now = () => wallClockMs(world.state);
  performance.now = () => world.state.now;
  try {
    return await play(world);
  } finally {
    Date.now = realNow;
    // The one of its prototype is there again.
    Reflect.deleteProperty(performance, 'now');
  }
}

async function play(world: World): Promise<Result> {
  const { state, db, cloud, orders, rules, scenario } = world;
  await setTheScene(world);
  const faultySteps = oneOf(state, [60, 150, 300]);
  while (state.steps < faultySteps && !isQuiet(world)) {
    await step(world, state.tape.step());
    await startWhatFollows(world);
  }
  calmDown(world);
  await comeToRest(world);
  const stuck = db.all().filter(({ status }) => status === 'stuck');
  for (const saga of stuck) await release(world, saga);
  await comeToRest(world);
  cloud.settle();
  for (const saga of db.all()) {
    if (saga.status === 'stuck') throw new Violation(`${saga.id} is stuck again, with nothing in its way`);
    (scenario === 'orders' ? orders : rules).checkAtRest(saga);
  }
  for (const droplet of cloud.droplets.values()) {
    const isAdopted = db.all().some((saga) => saga.name === 'adopt_droplet' && db.provisionedBy(saga.id).some(({ providerId }) => Number(providerId) === droplet.id));
    if (droplet.owner === null && droplet.deletedAt !== null && !droplet.hasVanished && !isAdopted) throw new Violation(`droplet ${droplet.id} was somebody else's`);
  }
  if (scenario === 'leases') rules.checkLeases();
  const ends = db.all().map((saga) => `${saga.name} ${saga.status}${stuck.some(({ id }) => id === saga.id) ? ' after it was stuck' : ''}`);
  return { steps: state.steps, counts: state.counts, ends };
}

function isQuiet({ state, db, bull, scenario }: World): boolean {
  return (
    state.operations.length === 0 &&
    state.lateEffects.length === 0 &&
    !(scenario === 'leases' && db.leases.isWaiting()) &&
    db.all().every(({ status }) => isAtRest(status)) &&
    state.plans.every(({ id, thenDestroys }) => thenDestroys === 'no' || db.saga(id).status !== 'completed') &&
    bull.jobs().every(({ state }) => state === 'completed' || state === 'failed')
  );
}

function calmDown({ state, workers }: World): void {
  tell(state, () => 'calm');
  state.isCalm = true;
  state.unauthorizedUntil = 0;
  state.downUntil = 0;
  for (const worker of workers) if (worker.state !== 'up') wake(state, worker);
  for (const worker of workers) worker.skewMs = 0;
}

async function comeToRest(world: World): Promise<void> {
  const { state } = world;
  const lastStep = state.steps + MAX_CALM_STEPS;
  const lastMs = state.now + MAX_CALM_MS;
  while (!isQuiet(world)) {
    if (state.steps >= lastStep || state.now > lastMs) {
      throw new Violation(`no rest after ${MAX_CALM_STEPS} steps, or ${MAX_CALM_MS / 60_000} minutes, without a fault: ${unfinished(world)}`);
    }
    await step(world, 0);
    await startWhatFollows(world);
  }
}

function wasUntagRefused({ state }: World): boolean {
  return [...state.counts.keys()].some((what) => what.startsWith('DELETE /v2/tags') && what.endsWith('rejected'));
}

/** A person looks at a stuck saga, removes what is in its way, and resumes it. */
async function release(world: World, saga: Saga): Promise<void> {
  const { db, cloud, scenario } = world;
  if (scenario === 'orders') throw new Violation(`${saga.id} is stuck, and nothing is in its way`);
  if (saga.name === 'adopt_droplet' && !wasUntagRefused(world)) throw new Violation(`${saga.id} is stuck, though no tag was kept from it: ${saga.error?.message}`);
  const own = [...cloud.droplets.values()].filter(({ id, owner }) => owner === saga.id || id === saga.input['droplet_id']);
  const wasRefused = own.some(({ isProtected }) => isProtected) || cloud.refusalsOf(saga.id) >= policy.compensationAttempts / 2;
  if (!wasRefused && saga.name !== 'adopt_droplet') throw new Violation(`${saga.id} is stuck, though its droplet's deletion was never refused: ${saga.error?.message}`);
  for (const droplet of own) droplet.isProtected = false;
  await act(world, 'retry', saga.id, () => retrySaga(db.store, saga.id, 'somebody'));
}
