// A worker process, wired: Postgres, the queues, DigitalOcean, the engine, the reconciler.
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { z } from 'zod';
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase } from '../platform/db.ts';
import { endsWithin, unlessAborted, withDeadline } from '../platform/deadline.ts';
import type { BudgetLeft } from '../do/budget.ts';
import { budgetId, createRequestBudget } from '../do/budget.ts';
import { createPostgresBudgetStore } from '../do/budget-postgres.ts';
import { createRedisBudgetStore } from '../do/budget-redis.ts';
import { createCircuits, endingOf } from '../do/circuits.ts';
import { createCircuitStore } from '../do/circuit-store.ts';
import { createDigitalOceanClient } from '../do/client.ts';
import { createObservationStore, observationKey } from '../do/observation-store.ts';
import { createPostgresObservations } from '../do/observations-postgres.ts';
import { createRedisObservations } from '../do/observations-redis.ts';
import { createObserver } from '../do/observer.ts';
import { checkAccount, checkEnvironment, ownerOf, watchAccount } from './environment.ts';
import { dropletApp } from '../steps/catalog.ts';
import { showSignOfLife } from '../fleet/sign-of-life.ts';
import { watchThrottle } from '../do/throttle.ts';
import { hasResource, resourceExpiry } from '../inventory/expire.ts';
import { createInventory } from '../inventory/resources.ts';
import type { Io } from '../platform/io.ts';
import { directIo } from '../platform/io.ts';
import { listenForSagas } from './listen.ts';
import type { Log } from '../platform/log.ts';
import { checkPooler } from './pooler.ts';
import { closeWorkers } from '../queues/close-workers.ts';
import type { QueueConnection } from '../queues/connection.ts';
import { QueueStoreError, openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import { startIntakeWorker } from '../queues/intake.ts';
import { openInventoryQueue, startInventoryWorker } from '../queues/inventory-queue.ts';
import { queueNames } from '../queues/jobs.ts';
import { hastenMisdated } from '../queues/misdated.ts';
import { watchForStandstill } from '../queues/standstill.ts';
import { openStepQueues } from '../queues/step-queues.ts';
import { startStepWorkers } from '../queues/step-workers.ts';
import type { App } from '../saga/app.ts';
import { stepsToStartAt } from '../saga/definition.ts';
import { attributesOf, labelsOf } from '../saga/labels.ts';
import { auditExpiry, sagaExpiry } from '../saga/expire.ts';
import type { Held } from '../saga/holds.ts';
import { createHolds, holdSaga, watchHolds } from '../saga/holds.ts';
import { openSecret } from '../saga/open-secret.ts';
import { runReconciler } from '../saga/reconciler.ts';
import { runRetention } from '../saga/retention.ts';
import type { StepReport } from '../saga/runner.ts';
import { runJob } from '../saga/runner.ts';
import { claimFragment, createSagaStore } from '../saga/store.ts';
import type { StartRequest } from '../saga/start.ts';
import type { Claim } from '../saga/step.ts';
import { createWakeup } from '../saga/wakeup.ts';
import { startAndEnqueue } from '../queues/start-and-enqueue.ts';
import type { StepDeps } from '../steps/deps.ts';
import { DROPLETS } from '../steps/deps.ts';
import { toStepOutcome } from '../steps/failures.ts';
import { annotate, tracedIo } from '../platform/tracing.ts';
import { createWorkerMetrics } from './worker-metrics.ts';
import { describeSync, scheduleSyncs } from '../inventory/sync/schedule.ts';
import type { SyncDeps } from '../inventory/sync/sync-inventory.ts';
import { syncInventory, syncSettings } from '../inventory/sync/sync-inventory.ts';

// Of WORKER_SHUTDOWN_MS, so much is for closing connections.
const CLOSING_MS = 1_500;

// A deletion that DigitalOcean accepted is not repeated for so many times ADOPTION_GRACE_MS: three minutes by default.
const DELETE_AGAIN_GRACES = 3;

// Four queues to LISTEN for, and two connections to ask on.
const SMALLEST_QUEUE_POOL = 6;
const BACKGROUND_LIMIT_MS = 5_000;

// Of a probe's lease: for what comes before the request.
const PROBE_MARGIN_MS = 5_000;

// Three looks in a row must be longer than a live worker may block on its store.
const MIN_LOOK_MS = 5_000;

export type RunningWorker = Readonly<{
  /** What stands in the events that this worker writes. */
  name: string;
  /** Its metrics, in the text format of Prometheus. */
  metrics(): Promise<string>;
  /** What is left of the fleet's request budget, by this worker's last draw; null: not known. */
  budgetLeft(): BudgetLeft | null;
  /** Stops taking jobs, lets the running ones finish for at most `WORKER_SHUTDOWN_MS`, and closes everything. */
  close(): Promise<void>;
  /**
   * Resolves with the reason when the worker finds that it takes no jobs any more although its store answers, or that its
   * token is of another account than the droplets on record; never otherwise. Only a new process helps then.
   */
  cannotGoOn: Promise<string>;
}>;

/**
 * Starts a worker in this process.
 *
 * @param app the sagas that it runs, and what their steps work with: the droplet sagas, where left out
 * @param signal calls the start off, with its reason; a worker that has started is closed by {@link RunningWorker.close}
 * @throws {ConfigError} when the token or the database is missing, or the stores cannot be used as they are
 * @throws {EnvironmentMismatchError} when the database is not this environment's, or the token another account's
 * @throws {QueueStoreError} when the queue store can't be reached or may evict jobs
 */
export async function startWorker(
  config: Config,
  log: Log,
  untracedIo: Io = directIo,
  app: Pick<App, 'catalog'> & Partial<Pick<App, 'openDeps'>> = dropletApp,
  signal: AbortSignal = new AbortController().signal,
): Promise<RunningWorker> {
  const { catalog } = app;
  const { databaseUrl, keyRing } = config;
  const { token, apiUrl, timeoutMs } = config.digitalOcean;
  if (databaseUrl === null || token === null) throw new ConfigError('a worker needs DATABASE_URL and DIGITALOCEAN_TOKEN');
  const queueStore = queueStoreOf(config);
  if (queueStore.kind === 'postgres' && config.databasePoolMax < SMALLEST_QUEUE_POOL) {
    throw new ConfigError(`DATABASE_POOL_MAX: expected at least ${SMALLEST_QUEUE_POOL} for a worker with queues in Postgres: it listens on a connection for each of its queues; found ${config.databasePoolMax}`);
  }
  const io = tracedIo(untracedIo);
  const name = `${hostname()}:${process.pid}`;
  const db = openDatabase(databaseUrl, { io, max: Math.min(config.databasePoolMax, config.worker.concurrency + 4), applicationName: 'arcadia-worker' });
  const connection = openQueueConnection(queueStore, log);
  const scope = budgetId(token, apiUrl);
  const shared = sharedStores(config, { db, connection }, scope);
  const { requestsPerMinute: perMinute, requestsPerHour: perHour } = config.digitalOcean;
  const throttle = watchThrottle(createRequestBudget({ store: shared.budget, perMinute, perHour, io, log }));
  const { budget } = throttle;
  const metrics = createWorkerMetrics(connection.loops, () => budget.left());
  const slackMs = config.reconcileIntervalMs;
  const quietDb = withoutIo(db);
  const holdsWakeup = createWakeup();
  const circuitStore = createCircuitStore(quietDb, scope, config.digitalOcean.probes);
  // From the lease on, the create is announced, and may take as long as a request may.
  const circuits = createCircuits({ store: circuitStore, leaseMs: 2 * timeoutMs + PROBE_MARGIN_MS, holdMs: config.digitalOcean.probes.maxMs, log, onChanged: holdsWakeup.wake });
  const holds = createHolds(quietDb, { scope, slackMs });
  const digitalOcean = createDigitalOceanClient({
    apiUrl,
    token,
    timeoutMs,
    io,
    budget,
    circuits,
    onAnswer: (request) => {
      metrics.onRequest(request);
      if (request.status !== null) annotate({ 'http.response.status_code': request.status });
    },
  });
  const account = { db, digitalOcean, log };
  let clock: ClockWatch | undefined;
  const check = async (): Promise<boolean> => {
    await checkPooler(db, databaseUrl, log);
    await checkSession(db, databaseUrl, log);
    const environment = await checkEnvironment(db, config.environment);
    clock = await keepDatabaseTime({ db, everyMs: config.reconcileIntervalMs, log });
    await connection.check(ownerOf(environment));
    // The first one does not wait for its turn.
    return checkAccount({ ...account, digitalOcean: digitalOcean.at('now') });
  };
  // A start that failed leaves nothing open.
  const giveUp = async (closing: readonly Promise<void>[] = []): Promise<void> => {
    clock?.close();
    await endsWithin(CLOSING_MS, Promise.allSettled([db.close(), connection.close(), ...closing]));
  };
  let isAccountSettled: boolean;
  try {
    isAccountSettled = await unlessAborted(signal, check());
  } catch (error) {
    await giveUp();
    throw error;
  }

  const queues = openStepQueues(connection, io, { labelsOf: labelsOf(catalog) });
  const droplets = createObserver({
    client: digitalOcean,
    store: createObservationStore(shared.observations, { io, log, key: observationKey(token) }),
    intervalMs: config.wait.pollIntervalMs,
    leaseMs: timeoutMs,
  });
  const settings = {
    pollIntervalMs: config.wait.pollIntervalMs,
    maxPolls: config.wait.maxPolls,
    adoptionGraceMs: config.adoptionGraceMs,
    maxCreates: config.retry.stepAttempts,
    deleteAgainAfterMs: DELETE_AGAIN_GRACES * config.adoptionGraceMs,
    maxDeletes: config.retry.compensationAttempts,
  };
  const store = createSagaStore(db, { worker: name, slackMs, startsAt: stepsToStartAt(catalog) });
  const inventory = createInventory(db, claimFragment);
  const droplet: StepDeps = { inventory, digitalOcean, droplets, settings };
  let deps: object;
  try {
    deps = await unlessAborted(signal, (app.openDeps ?? dropletApp.openDeps)({ log, provided: new Map([[DROPLETS, droplet]]) }));
  } catch (error) {
    await giveUp();
    throw error;
  }
  const runner = {
    store,
    catalog,
    // The app has typed it for its own steps.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    deps: deps as never,
    policy: config.retry,
    keyRing,
    openSecret: (claim: Claim, field: string) => openSecret(db, keyRing, claim, field),
    toOutcome: toStepOutcome,
    // The request that follows must be over before the lock is.
    claimMs: Math.max(1, (config.worker.lockMs - timeoutMs) / 2),
    log,
    hold: (held: Held) => holdSaga(held, { holds, refresh: circuits.refresh, log }),
    onRun: (report: StepReport) => {
      metrics.onRun(report);
      annotateRun(report);
    },
  };
  const workerSettings = { ...config.worker, name };
  const stopping = new AbortController();
  const inventoryQueue = openInventoryQueue(connection, io);
  const syncDeps: SyncDeps = { db, digitalOcean: digitalOcean.at('sync'), worker: name, settings: syncSettings(config), isPaused: inventoryQueue.isPaused, signal: stopping.signal, log };
  const due = { intervalMs: config.inventorySyncIntervalMs, requestedBy: null };
  const workers = [
    ...startStepWorkers(connection, { settings: workerSettings, queues, labelsOf: labelsOf(catalog), run: (claim) => runJob(claim, runner), onTaken: metrics.onTaken, io, log }),
    startIntakeWorker(connection, {
      settings: workerSettings,
      start: (request: StartRequest) => startAndEnqueue(request, { catalog, db, queues, keyRing, slackMs, log }),
      io,
      log,
    }),
    startInventoryWorker(connection, { settings: workerSettings, run: async () => describeSync(await syncInventory(syncDeps, due)), log }),
  ];
  try {
    // One that is ready takes jobs, and has to be closed in order.
    await unlessAborted(signal, Promise.all(workers.map((worker) => worker.waitUntilReady())), CLOSING_MS);
  } catch (error) {
    await giveUp(workers.map((worker) => worker.close(true)));
    throw new QueueStoreError(`the workers cannot start: ${error instanceof Error ? error.message : String(error)}`);
  }
  const watching = watchForStandstill(connection, { everyMs: Math.max(MIN_LOOK_MS, config.worker.lockMs / 2), signal: stopping.signal });
  const watchingAccount = isAccountSettled ? Promise.resolve(null) : watchAccount({ ...account, everyMs: config.reconcileIntervalMs, signal: stopping.signal });
  const cannotGoOn = Promise.race([watching, watchingAccount].map(async (reason) => (await reason) ?? new Promise<never>(() => {})));
  const wakeup = createWakeup();
  const reconciling = runReconciler({ store, ensure: queues.ensure, intervalMs: config.reconcileIntervalMs, wakeup, signal: stopping.signal, log, onPass: metrics.onPass });
  const scheduling = scheduleSyncs({ db, intervalMs: due.intervalMs, ensure: inventoryQueue.ensure, signal: stopping.signal, log });
  const retaining = runRetention({ db, expiries: expiriesOf(config, db), signal: stopping.signal, log });
  // A person who starts workers may have put things right: they ask at once.
  await circuitStore.hurry().catch(() => undefined);
  const holding = watchHolds({
    holds,
    circuits: { ...circuits, probe: () => circuits.probeToken(() => endingOf(() => digitalOcean.at('now').getAccount())), prune: circuitStore.prune },
    wake: queues.wake,
    wakeup: holdsWakeup,
    signal: stopping.signal,
    log,
  });
  const identity = { name, host: hostname(), pid: process.pid, version: await readVersion(), nodeVersion: process.versions.node, concurrency: config.worker.concurrency, scope };
  const jobsAtHand = () => connection.loops().reduce((sum, { running }) => sum + running, 0);
  const living = showSignOfLife(identity, { db: quietDb, state: () => ({ jobs: jobsAtHand(), throttledForMs: throttle.throttledForMs() }), signal: stopping.signal, log });
  const hastening = hastenMisdated(connection.queue(queueNames.intake), { everyMs: config.reconcileIntervalMs, signal: stopping.signal, log });
  const listening = listenForSagas(databaseUrl, { onSaga: wakeup.wake, signal: stopping.signal, log });

  return {
    name,
    metrics: metrics.expose,
    cannotGoOn,
    budgetLeft: () => budget.left(),
    close: async () => {
      stopping.abort();
      await closeWorkers(workers, Math.max(1, config.worker.shutdownMs - CLOSING_MS), log);
      // Whatever still waits for an answer of Postgres or Redis by then is not worth a late exit.
      const closing = Promise.all([reconciling, retaining, watching, watchingAccount, listening, hastening, scheduling, holding, living]).then(() => Promise.all([queues.close(), inventoryQueue.close()])).then(() => Promise.allSettled([connection.close(), db.close()]));
      await endsWithin(CLOSING_MS, closing);
      clock?.close();
    },
  };
}

/** A saga whose droplet lives, or did until lately, is kept: so its droplet stays ours, its first 8 characters taken, and its key used. */
function expiriesOf({ sagaRetentionDays, auditRetentionDays }: Config, db: Database) {
  return [sagaExpiry(db, sagaRetentionDays, hasResource(sagaRetentionDays)), auditExpiry(db, auditRetentionDays), resourceExpiry(db, sagaRetentionDays)];
}

/** The span of a job tells of its saga, and is marked where the step failed. */
function annotateRun({ sagaId, saga, step, direction, attempt, labels, result }: StepReport): void {
  const failed = result === 'retried' || result === 'failed' || result === 'stuck' || result === 'undecided';
  annotate(
    {
      ...attributesOf(labels),
      'arcadia.saga.id': sagaId,
      'arcadia.saga.name': saga,
      'arcadia.step.name': step,
      'arcadia.step.direction': direction,
      'arcadia.step.attempt': attempt,
      'arcadia.step.result': result,
    },
    failed ? result : null,
  );
}

/** The version of this package. */
async function readVersion(): Promise<string> {
  const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version;
}

/** Statements of the background, which belong to no job: past the I/O seam, with a time limit of their own. */
function withoutIo(db: Database): Pick<Database, 'run'> {
  return {
    run: (name, statement) => withDeadline(BACKGROUND_LIMIT_MS, Promise.resolve(statement(db.sql)), () => new Error(`${name}: no answer within ${BACKGROUND_LIMIT_MS} ms`)),
  };
}

/** What the workers of a fleet share of DigitalOcean: in Redis, or in Postgres where there is none. */
export function sharedStores(config: Config, { db, connection }: { db: Database; connection: QueueConnection }, id: string) {
  const { runScript } = connection;
  if (runScript === null) return { budget: createPostgresBudgetStore(db, id), observations: createPostgresObservations(db, id) };
  const { queuePrefix } = config;
  return { budget: createRedisBudgetStore(runScript, queuePrefix, id), observations: createRedisObservations(runScript, queuePrefix, id) };
}
