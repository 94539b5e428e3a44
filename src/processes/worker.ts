// A worker process, wired: Postgres, the queues, the engine with an app's sagas, the reconciler. It knows no droplets: what it
// has to do for them, the `deps` of an app brings (see `WorkerExtension`).
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { z } from 'zod';
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError, requireNeeds } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase, withoutIo } from '../platform/db.ts';
import { endsWithin, unlessAborted } from '../platform/deadline.ts';
import { checkEnvironment, ownerOf } from './environment.ts';
import { loadDefaultApp } from './default-app.ts';
import { showSignOfLife } from '../fleet/sign-of-life.ts';
import type { Io } from '../platform/io.ts';
import { directIo } from '../platform/io.ts';
import { listenForSagas } from './listen.ts';
import type { Log } from '../platform/log.ts';
import { checkPooler } from './pooler.ts';
import { closeWorkers } from '../queues/close-workers.ts';
import { QueueStoreError, openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import { startIntakeWorker } from '../queues/intake.ts';
import { openPeriodicQueue, startPeriodicWorker } from '../queues/periodic-queue.ts';
import { queueNames } from '../queues/jobs.ts';
import { hastenMisdated } from '../queues/misdated.ts';
import { watchJobLoops } from '../queues/watchdog.ts';
import { openStepQueues } from '../queues/step-queues.ts';
import { startStepWorkers } from '../queues/step-workers.ts';
import type { App } from '../saga/app.ts';
import { stepsToStartAt } from '../saga/definition.ts';
import { attributesOf, labelsOf } from '../saga/labels.ts';
import { auditExpiry, isNeededBy, sagaExpiry } from '../saga/expire.ts';
import type { WorkerExtension } from '../saga/extension.ts';
import { needsOf } from '../saga/extension.ts';
import { openSecret } from '../saga/open-secret.ts';
import { runReconciler } from '../saga/reconciler.ts';
import { runRetention } from '../saga/retention.ts';
import type { StepReport } from '../saga/runner.ts';
import { runJob } from '../saga/runner.ts';
import { createSagaStore } from '../saga/store.ts';
import type { StartRequest } from '../saga/start.ts';
import type { Claim } from '../saga/step.ts';
import { createWakeup } from '../saga/wakeup.ts';
import { startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { annotate, tracedIo } from '../platform/tracing.ts';
import { createDepsCloser, openDeps, runnerPartsOf } from './worker-deps.ts';
import { createWorkerMetrics } from './worker-metrics.ts';

// Of WORKER_SHUTDOWN_MS, so much is for closing connections.
const CLOSING_MS = 1_500;

// Queues to LISTEN for, and two connections to ask on.
const SMALLEST_QUEUE_POOL = 6;

// Three looks in a row must be longer than a live worker may block on its store.
const MIN_LOOK_MS = 5_000;

export type RunningWorker = Readonly<{
  /** What stands in the events that this worker writes. */
  name: string;
  /** Its metrics, in the text format of Prometheus. */
  metrics(): Promise<string>;
  /** Stops taking jobs, lets the running ones finish for at most `WORKER_SHUTDOWN_MS`, and closes everything. */
  close(): Promise<void>;
  /**
   * Resolves with the reason when the worker finds that it cannot go on: it takes no jobs any more although its store
   * answers, or its token is of another account than the droplets on record. Never resolves otherwise. Only a new process
   * helps then.
   */
  cannotGoOn: Promise<string>;
}>;

/**
 * Starts a worker in this process.
 *
 * @param given the app, with the sagas that it runs and what their steps work with: the droplet sagas, where left out
 * @param signal calls the start off, with its reason; a worker that has started is closed by {@link RunningWorker.close}
 * @throws {ConfigError} when the database is missing, a variable that the app's steps need, or the stores cannot be used as
 *   they are
 * @throws {EnvironmentMismatchError} when the database is not this environment's, or the token another account's
 * @throws {QueueStoreError} when the queue store can't be reached or may evict jobs
 * @throws what `deps` of the app throws
 */
export async function startWorker(
  config: Config,
  log: Log,
  untracedIo: Io = directIo,
  given?: Pick<App, 'catalog' | 'openDeps'>,
  signal: AbortSignal = new AbortController().signal,
): Promise<RunningWorker> {
  const app = given ?? (await loadDefaultApp());
  const { catalog } = app;
  const { keyRing } = config;
  requireNeeds(config, ['DATABASE_URL', ...needsOf(app)]);
  const databaseUrl = config.databaseUrl ?? '';
  const queueStore = queueStoreOf(config);
  if (queueStore.kind === 'postgres' && config.databasePoolMax < SMALLEST_QUEUE_POOL) {
    throw new ConfigError(`DATABASE_POOL_MAX: expected at least ${SMALLEST_QUEUE_POOL} for a worker with queues in Postgres: it listens on a connection for each of its queues; found ${config.databasePoolMax}`);
  }
  const io = tracedIo(untracedIo);
  const name = `${hostname()}:${process.pid}`;
  const db = openDatabase(databaseUrl, { io, max: Math.min(config.databasePoolMax, config.worker.concurrency + 4), applicationName: 'arcadia-worker' });
  const connection = openQueueConnection(queueStore, log);
  const queues = openStepQueues(connection, io, { labelsOf: labelsOf(catalog) });
  const closer = createDepsCloser(log);
  let clock: ClockWatch | undefined;
  const open = async () => {
    await checkPooler(db, databaseUrl, log);
    await checkSession(db, databaseUrl, log);
    const environment = await checkEnvironment(db, config.environment);
    clock = await keepDatabaseTime({ db, everyMs: config.reconcileIntervalMs, log });
    await connection.check(ownerOf(environment));
    const opened = await openDeps(app, { host: { name, config, db, io, runScript: connection.runScript, wake: queues.wake }, closer, log });
    for (const { check } of opened.extensions) await check();
    return opened;
  };
  // A start that failed leaves nothing open.
  const giveUp = async (closing: readonly Promise<void>[] = []): Promise<void> => {
    clock?.close();
    await endsWithin(CLOSING_MS, Promise.allSettled([closer.close(), queues.close(), ...closing]).then(() => Promise.allSettled([db.close(), connection.close()])));
  };
  let opened: Awaited<ReturnType<typeof open>>;
  try {
    opened = await unlessAborted(signal, open());
  } catch (error) {
    await giveUp();
    throw error;
  }
  const { deps, extensions } = opened;
  const reconcileGraceMs = config.reconcileIntervalMs;
  const metrics = createWorkerMetrics(connection.loops);
  const store = createSagaStore(db, { worker: name, reconcileGraceMs, startsAt: stepsToStartAt(catalog) });
  const runner = {
    ...runnerPartsOf(extensions, config.worker.lockMs),
    store,
    catalog,
    // The app has typed it for its own steps.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    deps: deps as never,
    policy: config.retry,
    keyRing,
    openSecret: (claim: Claim, field: string) => openSecret(db, keyRing, claim, field),
    log,
    onRun: (report: StepReport) => {
      metrics.onRun(report);
      annotateRun(report);
    },
  };
  const workerSettings = { ...config.worker, name };
  const stopping = new AbortController();
  const periodic = extensions.map(({ periodic: work }) => ({ work, queue: openPeriodicQueue(connection, work, io) }));
  const workers = [
    ...startStepWorkers(connection, { settings: workerSettings, queues, labelsOf: labelsOf(catalog), run: (claim) => runJob(claim, runner), onTaken: metrics.onTaken, io, log }),
    startIntakeWorker(connection, {
      settings: workerSettings,
      start: (request: StartRequest) => startAndEnqueue(request, { catalog, db, queues, keyRing, reconcileGraceMs, log }),
      io,
      log,
    }),
    ...periodic.map(({ work, queue }) =>
      startPeriodicWorker(connection, work.queue, { settings: workerSettings, run: () => work.run({ isPaused: queue.isPaused, signal: stopping.signal }), log }),
    ),
  ];
  try {
    // One that is ready takes jobs, and has to be closed in order.
    await unlessAborted(signal, Promise.all(workers.map((worker) => worker.waitUntilReady())), CLOSING_MS);
  } catch (error) {
    await giveUp([...workers.map((worker) => worker.close(true)), ...periodic.map(({ queue }) => queue.close())]);
    throw new QueueStoreError(`the workers cannot start: ${error instanceof Error ? error.message : String(error)}`);
  }
  const watching = watchJobLoops(connection, { everyMs: Math.max(MIN_LOOK_MS, config.worker.lockMs / 2), signal: stopping.signal });
  const extending = extensions.flatMap(({ run }) => run(stopping.signal));
  const cannotGoOn = Promise.race([watching, ...extending].map(async (reason) => (await reason) ?? new Promise<never>(() => {})));
  const wakeup = createWakeup();
  const jobsAtHand = () => connection.loops().reduce((sum, { running }) => sum + running, 0);
  const throttledForMs = () => Math.max(0, ...extensions.map((extension) => extension.throttledForMs()));
  const identity = { name, host: hostname(), pid: process.pid, version: await readVersion(), nodeVersion: process.versions.node, concurrency: config.worker.concurrency, scope: extensions[0]?.scope ?? null };
  const loops = [
    watching,
    ...extending,
    ...periodic.map(({ work, queue }) => work.schedule({ ensure: queue.ensure, signal: stopping.signal })),
    runReconciler({ store, ensure: queues.ensure, intervalMs: config.reconcileIntervalMs, wakeup, signal: stopping.signal, log, onPass: metrics.onPass }),
    runRetention({ db, expiries: expiriesOf(config, db, Object.keys(catalog), extensions), signal: stopping.signal, log }),
    showSignOfLife(identity, { db: withoutIo(db), state: () => ({ jobs: jobsAtHand(), throttledForMs: throttledForMs() }), signal: stopping.signal, log }),
    hastenMisdated(connection.queue(queueNames.intake), { everyMs: config.reconcileIntervalMs, signal: stopping.signal, log }),
    listenForSagas(databaseUrl, { onSaga: wakeup.wake, signal: stopping.signal, log }),
  ];

  return {
    name,
    metrics: async () => (await Promise.all([metrics.expose(), ...extensions.map((extension) => extension.metrics())])).join('\n'),
    cannotGoOn,
    close: async () => {
      stopping.abort();
      await closeWorkers(workers, Math.max(1, config.worker.shutdownMs - CLOSING_MS), log);
      // Whatever still waits for an answer of Postgres or Redis by then is not worth a late exit.
      const closing = Promise.all(loops)
        .then(() => Promise.all([closer.close(), queues.close(), ...periodic.map(({ queue }) => queue.close())]))
        .then(() => Promise.allSettled([connection.close(), db.close()]));
      await endsWithin(CLOSING_MS, closing);
      clock?.close();
    },
  };
}

function expiriesOf({ sagaRetentionDays, auditRetentionDays }: Config, db: Database, names: readonly string[], extensions: readonly WorkerExtension[]) {
  const families = extensions.map(({ retention }) => retention);
  return [sagaExpiry(db, sagaRetentionDays, isNeededBy(families), names), auditExpiry(db, auditRetentionDays), ...families.flatMap(({ expiries }) => expiries)];
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
