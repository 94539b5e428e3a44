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
import { catalog } from '../../src/catalog.ts';
import { lookSingly } from '../../src/do/observer.ts';
import type { Log } from '../../src/log.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { startStepWorkers } from '../../src/queues/step-workers.ts';
import { directIo } from '../../src/io.ts';
import { reconcile } from '../../src/saga/reconciler.ts';
import { stepsToStartAt } from '../../src/saga/definition.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest, nextJobOf } from '../../src/saga/saga.ts';
import type { Steered } from '../../src/saga/steer.ts';
import { cancelSaga, retrySaga } from '../../src/saga/steer.ts';
import { enqueueOrLeave } from '../../src/start-and-enqueue.ts';
import { toStepOutcome } from '../../src/steps/failures.ts';
import { announcedCreates, recordedDropletId } from '../../src/steps/intents.ts';
import { DelayedError } from 'bullmq';
import type { SimulatedDroplet } from './simulated-cloud.ts';
import { createSimulatedCloud, failure } from './simulated-cloud.ts';
import { createSimulatedDatabase } from './simulated-database.ts';
import type { SimulatedJob } from './simulated-queues.ts';
import { createSimulatedQueues } from './simulated-queues.ts';
import { standIn } from './stand-in.ts';
import type { Tape } from './tape.ts';
import { FIRST_FAULT } from './tape.ts';
import type { Mechanism } from './violation.ts';
import { Violation } from './violation.ts';

const START_MS = Date.UTC(2030, 0, 1);
const REQUEST_MS = 10_000;
const LOCK_MS = 30_000;
const RECONCILE_MS = 15_000;
const CONCURRENCY = 2;
const MAX_CALM_STEPS = 8_000;
// The longest way there is: a droplet of the saga's name that never gets a tag is waited for, for ten grace periods.
const MAX_CALM_MS = 3_600_000;
// Far more than a run takes to get from one I/O to the next.
const MAX_TICKS = 500;

const settings = { pollIntervalMs: 5_000, maxPolls: 3, adoptionGraceMs: 60_000, maxCreates: 3 };
const policy = { stepAttempts: 3, stepBackoffMs: 1_000, compensationAttempts: 10 };
const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

const silence = () => undefined;
// The engine's log is not looked at; a child of pino's costs more than the step it is for.
const log = standIn<Log>({ debug: silence, info: silence, warn: silence, error: silence, isLevelEnabled: () => false, child: () => log });

// One turn of what is ready to go on.
const turn = Promise.resolve();

/** How a schedule went. */
export type Result = Readonly<{
  steps: number;
  /** How often each thing happened. */
  counts: ReadonlyMap<string, number>;
  /** How each saga ended. */
  ends: readonly string[];
}>;

type Process = { name: string; state: 'up' | 'down' | 'frozen'; wakeAt: number; skewMs: number; isReconciling: boolean };
type Run = { process: Process; label: string; sagaId: string | null; blocked: number; isDone: boolean; isParallel: boolean; token: string | null };
type Reply = { ok: boolean; value: unknown; resume: () => void };
type Way = 'done' | 'not done' | 'done, reply lost' | 'done late, reply lost' | 'unanswered' | 'throttled' | 'unauthorized' | 'rejected';
type Operation = {
  run: Run;
  kind: 'sql' | 'http' | 'queue';
  name: string;
  tell: () => string;
  /** Has its effect, and says what the process would learn. */
  happen: () => Reply;
  /** What the process learns instead. */
  fail: (error: unknown) => Reply;
  deadline: number;
  /** What the process will learn, once it can listen. */
  reply: Reply | null;
};

/**
 * Runs one schedule to its end.
 *
 * @param options.without a mechanism to be left out
 * @param options.trace is told what happens, line by line
 * @throws {Violation}
 */
export async function simulate(tape: Tape, options: { without?: Mechanism; trace?: (line: string) => void } = {}): Promise<Result> {
  const world = createWorld(tape, options.without ?? null, options.trace ?? null);
  const realNow = Date.now;
  // The queues' code reads the wall clock of its process, which here is as wrong as the schedule wants it.
  Date.now = world.wallClockMs;
  try {
    return await world.play();
  } finally {
    Date.now = realNow;
  }
}

