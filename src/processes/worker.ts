// Wires a worker process: Postgres, the queues, the engine with an app's sagas, and the reconciler. It does not depend on
// droplets; an app's `deps` add what droplets need (see `WorkerExtension`).
import { hostname } from 'node:os';
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import { requireNeeds } from '../platform/config.ts';
import { ConfigError } from '../platform/config-error.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase, withoutIo } from '../platform/db.ts';
import { CLOSING_MS, endsWithin, unlessAborted } from '../platform/deadline.ts';
import { requireMigrated } from './due-migrations.ts';
import { checkEnvironment, ownerOf } from './environment.ts';
import { loadDefaultApp } from './default-app.ts';
import { showSignOfLife } from '../fleet/sign-of-life.ts';
import type { Io } from '../platform/io.ts';
import { directIo } from '../platform/io.ts';
import { listenForSagas } from './listen.ts';
import type { Log } from '../platform/log.ts';
import { checkPooler } from './pooler.ts';
import { closeWorkers } from '../queues/close-workers.ts';
import { QueueStoreError, openQueueConnection, placeOf, queueStoreOf } from '../queues/connection.ts';
import { startIntakeWorker } from '../queues/intake.ts';
import { openPeriodicQueue, startPeriodicWorker } from '../queues/periodic-queue.ts';
import { queueNames } from '../queues/jobs.ts';
import { keepClaim } from '../queues/keep-claim.ts';
import { hastenMisdated } from '../queues/misdated.ts';
import { removeUnreadableJobs, tellUnreadable } from '../queues/remove-unreadable.ts';
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
import { sagaOutcomes, undeliveredOutcomes } from '../saga/saga-outcomes.ts';
import type { SagaEnd } from '../saga/store.ts';
import { createSagaStore } from '../saga/store.ts';
import type { StartRequest } from '../saga/start.ts';
import type { Claim } from '../saga/step.ts';
import { createWakeup } from '../saga/wakeup.ts';
import type { ReadWritten } from '../saga/written-definitions.ts';
import { createWrittenDefinitions, mayBeForOthers, withWrittenSecrets } from '../saga/written-definitions.ts';
import { startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { rememberRunningSteps } from './running-steps.ts';
import { packageVersion } from '../platform/package-version.ts';
import { requireOwnSecrets } from '../platform/published-secrets.ts';
import { annotate, tracedIo } from '../platform/tracing.ts';
import { createDepsCloser, openDeps, runnerPartsOf } from './worker-deps.ts';
import { openOutcomes } from './worker-outcomes.ts';
import { createSagaEndMetrics } from './saga-end-metrics.ts';
import { createWorkerMetrics } from './worker-metrics.ts';


// Queues to LISTEN for, and two connections to ask on; deliveries of outcomes have a queue more.
const SMALLEST_QUEUE_POOL = 6;

// Three checks in a row must take longer than a live worker may block on its store.
const MIN_LOOK_MS = 5_000;

// With less, nearly every step that runs is left to another worker.
const LEAST_STEPS_MS = 500;

export type RunningWorker = Readonly<{
  /** The writer's name in this worker's events. */
  name: string;
  /** Its metrics in Prometheus's text format. */
  metrics(): Promise<string>;
  /** Stops taking jobs, gives running ones time to finish, and closes everything: all within `WORKER_SHUTDOWN_MS`. */
  close(): Promise<void>;
  /**
   * Resolves with a reason if the worker cannot continue: it no longer takes jobs although its store answers, another
   * database claimed its queues, or its token belongs to another account than the droplets on record. Otherwise never resolves. Only a new process helps.
   */
  cannotGoOn: Promise<string>;
}>;

/**
 * Starts a worker in this process.
 *
 * @param given the app, with its sagas and the dependencies of their steps; the droplet sagas by default
 * @param signal cancels the start, with its reason; after the start, use {@link RunningWorker.close}
 * @throws {ConfigError} if the database or a variable that the app's steps need is missing, a store is unusable in its
 *   current configuration, or a secret is published
 * @throws {EnvironmentMismatchError} if the database belongs to another environment, or the token to another account
 * @throws {NotMigratedError} if migrations are due
 * @throws {QueueStoreError} if the queue store is unreachable or may evict jobs
 * @throws what the app's `deps` throws
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
  requireOwnSecrets(config);
  const databaseUrl = config.databaseUrl ?? '';
  const queueStore = queueStoreOf(config);
  const smallestPool = SMALLEST_QUEUE_POOL + (config.outcomes.webhook === null ? 0 : 1);
  if (queueStore.kind === 'postgres' && config.databasePoolMax < smallestPool) {
    throw new ConfigError(`DATABASE_POOL_MAX: expected at least ${smallestPool} for a worker with queues in Postgres: it listens on a connection for each of its queues; found ${config.databasePoolMax}`);
  }
  const stepsMs = Math.max(1, config.worker.shutdownMs - CLOSING_MS);
  if (stepsMs < LEAST_STEPS_MS) log.warn({ stepsMs }, `WORKER_SHUTDOWN_MS: ${config.worker.shutdownMs} includes ${CLOSING_MS} ms to close connections, so that running steps get ${stepsMs} ms; set ${CLOSING_MS + LEAST_STEPS_MS} or more`);
  const io = tracedIo(untracedIo);
  const name = `${hostname()}:${process.pid}`;
  const db = openDatabase(databaseUrl, { io, max: Math.min(config.databasePoolMax, config.worker.concurrency + 4), applicationName: 'arcadia-worker' });
  const connection = openQueueConnection(queueStore, log, { apart: config.outcomes.webhook === null ? null : queueNames.outcomes });
  const onUnreadable = tellUnreadable({ db, actor: name, log });
  const queues = openStepQueues(connection, io, { labelsOf: labelsOf(catalog), onUnreadable });
  const closer = createDepsCloser(log);
  let clock: ClockWatch | undefined;
  const open = async () => {
    await checkPooler(db, databaseUrl, log);
    await checkSession(db, databaseUrl, log);
    const environment = await checkEnvironment(db, config.environment);
    await requireMigrated(db);
    clock = await keepDatabaseTime({ db, everyMs: config.reconcileIntervalMs, log });
    const owner = ownerOf(environment);
    await connection.check(owner);
    const opened = await openDeps(app, { host: { name, config, db, io, runScript: connection.runScript, wake: queues.wake, enqueueFirst: queues.follow }, closer, log });
    for (const { check } of opened.extensions) await check();
    return { ...opened, owner };
  };
  // A failed start leaves nothing open.
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
  const { deps, extensions, owner } = opened;
  const reconcileGraceMs = config.reconcileIntervalMs;
  const metrics = createWorkerMetrics(connection.loops);
  const ends = createSagaEndMetrics(catalog);
  const workerSettings = { ...config.worker, name };
  const sources = [sagaOutcomes(catalog), ...extensions.flatMap((extension) => extension.outcomes ?? [])];
  const outcomes = openOutcomes({ config: config.outcomes, db, connection, settings: workerSettings, sources, io, log });
  const onEnd = (end: SagaEnd): void => {
    ends.onEnd(end);
    outcomes.wake();
  };
  const store = createSagaStore(db, { worker: name, reconcileGraceMs, startsAt: stepsToStartAt(catalog), onEnd });
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
  const readWritten = createWrittenDefinitions(db);
  const stopping = new AbortController();
  const runs = rememberRunningSteps();
  const periodic = extensions.map(({ periodic: work }) => ({ work, queue: openPeriodicQueue(connection, work, io) }));
  const workers = [
    ...outcomes.workers,
    ...startStepWorkers(connection, { settings: workerSettings, queues, labelsOf: labelsOf(catalog), run: (claim) => runs.during({ sagaId: claim.sagaId, step: claim.step ?? 'not known' }, () => runJob(claim, runner)), onTaken: metrics.onTaken, io, log }),
    startIntakeWorker(connection, {
      settings: workerSettings,
      start: async (request: StartRequest) => startAndEnqueue(request, { catalog: await catalogWithSecrets(catalog, request.name, readWritten), db, queues, keyRing, reconcileGraceMs, deployment: { publicUrl: config.publicUrl, longestLeaseS: config.lease.maxS }, log }),
      exists: async (sagaId) => (await store.load(sagaId)) !== null,
      isForOthers: async (name, how) => {
        const own = Object.hasOwn(catalog, name) ? catalog[name] : undefined;
        if (!mayBeForOthers(own, await readWritten(name, how))) return null;
        return own === undefined ? 'unknown' : 'differs';
      },
      io,
      log,
    }),
    ...periodic.map(({ work, queue }) =>
      startPeriodicWorker(connection, work.queue, { settings: workerSettings, run: () => work.run({ isPaused: queue.isPaused, signal: stopping.signal }), log }),
    ),
  ];
  try {
    // A ready worker takes jobs and has to be closed in order.
    await unlessAborted(signal, Promise.all(workers.map((worker) => worker.waitUntilReady())), CLOSING_MS);
  } catch (error) {
    await giveUp([...workers.map((worker) => worker.close(true)), ...periodic.map(({ queue }) => queue.close()), outcomes.close()]);
    throw new QueueStoreError(`the workers cannot start: ${error instanceof Error ? error.message : String(error)}`);
  }
  const watching = watchJobLoops(connection, { everyMs: Math.max(MIN_LOOK_MS, config.worker.lockMs / 2), signal: stopping.signal });
  const claiming = keepClaim(connection, owner, { everyMs: config.reconcileIntervalMs, signal: stopping.signal, log });
  const extending = extensions.flatMap(({ run }) => run(stopping.signal));
  const cannotGoOn = Promise.race([watching, claiming, ...extending].map(async (reason) => (await reason) ?? new Promise<never>(() => {})));
  const wakeup = createWakeup();
  const jobsAtHand = () => connection.loops().reduce((sum, { running }) => sum + running, 0);
  const throttledForMs = () => Math.max(0, ...extensions.map((extension) => extension.throttledForMs()));
  const identity = { name, host: hostname(), pid: process.pid, version: packageVersion(), nodeVersion: process.versions.node, concurrency: config.worker.concurrency, scope: extensions[0]?.scope ?? null, steps: [...new Set(Object.values(catalog).flatMap(({ steps }) => steps.map((step) => step.name)))], sagas: Object.keys(catalog), queuePlace: placeOf(queueStore) };
  let reconcilerFailingSince: number | null = null;
  const loops = [
    watching,
    claiming,
    ...extending,
    ...outcomes.run(stopping.signal),
    ...periodic.map(({ work, queue }) => work.schedule({ ensure: queue.ensure, signal: stopping.signal })),
    runReconciler({ store, ensure: queues.ensure, intervalMs: config.reconcileIntervalMs, wakeup, signal: stopping.signal, log, onPass: (pass) => {
      metrics.onPass(pass);
      reconcilerFailingSince = pass === null ? (reconcilerFailingSince ?? performance.now()) : null;
    } }),
    runRetention({ db, expiries: expiriesOf(config, db, Object.keys(catalog), extensions), signal: stopping.signal, log }),
    showSignOfLife(identity, { db: withoutIo(db), state: () => ({ jobs: jobsAtHand(), throttledForMs: throttledForMs(), reconcilerFailingForMs: reconcilerFailingSince === null ? null : performance.now() - reconcilerFailingSince, provider: extensions[0]?.provider?.() ?? { failingForMs: null, answeredMsAgo: null }, longRuns: runs.longRuns() }), signal: stopping.signal, log }),
    removeUnreadableJobs(connection, workers, { onUnreadable, signal: stopping.signal, log }),
    hastenMisdated(connection.queue(queueNames.intake), { everyMs: config.reconcileIntervalMs, signal: stopping.signal, log }),
    listenForSagas(databaseUrl, { onSaga: wakeup.wake, signal: stopping.signal, log }),
  ];

  return {
    name,
    metrics: async () => (await Promise.all([metrics.expose(), ends.expose(), outcomes.metrics(), ...extensions.map((extension) => extension.metrics())])).join('\n'),
    cannotGoOn,
    close: async () => {
      stopping.abort();
      await closeWorkers(workers, stepsMs, log);
      // A pending reply from Postgres or Redis is not worth a late exit.
      const closing = Promise.all(loops)
        .then(() => Promise.all([closer.close(), queues.close(), outcomes.close(), ...periodic.map(({ queue }) => queue.close())]))
        .then(() => Promise.allSettled([connection.close(), db.close()]));
      await endsWithin(CLOSING_MS, closing);
      clock?.close();
    },
  };
}

/** The catalog, with the secrets that the written definition of a saga names besides its own. */
async function catalogWithSecrets(catalog: App['catalog'], name: string, readWritten: ReadWritten): Promise<App['catalog']> {
  const own = Object.hasOwn(catalog, name) ? catalog[name] : undefined;
  if (own === undefined) return catalog;
  const known = withWrittenSecrets(own, await readWritten(name));
  return known === own ? catalog : { ...catalog, [name]: known };
}

function expiriesOf({ sagaRetentionDays, auditRetentionDays }: Config, db: Database, names: readonly string[], extensions: readonly WorkerExtension[]) {
  const families = extensions.map(({ retention }) => retention);
  return [sagaExpiry(db, sagaRetentionDays, isNeededBy([...families, { isNeeded: undeliveredOutcomes(sagaRetentionDays) }]), names), auditExpiry(db, auditRetentionDays), ...families.flatMap(({ expiries }) => expiries)];
}

/** Adds the saga to the job's span, and marks the span if the step failed. */
function annotateRun({ sagaId, saga, step, direction, attempt, labels, result }: StepReport): void {
  const failed = result === 'retried' || result === 'failed' || result === 'stuck' || result === 'undecided';
  annotate(
    () => ({
      ...attributesOf(labels),
      'arcadia.saga.id': sagaId,
      'arcadia.saga.name': saga,
      'arcadia.step.name': step,
      'arcadia.step.direction': direction,
      'arcadia.step.attempt': attempt,
      'arcadia.step.result': result,
    }),
    failed ? result : null,
  );
}
