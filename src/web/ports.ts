// What the web asks of the rest: reads and writes, bound to the database and the queues. Pages and routes take them as an
// argument; they know neither SQL nor a queue's store.
import { hostname } from 'node:os';
import type { Plans } from '../droplets/plans/open-plans.ts';
import type { InventoryViews } from '../inventory/views.ts';
import { readFleetFacts } from '../fleet/facts.ts';
import { readRetention } from '../saga/retention.ts';
import type { Span } from '../saga/history.ts';
import { readHistory } from '../saga/history.ts';
import { listSubscriptions, resumeSubscription } from '../outcomes/subscriptions.ts';
import type { Database } from '../platform/db.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import type { QueueConnection } from '../queues/connection.ts';
import type { QueueDashboard } from '../queues/dashboard.ts';
import { jobIdOf, queueNameOf, queueNames } from '../queues/jobs.ts';
import { enqueueOrLeave, startAndEnqueue } from '../queues/start-and-enqueue.ts';
import type { StepQueues } from '../queues/step-queues.ts';
import type { App } from '../saga/app.ts';
import { listAudit, listAuditActions, listAuditOf, recordAudit, searchAudit } from '../saga/audit.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { cancelSaga, retrySaga } from '../saga/cancel-and-retry.ts';
import { findHolds } from '../saga/holds.ts';
import { listFailureCauses, readLastEvents, readOverview } from '../saga/overview.ts';
import type { Deployment } from '../saga/definition.ts';
import type { Direction, Saga } from '../saga/saga.ts';
import { nextJobOf } from '../saga/saga.ts';
import { sagaOutcomes } from '../saga/saga-outcomes.ts';
import type { SagaFilter } from '../saga/filter.ts';
import type { SagaOrder } from '../saga/order.ts';
import type { RerunRequest, RerunResult } from '../saga/rerun.ts';
import { rerunSaga } from '../saga/rerun.ts';
import { countSagas, cursorAfter, searchSagas } from '../saga/search.ts';
import type { StartRequest } from '../saga/start.ts';
import { countByStatus, readBacklog, readStepStats } from '../saga/stats.ts';
import type { SagaEnd } from '../saga/store.ts';
import { listEvents, readProgress } from '../saga/events.ts';
import { createSagaStore, loadSaga } from '../saga/store.ts';
import { subjectFieldsOf } from '../saga/subject.ts';
import { milestonesOf, surfaceOf } from '../saga/words.ts';

// How long the reconciler leaves the enqueueing of a new saga to this process.
const ENQUEUE_GRACE_MS = 5_000;

/** What the ports are bound to. */
export type PortsOf = Readonly<{
  catalog: App['catalog'];
  /** Null where the app has no inventory. */
  inventory: InventoryViews | null;
  /** Null where the app provisions no droplets. */
  plans: Plans | null;
  db: Database;
  connection: Pick<QueueConnection, 'requireWrites' | 'memory'>;
  queues: StepQueues;
  dashboard: QueueDashboard;
  keyRing: KeyRing;
  /** What is known of the deployment: see `startSaga`. */
  deployment: Deployment;
  /** Told of each saga that this process brings to an end. */
  onEnd: (end: SagaEnd) => void;
  /** What this process counts outside of the web: the ends of sagas, or all that a worker in the same process tells. In the text format of Prometheus. */
  ownMetrics: () => Promise<string>;
  /** The grace before the workers' reconciler, in milliseconds: workers, not this process, make the jobs. */
  workerGraceMs: number;
  log: Log;
}>;

export type WebPorts = Readonly<ReturnType<typeof bindPorts>>;
export type SagaPort = WebPorts['sagas'];
export type InventoryPort = NonNullable<WebPorts['inventory']>;
export type PlansPort = NonNullable<WebPorts['plans']>;
export type OutcomesPort = WebPorts['outcomes'];
export type AuditPort = WebPorts['audit'];
export type StatsPort = WebPorts['stats'];
export type QueuesPort = WebPorts['queues'];

/** The queue and the id of a job. */
export type JobPlace = Readonly<{ queue: string; id: string }>;

