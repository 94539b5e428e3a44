// What the web process needs of the rest: it knows no database, no queue and no catalogue, only these functions and what they
// answer. The roof binds them (src/processes/web.ts).
import type { BaseAdapter } from '@bull-board/api/baseAdapter';
import type { z } from 'zod';
import type { Accepted, Drift } from '../inventory/drift-store.ts';
import type { Orphan } from '../inventory/orphans.ts';
import type { InventoryStats } from '../inventory/stats.ts';
import type { ResourceFilter, ResourcePlace, FoundResource } from '../inventory/search.ts';
import type { PostgresFacts } from '../fleet/facts.ts';
import type { JsonObject } from '../platform/json.ts';
import type { QueueHead } from '../queues/dashboard.ts';
import type { InspectedJob } from '../queues/step-queues.ts';
import type { AuditEntry, AuditRow } from '../saga/audit.ts';
import type { ReadProgress } from '../saga/event-feed.ts';
import type { Overview } from '../saga/overview.ts';
import type { Direction, Saga } from '../saga/saga.ts';
import type { SagaFilter, SagaPage } from '../saga/search.ts';
import type { StartRequest, StartedSaga } from '../saga/start.ts';
import type { Backlog, StepStats, countByStatus } from '../saga/stats.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import type { LoadedSaga } from '../saga/loaded.ts';
import type { StoredEvent } from '../saga/store.ts';
import type { Surface } from '../saga/words.ts';

export type WebPorts = Readonly<{
  sagas: SagaPort;
  /** Left out where the app has no inventory; then `inventory` and `stats.inventory` are too. */
  resources?: Readonly<{ search(filter: ResourceFilter, page: { limit: number; after: ResourcePlace | null }): Promise<FoundResource[]> }>;
  inventory?: InventoryPort;
  audit: Readonly<{ record(entry: AuditEntry): Promise<void>; list(sagaId: string): Promise<AuditRow[]> }>;
  stats: StatsPort;
  queues: QueuesPort;
  /** Metrics of a worker in the same process, in the text format of Prometheus. */
  workerMetrics?: () => Promise<string>;
}>;

export type SagaPort = Readonly<{
  /** The sagas that can be started, with the schemas of their inputs. */
  definitions: Readonly<Record<string, Readonly<{ input: z.ZodType<JsonObject>; isDestructive?: boolean }>>>;
  /** What the pages say of them. */
  surface: Surface;
  /** @throws {InvalidRequestError} {IdempotencyConflictError} {IdempotencyKeyTakenError} */
  start(request: StartRequest): Promise<StartedSaga>;
  get(sagaId: string): Promise<Saga | null>;
  /** The saga with the database's clock, and when it acts next as far as the database knows. */
  load(sagaId: string): Promise<LoadedSaga | null>;
  events(sagaId: string, afterSeq?: number): Promise<StoredEvent[]>;
  /** How far many sagas are, by their ids. */
  progress: ReadProgress;
  /** @throws {CursorError} */
  search(filter: SagaFilter, page: { limit: number; cursor?: string | undefined }): Promise<SagaPage>;
  count(filter: SagaFilter): Promise<number>;
  overview(filter: SagaFilter): Promise<Overview>;
  /** What happened last, by the saga's id. */
  lastEvents(sagaIds: readonly string[]): Promise<ReadonlyMap<string, StoredEvent>>;
  /** Which of these wait for something that only a person can put right. */
  held(sagaIds: readonly string[]): Promise<ReadonlySet<string>>;
  cancel(sagaId: string, by: string, reason?: string): Promise<ActionResult>;
  retry(sagaId: string, by: string): Promise<ActionResult>;
}>;

export type InventoryPort = Readonly<{
  drift(how: { withResolved: boolean; limit: number }): Promise<Drift[]>;
  /** @param by who accepts, for the record */
  acceptDrift(id: number, by: string): Promise<Accepted>;
  orphans(limit: number): Promise<Orphan[]>;
}>;

export type StatsPort = Readonly<{
  /** Resolves when Postgres answers and takes writes. */
  ping(): Promise<void>;
  sagas(): ReturnType<typeof countByStatus>;
  steps(): Promise<readonly StepStats[]>;
  backlog(): Promise<Backlog>;
  inventory?(): Promise<InventoryStats>;
  /** What the state of the fleet is judged by, as far as Postgres knows. */
  fleet(): Promise<PostgresFacts>;
}>;

/** The queue and the id of a job. */
export type JobPlace = Readonly<{ queue: string; id: string }>;

export type QueuesPort = Readonly<{
  /** Name of the queue that takes requests for sagas. */
  intake: string;
  adapters: readonly BaseAdapter[];
  /** Text documents in the format of Prometheus, one a queue. */
  exportMetrics(): Promise<readonly string[]>;
  heads(): Promise<readonly QueueHead[]>;
  /** Names of the queues that people have paused. */
  paused(): Promise<readonly string[]>;
  /** Resolves when the queue store answers and takes writes. */
  ping(): Promise<void>;
  /** Where the job stands, or stood, that runs a saga at a revision. */
  place(job: { sagaId: string; revision: number; direction: Direction }): JobPlace;
  /** The job of a saga that is not at rest, as its queue has it; null where it has none. @throws when the queue store is away */
  peek(saga: Saga): Promise<InspectedJob | null>;
}>;
