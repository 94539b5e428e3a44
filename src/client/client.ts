// The client: starts sagas and looks at them. For the command line, and for backends that speak TypeScript.
import { z } from 'zod';
import { DROPLET_FIELD, dropletLabels, ofDroplet } from '../inventory/droplet-of-saga.ts';
import { ClientClosedError } from './errors.ts';
import type { SagaHandle } from './handle.ts';
import { createHandle } from './handle.ts';
import { openClientQueues } from './queues.ts';
import type { CallersTransaction } from './transaction.ts';
import { inTransaction } from './transaction.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase } from '../platform/db.ts';
import { endsWithin } from '../platform/deadline.ts';
import { directIo } from '../platform/io.ts';
import type { JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import { silentLog } from '../platform/log.ts';
import type { QueueStore } from '../queues/queue-store.ts';
import type { NamedSaga } from '../saga/app.ts';
import { createEventFeed } from '../saga/event-feed.ts';
import type { Memo } from '../saga/step.ts';
import type { NextJob, Saga, SagaStatus } from '../saga/saga.ts';
import { nextJobOf } from '../saga/saga.ts';
import type { SagaFilter } from '../saga/search.ts';
import { searchSagas } from '../saga/search.ts';
import type { StartRequest, StartableSagas } from '../saga/start.ts';
import { startSaga } from '../saga/start.ts';
import type { StoredEvent } from '../saga/store.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { cancelSaga, retrySaga } from '../saga/cancel-and-retry.ts';
import { announceSaga, createSagaStore, listEvents, loadSaga, readProgress } from '../saga/store.ts';
import { enqueueOrLeave, startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { tracedIo } from '../platform/tracing.ts';
import { destroyContract, dropletContracts, provisionContract } from '../steps/contract.ts';
import type { ProvisionDropletInput } from '../steps/inputs.ts';
import type { DestroyDropletOutputs, ProvisionDropletOutputs } from '../steps/outputs.ts';
import { destroyDropletOutputs, provisionDropletOutputs } from '../steps/outputs.ts';

export type StartOptions = Readonly<{
  /** The same key always gives the same saga. */
  idempotencyKey?: string | undefined;
  /** Who asks: kept with the saga, for people to read. */
  requestedBy?: string | undefined;
  /**
   * A transaction of the caller's on the same database. Rolled back with it, the saga never was; soon after its commit,
   * it runs. No error of the saga's makes the transaction fail.
   */
  transaction?: CallersTransaction | undefined;
}>;

export type ClientOptions = Readonly<{
  databaseUrl: string;
  /** Where the workers' queues are: the same as theirs. Left out, Postgres tells the workers of what is to be done. */
  queueStore?: QueueStore | undefined;
  /** Seals the secrets of sagas, such as `user_data`: the same keys as the workers' (see `parseKeyRing`). Without it, none is accepted. */
  keyRing?: KeyRing | undefined;
  log?: Log | undefined;
  /** Connections to Postgres that the client may hold, beside those of queues in Postgres: 4 unless told otherwise. Idle ones are closed. */
  poolMax?: number | undefined;
}>;

/** What to look for. `dropletId`: the droplet that a saga made, or is to destroy. `limit`: so many at most, 50 unless told otherwise. */
type ListFilter = Omit<SagaFilter, 'status'> & Readonly<{ status?: SagaStatus | readonly SagaStatus[] | undefined; dropletId?: number | undefined; limit?: number }>;

/** What the client needs of a definition. */
type StartableSaga<Input extends JsonObject, Outputs extends JsonObject> = Pick<NamedSaga<never, Input, Outputs>, 'name' | 'input' | 'steps' | 'outputs' | 'secrets'>;

export type Client = Readonly<{
  /**
   * Starts a `provision_droplet` saga.
   *
   * @param input DigitalOcean's own create fields
   * @throws {InvalidRequestError} naming each field that is wrong
   * @throws {IdempotencyConflictError} when the key was used with another input
   */
  provisionDroplet(input: ProvisionDropletInput, options?: StartOptions): Promise<SagaHandle<ProvisionDropletOutputs>>;
  /**
   * Starts a `destroy_droplet` saga. Only a droplet that arcadia-cloud provisioned is destroyed.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @throws {InvalidRequestError} {IdempotencyConflictError}
   */
  destroyDroplet(dropletId: number, options?: StartOptions & { reason?: string | undefined }): Promise<SagaHandle<DestroyDropletOutputs>>;
  /**
   * Starts any saga.
   *
   * @param saga its definition, or the name of one of the droplet sagas; what a result is, is known of a definition alone
   * @throws {InvalidRequestError} {IdempotencyConflictError}
   */
  start<Input extends JsonObject, Outputs extends JsonObject = JsonObject>(saga: StartableSaga<Input, Outputs> | string, input: Input, options?: StartOptions): Promise<SagaHandle<Outputs>>;
  /** Takes up a saga that was started before; its result is its whole context. */
  handle(sagaId: string): SagaHandle<JsonObject>;
  /** Reads a saga; null when there is none with this id. */
  get(sagaId: string): Promise<Saga | null>;
  /** Finds sagas, newest first. */
  list(filter?: ListFilter): Promise<readonly Saga[]>;
  /** Reads what happened to a saga after event `afterSeq` (exclusive; all when left out), oldest first. */
  events(sagaId: string, afterSeq?: number): Promise<StoredEvent[]>;
  /**
   * Asks for a saga's rollback. Of a cancel and a completion exactly one wins, and the answer says which.
   *
   * @param by who asks, for the record
   */
  cancel(sagaId: string, by: string, reason?: string): Promise<ActionResult>;
  /** Resumes a stuck saga. */
  retry(sagaId: string, by: string): Promise<ActionResult>;
  /** What the saga's current job waits for; null when it is not in the queue, or the queues are not known. Times in milliseconds. */
  peek(saga: Saga): Promise<{ memo: Memo; dueInMs: number } | null>;
  close(): Promise<void>;
}>;

// How long the reconciler leaves the enqueueing of a new saga to the client that started it.
const ENQUEUE_GRACE_MS = 5_000;

// Handles that wait, however many, make one statement in this time.
const LOOK_EVERY_MS = 250;

// A client asks one thing after the other; its caller has a pool too.
const POOL_MAX = 4;

// What is found by a typed id where the caller names no other fields.
const subjectFields = { names: [], ids: [DROPLET_FIELD] };

// Outputs of steps are JSON; a saga's own types are not known here.
const anyOutputs = z.record(z.string(), z.json());

// A queue store that can't be reached must not keep a command from ending.
const CLOSE_WITHIN_MS = 1_000;

/** Opens a client. Connections are made when first used. */
export function openClient(options: ClientOptions): Client {
  const { keyRing = emptyKeyRing, log = silentLog } = options;
  const db: Database = openDatabase(options.databaseUrl, { max: options.poolMax ?? POOL_MAX, applicationName: 'arcadia-client', io: tracedIo(directIo) });
  const queues = options.queueStore === undefined ? null : openClientQueues(options.queueStore, { db, labelsOf: dropletLabels, log });
  const reconcileGraceMs = queues === null ? 0 : ENQUEUE_GRACE_MS;
  const store = createSagaStore(db, { worker: 'client', reconcileGraceMs });
  const closing = new AbortController();
  const reader = {
    get: async (sagaId: string) => (await loadSaga(db, sagaId))?.saga ?? null,
    events: (sagaId: string, afterSeq?: number) => listEvents(db, sagaId, afterSeq),
  };
  const feed = createEventFeed((wanted) => readProgress(db, wanted), log, LOOK_EVERY_MS);
  const handleOf = <Outputs>(sagaId: string, outputs: z.ZodType<Outputs>) => createHandle(sagaId, { reader, feed, outputs, closed: closing.signal, log });

  const start = async (name: string, input: JsonObject, { transaction, idempotencyKey, requestedBy }: StartOptions, catalog: StartableSagas = dropletContracts) => {
    const request: StartRequest = { name, input, idempotencyKey, requestedBy };
    if (transaction === undefined && queues !== null) return (await startAndEnqueue(request, { catalog, db, queues, keyRing, reconcileGraceMs, log })).sagaId;
    // A job must not be there before the transaction is committed: the workers are told by Postgres itself.
    const target = transaction === undefined ? db : inTransaction(transaction);
    const started = await startSaga(target, catalog, request, 0, keyRing);
    if (started.firstJob !== null) await announceSaga(target, started.sagaId);
    return started.sagaId;
  };
  const passOn = async (job: NextJob) => (queues === null ? announceSaga(db, job.sagaId) : enqueueOrLeave(job, queues, log));
  const enqueueNext = async (answered: ActionResult) => {
    if (answered.kind === 'accepted' && answered.next !== null) await passOn(answered.next);
    return answered;
  };
  return {
    provisionDroplet: async (input, startOptions = {}) => handleOf(await start(provisionContract.name, input, startOptions), provisionDropletOutputs),
    destroyDroplet: async (dropletId, { reason, ...startOptions } = {}) => {
      const input = reason === undefined ? { droplet_id: dropletId } : { droplet_id: dropletId, reason };
      return handleOf(await start(destroyContract.name, input, startOptions), destroyDropletOutputs);
    },
    start: async <Input extends JsonObject, Outputs extends JsonObject>(saga: StartableSaga<Input, Outputs> | string, input: Input, startOptions: StartOptions = {}) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of a saga by its name, nobody has said what its outputs are
      if (typeof saga === 'string') return handleOf(await start(saga, input, startOptions, dropletContracts), anyOutputs as unknown as z.ZodType<Outputs>);
      return handleOf(await start(saga.name, input, startOptions, { [saga.name]: saga }), saga.outputs);
    },
    handle: (sagaId) => handleOf(sagaId, anyOutputs),
    get: reader.get,
    list: async ({ limit = 50, status, dropletId, ...filter } = {}) => {
      const field = dropletId === undefined ? filter.field : ofDroplet(dropletId);
      const { sagas } = await searchSagas(db, { subjectFields, ...filter, field, status: typeof status === 'string' ? [status] : status }, { limit });
      return sagas;
    },
    events: reader.events,
    cancel: async (sagaId, by, reason) => enqueueNext(await cancelSaga(store, sagaId, by, reason)),
    retry: async (sagaId, by) => enqueueNext(await retrySaga(store, sagaId, by)),
    peek: async (saga) => {
      const job = nextJobOf(saga);
      return job === null || queues === null ? null : queues.peek(job);
    },
    close: async () => {
      closing.abort(new ClientClosedError('the client was closed'));
      await Promise.all([queues?.close(CLOSE_WITHIN_MS), endsWithin(CLOSE_WITHIN_MS, db.close())]);
    },
  };
}