/** Binds the ports. The functions throw what those throw that they bind. */
export function bindPorts({ catalog, inventory, plans, db, connection, queues, dashboard, keyRing, deployment, onEnd, ownMetrics, workerGraceMs, log }: PortsOf) {
  const store = createSagaStore(db, { worker: `web:${hostname()}:${process.pid}`, reconcileGraceMs: ENQUEUE_GRACE_MS, onEnd });
  const enqueueNext = async <Answer extends ActionResult>(answered: Answer): Promise<Answer> => {
    if (answered.kind === 'accepted' && answered.next !== null) await enqueueOrLeave(answered.next, queues, log);
    return answered;
  };
  const subjectFields = subjectFieldsOf(catalog);
  const milestones = milestonesOf(catalog);
  const sources = [sagaOutcomes(catalog), ...(inventory?.outcomes ?? [])];
  /** A saga that waits for the report goes on at once; where its job cannot be reached, with its next check. */
  const wakingReport = (take: InventoryViews['inventory']['report']): typeof take => async (...report) => {
    const result = await take(...report);
    const job = result.kind === 'accepted' ? nextJobOf(result.saga) : null;
    if (job !== null) await queues.wake(job).catch((error: unknown) => log.warn({ sagaId: job.sagaId, err: error }, 'could not wake the saga: it goes on with its next check'));
    return result;
  };
  /** Gives a function its first argument: the database. */
  const bound =
    <Args extends unknown[], Answer>(ask: (db: Database, ...args: Args) => Answer) =>
    (...args: Args): Answer =>
      ask(db, ...args);
  return {
    sagas: {
      /** The sagas that can be started, with the schemas of their inputs. */
      definitions: catalog,
      /** What the pages say of them. */
      surface: surfaceOf(catalog),
      start: (request: StartRequest) => startAndEnqueue(request, { catalog, db, queues, keyRing, reconcileGraceMs: ENQUEUE_GRACE_MS, deployment, log }),
      get: async (sagaId: string) => (await loadSaga(db, sagaId))?.saga ?? null,
      load: (sagaId: string) => loadSaga(db, sagaId, workerGraceMs),
      events: bound(listEvents),
      progress: bound(readProgress),
      search: (filter: SagaFilter, page: Parameters<typeof searchSagas>[2]) => searchSagas(db, { ...filter, subjectFields }, page),
      cursorAfter: (sagaId: string, by: SagaOrder['by']) => cursorAfter(db, sagaId, by, subjectFields),
      count: (filter: SagaFilter) => countSagas(db, { ...filter, subjectFields }),
      failureCauses: (filter: SagaFilter, limit: number) => listFailureCauses(db, { ...filter, subjectFields }, limit),
      overview: (filter: SagaFilter) => readOverview(db, { ...filter, subjectFields }),
      lastEvents: bound(readLastEvents),
      holds: bound(findHolds),
      cancel: async (sagaId: string, by: string, reason?: string) => enqueueNext(await cancelSaga(store, sagaId, by, reason)),
      rerun: async (request: RerunRequest): Promise<RerunResult> => enqueueNext(await rerunSaga(db, catalog, request, ENQUEUE_GRACE_MS, keyRing, deployment)),
      retry: async (sagaId: string, by: string) => enqueueNext(await retrySaga(store, sagaId, by)),
    },
    resources: inventory?.resources,
    inventory: inventory === null ? undefined : { ...inventory.inventory, report: wakingReport(inventory.inventory.report) },
    plans: plans ?? undefined,
    outcomes: { list: () => listSubscriptions(db, sources), resume: bound(resumeSubscription) },
    audit: { record: bound(recordAudit), list: bound(listAudit), ofSagas: bound(listAuditOf), search: bound(searchAudit), actions: bound(listAuditActions) },
    stats: {
      ping: () => requireWrites(db),
      sagas: bound(countByStatus),
      steps: bound(readStepStats),
      backlog: bound(readBacklog),
      inventory: inventory?.stats,
      fleet: bound(readFleetFacts),
      history: (span: Span) => readHistory(db, span, milestones),
      retention: bound(readRetention),
    },
    queues: {
      ...dashboard,
      /** Name of the queue that takes requests for sagas. */
      intake: queueNames.intake,
      /** Resolves when the queue store answers and takes writes. */
      ping: () => connection.requireWrites(),
      /** Whether the queue store has room for jobs, and keeps them. */
      memory: () => connection.memory(),
      /** Where the job stands, or stood, that runs a saga at a revision. */
      place: (job: { sagaId: string; revision: number; direction: Direction }): JobPlace => ({ queue: queueNameOf(job.direction), id: jobIdOf(job) }),
      /** The job of a saga that is not at rest, as its queue has it; null where it has none. */
      peek: async (saga: Saga) => {
        const job = nextJobOf(saga);
        return job === null ? null : queues.inspect(job);
      },
    },
    ownMetrics,
  };
}

/** Resolves when Postgres answers and takes writes. A standby gives no number to a transaction, and says so as it does to a write. */
async function requireWrites(db: Database): Promise<void> {
  const [row] = await db.run('web.ping', (sql) => sql<{ isReadOnly: boolean }[]>`select current_setting('transaction_read_only')::bool as is_read_only, pg_current_xact_id()::text`);
  if (row?.isReadOnly !== false) throw new Error('Postgres takes no writes');
}