function createWorld(tape: Tape, without: Mechanism | null, trace: ((line: string) => void) | null) {
  let now = START_MS;
  let steps = 0;
  let isCalm = false;
  let violation: Violation | null = null;
  let nextReconcileAt = START_MS + RECONCILE_MS;
  let deliveries = 0;
  let unauthorizedUntil = 0;
  let downUntil = 0;
  /** The run whose code is running, or whose effect is happening. */
  let current: Run | null = null;
  let operations: Operation[] = [];
  let lateEffects: { at: number; operation: Operation }[] = [];
  let snapshot: SimulatedJob[] | null = null;
  let ambush: { what: string; fault: (operation: Operation) => boolean | Promise<boolean> } | null = null;
  const counts = new Map<string, number>();

  const isBeyondLimits = tape.pick(5) === 4;

  const pick = (count: number) => (isCalm ? 0 : tape.pick(count));
  const oneOf = <T>(choices: readonly [T, ...T[]]): T => choices[pick(choices.length)] ?? choices[0];
  const count = (what: string) => {
    counts.set(what, (counts.get(what) ?? 0) + 1);
  };
  const tell = (line: () => string) => {
    trace?.(`${((now - START_MS) / 1_000).toFixed(3).padStart(9)} s  ${line()}`);
  };

  const call = <T>(kind: Operation['kind'], name: string, effect: () => T, tellMore: () => string = () => ''): Promise<T> => {
    const run = current;
    if (run === null) throw new Violation(`${name} is called by nobody`);
    run.blocked += 1;
    return new Promise<T>((resolve, reject) => {
      const fail = (error: unknown): Reply => ({ ok: false, value: error, resume: () => reject(error) });
      const happen = (): Reply => {
        try {
          const value = effect();
          return { ok: true, value, resume: () => resolve(value) };
        } catch (error) {
          if (error instanceof Violation) violation ??= error;
          return fail(error);
        }
      };
      operations.push({ run, kind, name, tell: tellMore, happen, fail, deadline: now + REQUEST_MS, reply: null });
    });
  };

  const wallClockMs = () => now + (current?.process.skewMs ?? 0);
  const nowMs = () => now;
  const db = createSimulatedDatabase({ call, nowMs, slackMs: RECONCILE_MS, startsAt: stepsToStartAt(catalog), without });
  const cloud = createSimulatedCloud({ call, nowMs, tape: { pick }, without, isBeyondLimits, count, onCreate, onDestroy });
  const bull = createSimulatedQueues({ call, wallClockMs });
  const queues = openStepQueues(bull.connection, directIo);
  const runner = {
    store: db.store,
    catalog,
    deps: {
      inventory: db.inventory,
      digitalOcean: cloud.client,
      openUserData: async () => Promise.reject(new Error('no simulated saga has user data')),
      droplets: lookSingly(cloud.client),
      settings: without === 'settle window' ? { ...settings, adoptionGraceMs: 0 } : settings,
    },
    policy,
    toOutcome: toStepOutcome,
    claimMs: (LOCK_MS - REQUEST_MS) / 2,
    log,
    random: () => 0.5,
    monotonicMs: nowMs,
  };
  startStepWorkers(bull.connection, {
    settings: { concurrency: CONCURRENCY, lockMs: LOCK_MS },
    queues,
    run: (claim) => runJob(claim, runner),
    io: directIo,
    log,
  });

  const people: Process = { name: 'client', state: 'up', wakeAt: 0, skewMs: 0, isReconciling: false };
  const workers: Process[] = Array.from({ length: 2 + pick(2) }, (_, index) => ({
    name: `worker ${index + 1}`,
    state: 'up',
    wakeAt: 0,
    skewMs: oneOf([0, 0, 600_000, -600_000, 20_000]),
    isReconciling: false,
  }));
  let runs: Run[] = [];
  const plans: { id: string; thenDestroys: boolean }[] = [];

  // --- What must never happen -------------------------------------------------------------------------------------

  function onCreate(sagaId: string, posts: number): void {
    const [live] = liveDropletsOf(sagaId);
    if (live !== undefined && !isBeyondLimits) throw new Violation(`${sagaId} makes a second droplet, beside ${live}`);
    // Without its intent no POST is announced; what is to be seen is what that does to droplets.
    if (without === 'intent') return;
    const announced = announcedCreates(db.saga(sagaId));
    if (posts > announced) throw new Violation(`${sagaId}: POST ${posts} of a saga that announced ${announced}`);
  }

  function liveDropletsOf(sagaId: string): number[] {
    return [...cloud.droplets.values()].filter(({ owner, deletedAt }) => owner === sagaId && deletedAt === null).map(({ id }) => id);
  }

  function onDestroy(droplet: SimulatedDroplet): void {
    if (droplet.owner === null) throw new Violation(`droplet ${droplet.id} is somebody else's, and is destroyed`);
    const actor = current?.sagaId === null || current === null ? null : db.saga(current.sagaId);
    if (actor === null) throw new Violation(`droplet ${droplet.id} is destroyed by no saga`);
    if (actor.name === 'destroy_droplet') {
      if (actor.input['droplet_id'] !== droplet.id) throw new Violation(`droplet ${droplet.id} is destroyed by a saga for another`);
      return;
    }
    if (actor.id !== droplet.owner) throw new Violation(`droplet ${droplet.id} of ${droplet.owner} is destroyed by ${actor.id}`);
    if (actor.status === 'completed' && recordedDropletId(actor) === droplet.id) {
      throw new Violation(`droplet ${droplet.id} is destroyed, though ${actor.id} completed with it`);
    }
  }

  function checkAtRest(saga: Saga): void {
    if (saga.name === 'destroy_droplet') return checkDestroyAtRest(saga);
    const live = liveDropletsOf(saga.id);
    const made = [...cloud.droplets.values()].filter((droplet) => droplet.owner === saga.id).length;
    if (made > 1) count(`saga made ${made} droplets${isBeyondLimits ? ', beyond the limits' : ''}`);
    if (saga.context['droplet_origin'] === 'adopted') count('droplet adopted');
    if (saga.error !== null) count(`rolled back: ${saga.error.code}`);
    const recorded = recordedDropletId(saga);
    const listed = db.provisionedBy(saga.id);
    const inInventory = listed.filter(({ isDeleted }) => !isDeleted).map(({ providerId }) => Number(providerId));
    if (saga.status === 'compensated') {
      if (live.length > 0 && isBeyondLimits) count('droplet left to the orphan sweep');
      else if (live.length > 0) throw new Violation(`${saga.id} is compensated, and left droplet ${live.join(', ')}`);
      if (listed.length > 0) throw new Violation(`${saga.id} is compensated, and left ${JSON.stringify(listed)} in the inventory`);
      return;
    }
    const droplet = recorded === null ? undefined : cloud.droplets.get(recorded);
    if (droplet?.owner !== saga.id) throw new Violation(`${saga.id} completed with droplet ${recorded}, which is not its own`);
    const surplus = live.filter((id) => id !== recorded);
    if (surplus.length > 0 && isBeyondLimits) count('droplet left to the orphan sweep');
    else if (surplus.length > 0) throw new Violation(`${saga.id} completed with droplet ${recorded}, and left droplet ${surplus.join(', ')} as well`);
    const destroyers = db.all().filter((other) => other.name === 'destroy_droplet' && other.input['droplet_id'] === recorded);
    const mayBeGone = droplet.hasVanished || destroyers.length > 0;
    if (droplet.deletedAt !== null && !mayBeGone) throw new Violation(`${saga.id} completed, and its droplet ${recorded} is gone`);
    if (destroyers.length > 0) return;
    if (inInventory.length !== 1 || inInventory[0] !== recorded) {
      throw new Violation(`${saga.id} completed with droplet ${recorded}, and the inventory has ${JSON.stringify(listed)}`);
    }
  }

  function checkDestroyAtRest(saga: Saga): void {
    if (saga.status !== 'completed') return;
    const droplet = cloud.droplets.get(Number(saga.input['droplet_id']));
    if (droplet?.owner === null) throw new Violation(`${saga.id} completed with somebody else's droplet ${droplet.id}`);
    if (droplet?.deletedAt === null) throw new Violation(`${saga.id} completed, and droplet ${droplet.id} is still there`);
    const owner = plans.flatMap(({ id }) => db.provisionedBy(id)).find(({ providerId }) => Number(providerId) === droplet?.id);
    if (owner?.isDeleted !== true) throw new Violation(`${saga.id} completed, and the inventory still has its droplet`);
  }

  // --- Runs, and how they get from one I/O to the next ------------------------------------------------------------

  async function start(run: Run, body: () => Promise<unknown>): Promise<void> {
    runs.push(run);
    current = run;
    const noteEnd = (error?: unknown) => {
      run.isDone = true;
      if (error instanceof Violation) violation ??= error;
    };
    body().then(() => noteEnd(), noteEnd);
    await drain(run);
  }

  async function drain(run: Run): Promise<void> {
    // A run with several I/Os under way is let go on for a while: nothing says when it has nothing more to do.
    for (let tick = 0; run.isParallel ? tick < 60 : !run.isDone && run.blocked === 0; tick += 1) {
      if (tick > MAX_TICKS) throw new Violation(`${run.label} does neither I/O nor end`);
      await turn;
    }
    if (run.isDone) runs = runs.filter((other) => other !== run);
    current = null;
    if (violation !== null) throw violation;
  }

  function newRun(process: Process, label: string, sagaId: string | null, more: Partial<Run> = {}): Run {
    return { process, label, sagaId, blocked: 0, isDone: false, isParallel: false, token: null, ...more };
  }

  async function deliver(job: SimulatedJob, worker: Process): Promise<void> {
    deliveries += 1;
    const token = `${worker.name}:${deliveries}`;
    job.state = 'active';
    job.token = token;
    job.lockUntil = Number.POSITIVE_INFINITY;
    tell(() => `${worker.name} takes the job ${job.id} ${job.name}`);
    const run = newRun(worker, job.id, job.id.slice(0, 36), { token });
    await start(run, () => work(job, token));
  }

  /** What BullMQ's worker does around its processor. */
  async function work(job: SimulatedJob, token: string): Promise<void> {
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

  async function startReconciler(worker: Process): Promise<void> {
    worker.isReconciling = true;
    const run = newRun(worker, 'reconciler', null, { isParallel: true });
    await start(run, async () => {
      try {
        await reconcile({ store: db.store, ensure: queues.ensure, log });
      } finally {
        worker.isReconciling = false;
      }
    });
  }

  async function steer(label: string, sagaId: string, request: () => Promise<Steered>): Promise<void> {
    tell(() => `client asks to ${label} ${sagaId}`);
    await start(newRun(people, label, null), async () => {
      const steered = await request();
      if (steered.kind === 'accepted' && steered.next !== null) await enqueueOrLeave(steered.next, queues, log);
    });
  }

  async function startSaga(id: string, name: string, sagaInput: Saga['input']): Promise<void> {
    const steps = (name === 'destroy_droplet' ? catalog.destroy_droplet : catalog.provision_droplet).steps.map((step) => step.name);
    // Some callers insert the row in their own transaction, by SQL, and enqueue nothing.
    const isBySql = without !== 'reconciler' && pick(4) === 3;
    db.insert({ id, name, steps, input: sagaInput, inputChecked: !isBySql });
    tell(() => `client starts ${name} ${id}`);
    const job = nextJobOf(db.saga(id));
    if (job !== null && !isBySql) await start(newRun(people, 'enqueue', null), () => enqueueOrLeave(job, queues, log));
  }

  // --- I/O happens, or not ----------------------------------------------------------------------------------------

  async function perform(operation: Operation, way: Way): Promise<void> {
    operation.reply ??= carryOut(operation, way);
    if (operation.run.process.state === 'frozen') return;
    operations = operations.filter((other) => other !== operation);
    const { run, reply } = operation;
    run.blocked -= 1;
    current = run;
    reply.resume();
    await drain(run);
  }

  function carryOut(operation: Operation, wanted: Way): Reply {
    const { run, name } = operation;
    let way = wanted;
    if (operation.kind === 'http' && now < unauthorizedUntil) way = 'unauthorized';
    else if (operation.kind === 'http' && now < downUntil && way === 'done') way = 'unanswered';
    if (way !== 'done') count(`${name.replace(/ (\/|in |from |to saga).*/, '')}: ${way}`);
    let reply: Reply;
    switch (way) {
      case 'done':
        reply = happen(operation);
        break;
      case 'done, reply lost':
        happen(operation);
        reply = operation.fail(errorOf(operation, way));
        break;
      case 'done late, reply lost':
        lateEffects.push({ at: now + oneOf([1_000, 4_000, 9_000]), operation });
        reply = operation.fail(errorOf(operation, way));
        break;
      case 'not done':
      case 'unanswered':
      case 'throttled':
      case 'unauthorized':
      case 'rejected':
        reply = operation.fail(errorOf(operation, way));
        break;
      default:
        return way satisfies never;
    }
    tell(() => `${run.process.name} ${name} ${operation.tell()} → ${way === 'done' ? brief(reply.value) : way}`);
    return reply;
  }

  function happen(operation: Operation): Reply {
    const before = current;
    current = operation.run;
    const reply = operation.happen();
    current = before;
    return reply;
  }

  // --- Time -------------------------------------------------------------------------------------------------------

  function advance(to: number): void {
    renewLocks();
    for (const operation of operations) {
      const isListening = operation.run.process.state !== 'frozen';
      if (operation.reply === null && isListening && operation.deadline < to) {
        operation.reply = carryOut(operation, oneOf(['unanswered', 'done, reply lost', 'done late, reply lost']));
      }
    }
    for (const { at, operation } of lateEffects.filter(({ at }) => at <= to).toSorted((a, b) => a.at - b.at)) {
      now = at;
      tell(() => `late: ${operation.name} ${operation.tell()}`);
      happen(operation);
    }
    lateEffects = lateEffects.filter(({ at }) => at > to);
    now = to;
    for (const worker of workers) {
      if (worker.state !== 'up' && worker.wakeAt <= now) wake(worker);
    }
    renewLocks();
    for (const job of bull.jobs()) {
      if (job.state === 'active' && job.lockUntil <= now) stall(job);
    }
    if (violation !== null) throw violation;
  }

  function stall(job: SimulatedJob): void {
    job.stalls += 1;
    job.token = null;
    job.state = job.stalls > 10 ? 'failed' : 'waiting';
    count('job stalls');
    tell(() => `job ${job.id} is stalled: ${job.state}`);
  }

  function wake(worker: Process): void {
    tell(() => `${worker.name} is back`);
    worker.state = 'up';
  }

  /** A lock is renewed for as long as the process that has it runs, and works on the job. */
  function renewLocks(): void {
    for (const job of bull.jobs()) {
      if (job.state !== 'active') continue;
      const isHeld = runs.some((run) => run.token === job.token && run.process.state === 'up');
      if (isHeld) job.lockUntil = Number.POSITIVE_INFINITY;
      else if (job.lockUntil === Number.POSITIVE_INFINITY) job.lockUntil = now + LOCK_MS;
    }
  }

  function nextEventAt(): number {
    renewLocks();
    const skews = workers.filter(({ state }) => state === 'up').map(({ skewMs }) => skewMs);
    const fastest = Math.max(...skews);
    let at = without === 'reconciler' ? Number.POSITIVE_INFINITY : nextReconcileAt;
    for (const job of bull.jobs()) {
      if (job.state === 'delayed' && skews.length > 0) at = Math.min(at, job.dueAt - fastest);
      if (job.state === 'active') at = Math.min(at, job.lockUntil);
    }
    for (const late of lateEffects) at = Math.min(at, late.at);
    for (const worker of workers) if (worker.state !== 'up') at = Math.min(at, worker.wakeAt);
    return at;
  }

  // --- What comes next --------------------------------------------------------------------------------------------

  type Action = () => Promise<void>;

  function* ordinaryActions(): Generator<Action> {
    for (const operation of operations) {
      if (operation.run.process.state === 'up') yield () => perform(operation, 'done');
    }
    if (without !== 'reconciler' && now >= nextReconcileAt) {
      for (const worker of workers) if (worker.state === 'up' && !worker.isReconciling) yield () => reconcileNow(worker);
    }
    const free = workers.filter((worker) => worker.state === 'up' && runs.filter((run) => run.process === worker && run.token !== null).length < CONCURRENCY);
    if (free.length > 0) {
      for (const job of bull.jobs()) {
        if (job.state !== 'waiting' && job.state !== 'delayed') continue;
        for (let index = 0; index < free.length; index += 1) {
          const worker = free[(index + deliveries) % free.length];
          if (worker !== undefined && (job.state === 'waiting' || job.dueAt <= now + worker.skewMs)) yield () => deliver(job, worker);
        }
      }
    }
    yield async () => {
      const at = nextEventAt();
      if (at === Number.POSITIVE_INFINITY) throw new Violation(`nothing will ever happen again, and ${unfinished()}`);
      advance(Math.max(at, now + 1));
    };
  }

  /** The fault that lay in wait strikes, as soon as what it waits for is about to happen. */
  async function spring({ what, fault }: NonNullable<typeof ambush>): Promise<boolean> {
    const operation = operations.find(
      (operation) => operation.run.process.state === 'up' && operation.reply === null && `${operation.name} ${operation.tell()}`.includes(what),
    );
    if (operation === undefined) return false;
    ambush = null;
    return fault(operation);
  }

  async function reconcileNow(worker: Process): Promise<void> {
    nextReconcileAt = now + RECONCILE_MS;
    await startReconciler(worker);
  }

  async function step(decision: number): Promise<void> {
    steps += 1;
    if (ambush !== null && !isCalm && (await spring(ambush))) return;
    if (decision >= FIRST_FAULT) {
      const fault = faults[(decision - FIRST_FAULT) % faults.length];
      if (fault !== undefined && (await fault())) return;
    }
    let left = decision < FIRST_FAULT ? decision : 0;
    if (left > 0) {
      const actions = [...ordinaryActions()];
      left %= actions.length;
      await actions[left]?.();
      return;
    }
    for (const action of ordinaryActions()) {
      await action();
      return;
    }
  }

  // --- Faults; each says whether there was an occasion for it ------------------------------------------------------

  type Fault = () => boolean | Promise<boolean>;

  const ways: Record<Operation['kind'], readonly [Way, ...Way[]]> = {
    sql: ['not done', 'done, reply lost', 'done late, reply lost'],
    queue: ['not done', 'done, reply lost', 'done late, reply lost'],
    http: ['unanswered', 'done, reply lost', 'done late, reply lost', 'not done', 'throttled', 'unauthorized'],
  };

  const spoilOperation: Fault = async () => {
    const open = operations.filter(({ run, reply }) => run.process.state === 'up' && reply === null);
    const operation = open[pick(Math.max(1, open.length))];
    if (operation === undefined) return false;
    await spoil(operation);
    return true;
  };

  const spoil = async (operation: Operation) => {
    const mayBeRejected = operation.name.startsWith('POST') || operation.name.startsWith('DELETE');
    await perform(operation, mayBeRejected && pick(8) === 7 ? 'rejected' : oneOf(ways[operation.kind]));
    return true;
  };

  // A fault at random seldom meets the few moments that matter: these lie in wait for them.
  const lieInWait: Fault = () => {
    const what = oneOf(['POST', 'announced a create', 'POST', 'step_completed create', 'DELETE', 'inventory.', 'compensation_completed', 'GET /v2/droplets?tag']);
    const fault = oneOf<(operation: Operation) => boolean | Promise<boolean>>([
      spoil,
      (operation: Operation) => crashProcess(operation.run.process),
      (operation: Operation) => freezeProcess(operation.run.process),
      () => loseLock(),
      () => cancel(),
      () => letTimePass(),
    ]);
    ambush = { what, fault };
    return false;
  };

  const oneUp = () => {
    const up = workers.filter(({ state }) => state === 'up');
    return up[pick(Math.max(1, up.length))];
  };

  const crash: Fault = () => {
    const worker = oneUp();
    return worker !== undefined && crashProcess(worker);
  };

  const crashProcess = (worker: Process) => {
    if (worker === people) return false;
    count('worker crashes');
    tell(() => `${worker.name} crashes`);
    for (const operation of operations) {
      if (operation.run.process !== worker || operation.reply !== null) continue;
      const way = oneOf<Way>(['not done', 'done, reply lost', 'done late, reply lost']);
      if (way !== 'not done') carryOut(operation, way);
    }
    operations = operations.filter(({ run }) => run.process !== worker);
    runs = runs.filter(({ process }) => process !== worker);
    Object.assign(worker, { state: 'down', wakeAt: now + oneOf([1_000, 8_000, 35_000, 90_000]), isReconciling: false });
    if (violation !== null) throw violation;
    return true;
  };

  const freeze: Fault = () => {
    const worker = oneUp();
    return worker !== undefined && freezeProcess(worker);
  };

  const freezeProcess = (worker: Process) => {
    if (worker === people) return false;
    count('worker freezes');
    tell(() => `${worker.name} freezes`);
    Object.assign(worker, { state: 'frozen', wakeAt: now + oneOf([40_000, 12_000, 100_000]) });
    for (const operation of operations) {
      if (operation.run.process !== worker || operation.reply !== null) continue;
      // A POST is out of the house by now: see the limits above. Anything else may be sent when the process goes on.
      if ((operation.name.startsWith('POST') && !isBeyondLimits) || pick(2) === 0) operation.reply = carryOut(operation, 'done');
    }
    if (violation !== null) throw violation;
    return true;
  };

  const oneJob = (matches: (job: SimulatedJob) => boolean) => {
    const matching = bull.jobs().filter(matches);
    return matching[pick(Math.max(1, matching.length))];
  };

  const onJob = (what: string, matches: (job: SimulatedJob) => boolean, change: (job: SimulatedJob) => void): Fault => () => {
    const job = oneJob(matches);
    if (job === undefined) return false;
    count(what);
    tell(() => `${what}: ${job.id}`);
    change(job);
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
  const remove = onJob('job removed', (job) => job.state !== 'active', (job) => bull.remove(job));

  const flush: Fault = () => {
    count('queues flushed');
    tell(() => 'the queues are flushed');
    bull.flush();
    return true;
  };

  const restore: Fault = () => {
    if (snapshot === null) {
      snapshot = bull.snapshot();
      return false;
    }
    count('queues restored from an old snapshot');
    tell(() => 'the queues are restored from an old snapshot');
    bull.restore(snapshot);
    snapshot = null;
    return true;
  };

  const letTimePass: Fault = () => {
    const ms = oneOf([2_000, 8_000, 25_000, 70_000, 300_000]);
    count('time passes amid I/O');
    tell(() => `${ms / 1_000} s pass`);
    advance(now + ms);
    return true;
  };

  const cancel: Fault = async () => {
    const sagas = db.all().filter(({ status }) => status !== 'compensated');
    const saga = sagas[pick(Math.max(1, sagas.length))];
    if (saga === undefined) return false;
    count(`cancel of a ${saga.status} saga`);
    await steer('cancel', saga.id, () => cancelSaga(db.store, saga.id, 'somebody'));
    return true;
  };

  const retry: Fault = async () => {
    const saga = db.all().find(({ status }) => status === 'stuck');
    if (saga === undefined) return false;
    count('retry of a stuck saga');
    await steer('retry', saga.id, () => retrySaga(db.store, saga.id, 'somebody'));
    return true;
  };

  const refuseToken: Fault = () => {
    count('token refused for a while');
    unauthorizedUntil = now + oneOf([5_000, 40_000]);
    return true;
  };

  const goDown: Fault = () => {
    count('DigitalOcean down for a while');
    downUntil = now + oneOf([5_000, 40_000]);
    return true;
  };

  const protect: Fault = () => {
    const own = [...cloud.droplets.values()].filter(({ owner, deletedAt, isProtected }) => owner !== null && deletedAt === null && !isProtected);
    const droplet = own[pick(Math.max(1, own.length))];
    if (droplet === undefined) return false;
    count('deletion refused for good');
    tell(() => `droplet ${droplet.id} refuses its deletion`);
    droplet.isProtected = true;
    return true;
  };

  const reconcileEarly: Fault = async () => {
    const worker = oneUp();
    if (worker === undefined || worker.isReconciling || without === 'reconciler') return false;
    await startReconciler(worker);
    return true;
  };

  const faults: readonly Fault[] = [
    spoilOperation, crash, spoilOperation, letTimePass, spoilOperation, freeze, loseLock, crash, spoilOperation, flush, cancel, loseLock,
    spoilOperation, restore, promote, redeliver, remove, spoilOperation, crash, restore, letTimePass, reconcileEarly, refuseToken, goDown,
    protect, retry, freeze, lieInWait, spoilOperation, lieInWait, cancel, lieInWait, lieInWait, lieInWait,
  ];

  // --- From the beginning to the end ------------------------------------------------------------------------------

  async function play(): Promise<Result> {
    await setTheScene();
    const faultySteps = oneOf([60, 150, 300]);
    while (steps < faultySteps && !isQuiet()) {
      await step(tape.step());
      await startWhatFollows();
    }
    calmDown();
    await comeToRest();
    const stuck = db.all().filter(({ status }) => status === 'stuck');
    for (const saga of stuck) await release(saga);
    await comeToRest();
    cloud.settle();
    for (const saga of db.all()) {
      if (saga.status === 'stuck') throw new Violation(`${saga.id} is stuck again, with nothing in its way`);
      checkAtRest(saga);
    }
    for (const droplet of cloud.droplets.values()) {
      if (droplet.owner === null && droplet.deletedAt !== null) throw new Violation(`droplet ${droplet.id} was somebody else's`);
    }
    return { steps, counts, ends: db.all().map((saga) => `${saga.name} ${saga.status}${stuck.some(({ id }) => id === saga.id) ? ' after it was stuck' : ''}`) };
  }

  async function setTheScene(): Promise<void> {
    const sagas = oneOf([1, 1, 2, 3]);
    for (let index = 1; index <= sagas; index += 1) {
      const id = `a000000${index}-0000-4000-8000-00000000000${index}`;
      plans.push({ id, thenDestroys: pick(4) === 3 });
      addForeign(id, index);
      await startSaga(id, 'provision_droplet', { ...input, name: `web-${index}` });
    }
    // Somebody asks for the end of a droplet that arcadia-cloud did not make.
    const [foreign] = cloud.droplets.values();
    if (foreign !== undefined && pick(4) === 3) await startSaga('f0000000-0000-4000-8000-000000000000', 'destroy_droplet', { droplet_id: foreign.id });
  }

  /** Somebody else's droplets, of the kinds that might be taken for the saga's. */
  function addForeign(id: string, index: number): void {
    const name = `web-${index}`;
    const saga8Tag = `arcadia-saga-${id.slice(0, 8)}`;
    const otherId = `arcadia-saga-id-${id.slice(0, 8)}-ffff-4fff-8fff-ffffffffffff`;
    const kinds = [
      [],
      [{ name, tags: [], ageMs: 3_600_000 }],
      [{ name: `other-${index}`, tags: [saga8Tag], ageMs: 0 }],
      [{ name, tags: [saga8Tag, otherId], ageMs: 0 }],
      [{ name: `other-${index}`, tags: ['managed-by-arcadia-cloud', 'arcadia-saga-id-ffffffff-ffff-4fff-8fff-ffffffffffff'], ageMs: 0 }],
      [{ name, tags: [saga8Tag], ageMs: 3_600_000 }],
      [{ name, tags: [], ageMs: 0 }],
    ];
    for (const foreign of kinds[Math.max(0, pick(14) - 7)] ?? []) {
      count('foreign droplet that looks like ours');
      cloud.addForeign(foreign);
    }
  }

  async function startWhatFollows(): Promise<void> {
    for (const plan of plans) {
      if (!plan.thenDestroys || db.saga(plan.id).status !== 'completed') continue;
      plan.thenDestroys = false;
      const dropletId = recordedDropletId(db.saga(plan.id));
      if (dropletId !== null) await startSaga(`d${plan.id.slice(1)}`, 'destroy_droplet', { droplet_id: dropletId });
    }
  }

  function isQuiet(): boolean {
    return (
      operations.length === 0 &&
      lateEffects.length === 0 &&
      db.all().every(({ status }) => isAtRest(status)) &&
      plans.every(({ id, thenDestroys }) => !thenDestroys || db.saga(id).status !== 'completed') &&
      bull.jobs().every(({ state }) => state === 'completed' || state === 'failed')
    );
  }

  function calmDown(): void {
    tell(() => 'calm');
    isCalm = true;
    unauthorizedUntil = 0;
    downUntil = 0;
    for (const worker of workers) if (worker.state !== 'up') wake(worker);
    for (const worker of workers) worker.skewMs = 0;
  }

  async function comeToRest(): Promise<void> {
    const lastStep = steps + MAX_CALM_STEPS;
    const lastMs = now + MAX_CALM_MS;
    while (!isQuiet()) {
      if (steps >= lastStep || now > lastMs) {
        throw new Violation(`no rest after ${MAX_CALM_STEPS} steps, or ${MAX_CALM_MS / 60_000} minutes, without a fault: ${unfinished()}`);
      }
      await step(0);
      await startWhatFollows();
    }
  }

  /** A person looks at a stuck saga, removes what is in its way, and resumes it. */
  async function release(saga: Saga): Promise<void> {
    const own = [...cloud.droplets.values()].filter(({ owner }) => owner === saga.id);
    const wasRefused = own.some(({ isProtected }) => isProtected) || cloud.refusalsOf(saga.id) >= policy.compensationAttempts / 2;
    if (!wasRefused) throw new Violation(`${saga.id} is stuck, though its droplet's deletion was never refused: ${saga.error?.message}`);
    for (const droplet of own) droplet.isProtected = false;
    await steer('retry', saga.id, () => retrySaga(db.store, saga.id, 'somebody'));
  }

  function unfinished(): string {
    const sagas = db.all().filter(({ status }) => !isAtRest(status));
    return sagas.map((saga) => `${saga.id} is ${saga.status} at revision ${saga.revision}`).join('; ') || 'all sagas are at rest';
  }

  return { play, wallClockMs };
}

function errorOf({ kind, name }: Operation, way: Way): Error {
  const message = `${name.trim()}: ${way}`;
  if (kind === 'sql') return Object.assign(new Error(message), { code: 'CONNECTION_CLOSED' });
  if (kind === 'queue') return new Error(message);
  const method = name.startsWith('POST') ? 'POST' : name.startsWith('DELETE') ? 'DELETE' : 'GET';
  if (way === 'throttled') return failure(method, 'throttled', { status: 429, message, retryAfterMs: 3_000 });
  if (way === 'unauthorized') return failure(method, 'unauthorized', { status: 401, message });
  if (way === 'rejected') return failure(method, 'rejected', { status: 422, message });
  if (way === 'not done') return failure(method, 'later', { status: null, message });
  return failure(method, method === 'POST' ? 'ambiguous' : 'later', { status: 503, message });
}

function brief(value: unknown): string {
  if (value instanceof Error) return String(value);
  if (Array.isArray(value)) return `[${value.map(brief).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  if ('droplet' in value) return brief(value.droplet);
  if ('tags' in value && 'id' in value && 'status' in value) return `droplet ${String(value.id)} ${String(value.status)} [${String(value.tags)}]`;
  return Object.keys(value).length > 3 ? 'found' : JSON.stringify(value);
}
