// The world of one schedule: the real steps, engine, queues' code and reconciler, on a simulated Postgres, BullMQ,
// DigitalOcean and clock. Every I/O waits here until the schedule lets it happen: in which order, whether its effect or
// its reply is lost, whether the worker dies meanwhile. Everything else follows from the tape.
//
// The limits within which the engine promises what is checked, and which the faults keep: a request, and what
// DigitalOcean makes of it late, is over within 20 s of being sent; a POST is sent within 10 s of its intent; lists, reads
// and tags lag by at most 24 s: together less than the adoption grace. Within them, a saga never has two droplets.
//
// Some schedules go beyond: lags outlast the grace, and a process is stopped between its last look at the clock and the
// first byte of its POST. There a saga may make a second droplet, and may miss it: what is left over bears the saga's
// full id, and is the orphan sweep's business, which this world has not. Everything else must hold there as well.
import { catalog as dropletCatalog } from '../../src/steps/catalog.ts';
import type { StepDeps } from '../../src/steps/deps.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import type { ReadyCallbacks } from '../../src/inventory/ready-callbacks.ts';
import { createDirectory } from '../../src/do/directory.ts';
import { observeSingly } from '../../src/do/observer.ts';
import { rangesOf } from '../../src/platform/address-ranges.ts';
import { directIo } from '../../src/platform/io.ts';
import type { Log } from '../../src/platform/log.ts';
import type { StepQueues } from '../../src/queues/step-queues.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { startStepWorkers } from '../../src/queues/step-workers.ts';
import { stepsToStartAt } from '../../src/saga/definition.ts';
import { resourceOf } from '../../src/saga/resource.ts';
import { runJob } from '../../src/saga/runner.ts';
import { toStepOutcome } from '../../src/steps/failures.ts';
import { createCall } from './operations.ts';
import type { Orders } from './orders.ts';
import { createOrders } from './orders.ts';
import type { Rules } from './rules.ts';
import { createRules } from './rules.ts';
import { CONCURRENCY, LOCK_MS, policy, RECONCILE_MS, REQUEST_MS, settings } from './settings.ts';
import type { SimulatedCloud } from './simulated-cloud.ts';
import { createSimulatedCloud } from './simulated-cloud.ts';
import type { SimulatedDatabase } from './simulated-database.ts';
import { createSimulatedDatabase } from './simulated-database.ts';
import type { SimulatedQueues } from './simulated-queues.ts';
import { createSimulatedQueues } from './simulated-queues.ts';
import { standIn } from './stand-in.ts';
import type { Process, State } from './state.ts';
import { count, createState, oneOf, pick, wallClockMs } from './state.ts';
import type { Tape } from './tape.ts';
import type { Call, Mechanism } from './violation.ts';

const silence = () => undefined;
// The engine's log is not looked at; a child of pino's costs more than the step it is for.
const log = standIn<Log>({ debug: silence, info: silence, warn: silence, error: silence, isLevelEnabled: () => false, child: () => log });

/** Everything there is in one schedule. */
export type World = Readonly<{
  scenario: Scenario;
  catalog: Catalog<StepDeps>;
  orders: Orders;
  state: State;
  call: Call;
  db: SimulatedDatabase;
  cloud: SimulatedCloud;
  bull: SimulatedQueues;
  /** The real queues' code, on `bull`. */
  queues: StepQueues;
  log: Log;
  rules: Rules;
  /** The process of all clients. Nothing ever happens to it. */
  people: Process;
  workers: readonly Process[];
}>;

/** What is played: the droplet sagas, the same with leases on the droplets, adoptions of other people's droplets, or a saga whose effects are those of any foreign service. */
export const scenarios = ['droplets', 'leases', 'adoptions', 'orders'] as const;
export type Scenario = (typeof scenarios)[number];

export function isScenario(text: string): text is Scenario {
  return scenarios.some((scenario) => scenario === text);
}

export function createWorld(tape: Tape, { scenario = 'droplets', without, trace }: { scenario?: Scenario; without: Mechanism | null; trace: ((line: string) => void) | null }): World {
  const state = createState(tape, without, trace);
  const call = createCall(state);
  const nowMs = () => state.now;
  const orders = createOrders({ call, nowMs, pick: (choices) => pick(state, choices), without, isBeyondLimits: state.isBeyondLimits, count: (what) => count(state, what) });
  const catalog: Catalog<StepDeps> = scenario === 'orders' ? orders.catalog : dropletCatalog;
  const db = createSimulatedDatabase({ call, nowMs, reconcileGraceMs: RECONCILE_MS, startsAt: stepsToStartAt(catalog), without, resourceOf: (saga) => resourceOf(catalog[saga.name], { saga, inputChecked: true }) });
  const rules = createRules({ state, db, droplets: () => cloud.droplets, otherFleet: () => cloud.otherFleet() });
  const cloud = createSimulatedCloud({
    call,
    nowMs,
    tape: { pick: (choices) => pick(state, choices) },
    without,
    isBeyondLimits: state.isBeyondLimits,
    count: (what) => count(state, what),
    onCreate: rules.onCreate,
    onDestroy: rules.onDestroy,
    onTag: rules.onTag,
    onUntag: rules.onUntag,
  });
  const bull = createSimulatedQueues({ call, wallClockMs: () => wallClockMs(state) });
  const queues = openStepQueues(bull.connection, directIo);
  const runner = {
    store: db.store,
    catalog,
    deps: {
      inventory: db.inventory,
      digitalOcean: cloud.client,
      droplets: observeSingly(cloud.client),
      directory: createDirectory(cloud.client),
      readiness: { probe: cloud.probe, allowed: rangesOf(['0.0.0.0/1', '128.0.0.0/1']), callbacks: standIn<ReadyCallbacks>({}), publicUrl: null, canIssue: false },
      settings: without === 'settle window' ? { ...settings, adoptionGraceMs: 0 } : settings,
    },
    policy,
    toOutcome: toStepOutcome,
    claimMs: (LOCK_MS - REQUEST_MS) / 2,
    log,
    random: () => 0.5,
  };
  startStepWorkers(bull.connection, {
    settings: { concurrency: CONCURRENCY, lockMs: LOCK_MS },
    queues,
    run: (claim) => runJob(claim, runner),
    io: directIo,
    log,
  });
  const people: Process = { name: 'client', state: 'up', wakeAt: 0, skewMs: 0, isReconciling: false, isExpiring: false };
  const workers = Array.from({ length: 2 + pick(state, 2) }, (_, index): Process => ({
    name: `worker ${index + 1}`,
    state: 'up',
    wakeAt: 0,
    skewMs: oneOf(state, [0, 0, 600_000, -600_000, 20_000]),
    isReconciling: false,
    isExpiring: false,
  }));
  return { scenario, catalog, orders, state, call, db, cloud, bull, queues, log, rules, people, workers };
}
