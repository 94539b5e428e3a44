// A web process, wired: Postgres, the queues, and the web application with its ports bound to them.
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError, requireClosedWeb } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase } from '../platform/db.ts';
import { endsWithin, unlessAborted } from '../platform/deadline.ts';
import { loadDefaultApp } from './default-app.ts';
import { checkEnvironment, ownerOf } from './environment.ts';
import { readFleetFacts } from '../fleet/facts.ts';
import { hasInventory, openInventory } from './inventory.ts';
import { directIo } from '../platform/io.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import { checkPooler } from './pooler.ts';
import type { QueueConnection } from '../queues/connection.ts';
import { openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import type { QueueDashboard } from '../queues/dashboard.ts';
import { openQueueDashboard } from '../queues/dashboard.ts';
import type { StepQueues } from '../queues/step-queues.ts';
import { openStepQueues } from '../queues/step-queues.ts';
import { jobIdOf, queueNameOf, queueNames } from '../queues/jobs.ts';
import type { App } from '../saga/app.ts';
import { listAudit, recordAudit } from '../saga/audit.ts';
import { findHeld } from '../saga/holds.ts';
import { labelsOf } from '../saga/labels.ts';
import { readLastEvents, readOverview } from '../saga/overview.ts';
import { nextJobOf } from '../saga/saga.ts';
import { countSagas, searchSagas } from '../saga/search.ts';
import { subjectFieldsOf } from '../saga/subject.ts';
import { countByStatus, readBacklog, readStepStats } from '../saga/stats.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { cancelSaga, retrySaga } from '../saga/cancel-and-retry.ts';
import { createSagaStore, listEvents, loadSaga, readProgress } from '../saga/store.ts';
import { surfaceOf } from '../saga/words.ts';
import { enqueueOrLeave, startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { tracedIo } from '../platform/tracing.ts';
import type { WebPorts } from '../web/ports.ts';
import { buildWeb } from '../web/server.ts';

export type RunningWeb = Readonly<{
  /** Where it listens. */
  url: string;
  /** Takes no more requests, ends the streams, lets the others finish for a few seconds, and closes everything. */
  close(): Promise<void>;
}>;

// How long the reconciler leaves the enqueueing of a new saga to us.
const ENQUEUE_GRACE_MS = 5_000;

const CLOSING_MS = 10_000;
// For connections that were never used.
const GIVING_UP_MS = 1_500;

/**
 * Starts the web in this process.
 *
 * @param options.app the sagas that can be started and are told of: the droplet sagas, where left out
 * @param options.workerMetrics metrics of a worker that runs in this process too, to be told with its own
 * @param options.signal calls the start off, with its reason
 * @throws {ConfigError} when the database is missing, or when others could reach it without credentials
 * @throws {EnvironmentMismatchError} when the database is not this environment's
 * @throws {QueueStoreError} when the queue store can't be reached or may evict jobs
 * @throws {Error} with code `EADDRINUSE` when the port is taken
 */
export async function startWeb(config: Config, log: Log, options: { app?: Pick<App, 'catalog'>; workerMetrics?: () => Promise<string>; signal?: AbortSignal } = {}): Promise<RunningWeb> {
  const { workerMetrics, signal = new AbortController().signal } = options;
  const app = options.app ?? (await loadDefaultApp());
  const { databaseUrl } = config;
  for (const name of config.web.impliedDestroy) {
    log.warn({ tokenName: name }, 'API_TOKENS: the scope start still implies destroy; the next version drops that. Write start+destroy where the token is to destroy droplets; API_TOKENS_START_MAY_DESTROY=false drops it now');
  }
  if (databaseUrl === null) throw new ConfigError('the web needs DATABASE_URL');
  requireClosedWeb(config.web);
  const db = openDatabase(databaseUrl, { max: Math.min(10, config.databasePoolMax), applicationName: 'arcadia-web', io: tracedIo(directIo) });
  const connection = openQueueConnection(queueStoreOf(config), log);
  const queues = openStepQueues(connection, directIo, { labelsOf: labelsOf(app.catalog) });
  const shownQueues = Object.values(queueNames).filter((name) => name !== queueNames.inventory || hasInventory(app));
  const dashboard = openQueueDashboard(connection, (sagaId, afterSeq) => listEvents(db, sagaId, afterSeq), config.web.basePath, shownQueues);
  let clock: ClockWatch | null = null;
  const closeAll = async (): Promise<void> => {
    clock?.close();
    await Promise.allSettled([queues.close(), dashboard.close()]);
    await Promise.allSettled([connection.close(), db.close()]);
  };
  try {
    const check = async () => {
      await checkPooler(db, databaseUrl, log);
      await checkSession(db, databaseUrl, log);
      const environment = await checkEnvironment(db, config.environment);
      clock = await keepDatabaseTime({ db, everyMs: config.reconcileIntervalMs, log });
      await connection.check(ownerOf(environment));
    };
    await unlessAborted(signal, check());
    const inventory = await openInventory(app, db);
    const ports = bindPorts({ catalog: app.catalog, inventory, db, connection, queues, dashboard, keyRing: config.keyRing, workerMetrics, log, workerSlackMs: config.reconcileIntervalMs });
    const web = await buildWeb(ports, {
      auth: config.web,
      fleet: { reconcileIntervalMs: config.reconcileIntervalMs, inventorySyncIntervalMs: inventory === null ? null : config.inventorySyncIntervalMs },
      basePath: config.web.basePath,
      trustedProxies: config.web.trustedProxies,
      log,
    });
    let url: string;
    try {
      url = await web.listen({ host: config.web.host, port: config.web.port });
    } catch (error) {
      await web.close();
      throw error;
    }
    return {
      url,
      close: async () => {
        const closed = web.close().then(closeAll);
        await Promise.race([closed, delay(CLOSING_MS, undefined, { ref: false })]);
      },
    };
  } catch (error) {
    await endsWithin(GIVING_UP_MS, closeAll());
    throw error;
  }
}

type Bound = Readonly<{ catalog: App['catalog']; inventory: Awaited<ReturnType<typeof openInventory>>; db: Database; connection: Pick<QueueConnection, 'requireWrites'>; queues: StepQueues; dashboard: QueueDashboard; keyRing: KeyRing; workerMetrics: (() => Promise<string>) | undefined; log: Log; workerSlackMs: number }>;

function bindPorts({ catalog, inventory, db, connection, queues, dashboard, keyRing, workerMetrics, log, workerSlackMs }: Bound): WebPorts {
  const store = createSagaStore(db, { worker: `web:${hostname()}:${process.pid}`, reconcileGraceMs: ENQUEUE_GRACE_MS });
  const enqueueNext = async (answered: ActionResult): Promise<ActionResult> => {
    if (answered.kind === 'accepted' && answered.next !== null) await enqueueOrLeave(answered.next, queues, log);
    return answered;
  };
  const subjectFields = subjectFieldsOf(catalog);
  return {
    sagas: {
      definitions: catalog,
      surface: surfaceOf(catalog),
      start: (request) => startAndEnqueue(request, { catalog, db, queues, keyRing, reconcileGraceMs: ENQUEUE_GRACE_MS, log }),
      get: async (sagaId) => (await loadSaga(db, sagaId))?.saga ?? null,
      // Jobs are made by the workers: it is their grace that stands between a job's time and the reconciler's.
      load: (sagaId) => loadSaga(db, sagaId, workerSlackMs),
      events: (sagaId, afterSeq) => listEvents(db, sagaId, afterSeq),
      progress: (wanted) => readProgress(db, wanted),
      search: (filter, page) => searchSagas(db, { ...filter, subjectFields }, page),
      count: (filter) => countSagas(db, { ...filter, subjectFields }),
      overview: (filter) => readOverview(db, { ...filter, subjectFields }),
      lastEvents: (sagaIds) => readLastEvents(db, sagaIds),
      held: (sagaIds) => findHeld(db, sagaIds),
      cancel: async (sagaId, by, reason) => enqueueNext(await cancelSaga(store, sagaId, by, reason)),
      retry: async (sagaId, by) => enqueueNext(await retrySaga(store, sagaId, by)),
    },
    ...(inventory === null ? {} : { resources: inventory.resources, inventory: inventory.inventory }),
    audit: { record: (entry) => recordAudit(db, entry), list: (sagaId) => listAudit(db, sagaId) },
    stats: {
      ping: async () => {
        // A standby gives no number to a transaction, and says so as it does to a write.
        const [row] = await db.run('web.ping', (sql) => sql<{ isReadOnly: boolean }[]>`select current_setting('transaction_read_only')::bool as is_read_only, pg_current_xact_id()::text`);
        if (row?.isReadOnly !== false) throw new Error('Postgres takes no writes');
      },
      sagas: () => countByStatus(db),
      steps: () => readStepStats(db),
      backlog: () => readBacklog(db),
      ...(inventory === null ? {} : { inventory: inventory.stats }),
      fleet: () => readFleetFacts(db),
    },
    queues: {
      ...dashboard,
      intake: queueNames.intake,
      ping: () => connection.requireWrites(),
      place: (job) => ({ queue: queueNameOf(job.direction), id: jobIdOf(job) }),
      peek: async (saga) => {
        const job = nextJobOf(saga);
        return job === null ? null : queues.inspect(job);
      },
    },
    ...(workerMetrics === undefined ? {} : { workerMetrics }),
  };
}
