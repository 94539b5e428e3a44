// The client starts sagas and reads them: for the command line and for TypeScript backends.
import { z } from 'zod';
import { DROPLET_FIELD, dropletLabels, ofDroplet } from '../inventory/droplet-of-saga.ts';
import type { Protection } from '../inventory/protection.ts';
import { setProtection } from '../inventory/protection.ts';
import type { Lease, SagaLease } from '../inventory/lease.ts';
import { findLeases, renewLease } from '../inventory/lease.ts';
import { checkArguments, optionsOf } from './check-arguments.ts';
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
import type { Deployment } from '../saga/definition.ts';
import { createEventFeed } from '../saga/event-feed.ts';
import type { Memo } from '../saga/step.ts';
import type { NextJob, Saga, SagaPriority, SagaStatus } from '../saga/saga.ts';
import { nextJobOf } from '../saga/saga.ts';
import type { Hold } from '../saga/holds.ts';
import { findHolds } from '../saga/holds.ts';
import type { SagaFilter } from '../saga/filter.ts';
import { searchSagas } from '../saga/search.ts';
import type { RerunResult } from '../saga/rerun.ts';
import { rerunSaga } from '../saga/rerun.ts';
import type { StartRequest, StartableSagas } from '../saga/start.ts';
import { startSaga } from '../saga/start.ts';
import type { StoredEvent } from '../saga/events.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { cancelSaga, retrySaga } from '../saga/cancel-and-retry.ts';
import { listEvents, readProgress } from '../saga/events.ts';
import { announceSaga } from '../saga/new-saga.ts';
import { createSagaStore, loadSaga } from '../saga/store.ts';
import { enqueueOrLeave, startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { tracedIo } from '../platform/tracing.ts';
import { adoptContract, destroyContract, dropletContracts, provisionContract } from '../steps/contract.ts';
import type { LeaseTerms, ProvisionDropletInput } from '../steps/inputs.ts';
import type { AdoptDropletOutputs, DestroyDropletOutputs, ProvisionDropletOutputs } from '../steps/outputs.ts';
import { adoptDropletOutputs, destroyDropletOutputs, provisionDropletOutputs } from '../steps/outputs.ts';

export type StartOptions = Readonly<{
  /** The same key returns the same saga, as long as that saga is kept (`SAGA_RETENTION_DAYS`). */
  idempotencyKey?: string | undefined;
  /**
   * The requester: stored with the saga, for people to read. While creates wait for the request budget, requesters take
   * turns.
   */
  requestedBy?: string | undefined;
  /** Among the sagas of the same requester that wait for the request budget, a higher one goes first. Default: normal. */
  priority?: SagaPriority | undefined;
  /**
   * The caller's own transaction on the same database. If it is rolled back, the saga never existed; soon after its
   * commit, the saga runs. An error in the saga never fails the transaction.
   */
  transaction?: CallersTransaction | undefined;
}>;

export type ClientOptions = Readonly<{
  databaseUrl: string;
  /** The workers' queue store. Without it, Postgres notifies the workers. */
  queueStore?: QueueStore | undefined;
  /**
   * Seals the secrets of sagas, such as `user_data`. Must contain the workers' keys (see `parseKeyRing`). Without it,
   * secrets are refused.
   */
  keyRing?: KeyRing | undefined;
  log?: Log | undefined;
  /** What is known of the deployment, so that what its workers would refuse is refused at the start already: see `Deployment`. */
  deployment?: Deployment | undefined;
  /** Maximum number of Postgres connections, in addition to those of queues in Postgres; default 4. Idle ones are closed. */
  poolMax?: number | undefined;
}>;

/** Search filters. `dropletId`: the droplet that a saga created or destroys. `limit`: maximum number of sagas; default 50. */
type ListFilter = Omit<SagaFilter, 'status'> & Readonly<{ status?: SagaStatus | readonly SagaStatus[] | undefined; dropletId?: number | undefined; limit?: number }>;

/** The parts of a definition that the client needs. */
type StartableSaga<Input extends JsonObject, Outputs extends JsonObject, Given> = Pick<NamedSaga<never, Input, Outputs, Given>, 'name' | 'input' | 'steps' | 'outputs' | 'secrets'>;

/** What a caller passes: the input as its schema takes it; as it returns it if its type does not say. */
type InputFor<Input extends JsonObject, Given> = NoInfer<unknown extends Given ? Input : Given>;

/** Every call fails with a `ClientClosedError` once the client is closed. An option that is null counts as left out. */
export type Client = Readonly<{
  /**
   * Starts a `provision_droplet` saga.
   *
   * @param input DigitalOcean's create fields, and `project`, `protected`, `lease`, `ready`, `wait_s`
   * @throws {InvalidRequestError} naming each invalid field
   * @throws {IdempotencyConflictError} if the key was used with another input
   * @throws {KeyInProgressError} if another transaction used the key and is not committed yet: repeat the call in a moment
   * @throws {StartRefusedError} `lease_too_long` or `ready_callback_unavailable`, as far as `deployment` says
   */
  provisionDroplet(input: ProvisionDropletInput, options?: StartOptions): Promise<SagaHandle<ProvisionDropletOutputs>>;
  /**
   * Starts a `destroy_droplet` saga. Only a droplet that arcadia-cloud provisioned or adopted is destroyed.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @throws {InvalidRequestError} {IdempotencyConflictError} {KeyInProgressError}
   * @throws {StartRefusedError} `droplet_protected` while the droplet is protected
   */
  destroyDroplet(dropletId: number, options?: StartOptions & { reason?: string | undefined }): Promise<SagaHandle<DestroyDropletOutputs>>;
  /**
   * Starts an `adopt_droplet` saga: takes a droplet that was made elsewhere under management. From then on it counts as provisioned here,
   * with its present size, region and image as what is wanted. Of the droplet, only tags are changed.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @param options.lease in seconds, from the registration of the droplet; default: no lease
   * @throws {InvalidRequestError} {IdempotencyConflictError} {KeyInProgressError}
   * @throws {StartRefusedError} `lease_too_long` if the lease exceeds `deployment.longestLeaseS`
   */
  adoptDroplet(
    dropletId: number,
    options?: StartOptions & { reason?: string | undefined; protected?: boolean | undefined; lease?: LeaseTerms | undefined },
  ): Promise<SagaHandle<AdoptDropletOutputs>>;
  /**
   * Protects a droplet that arcadia-cloud provisioned or adopted, or lifts its protection. While it is protected, it is not destroyed.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @param how.by the requester, for the audit trail; default: the database role
   * @param how.transaction the caller's own transaction on the same database
   * @throws {ProtectionError} `droplet_unknown`; `droplet_being_destroyed` if the protection comes too late; `droplet_busy` while
   *   another transaction is changing the droplet
   */
  setProtection(dropletId: number, how: { protected: boolean; by?: string | undefined; transaction?: CallersTransaction | undefined }): Promise<Protection>;
  /**
   * Renews the lease of a droplet: it ends no earlier than `ttlS` seconds from now, unless its limit comes first. A
   * renewal never shortens a lease.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @param how.ttlS whole seconds, 1 to 31,622,400
   * @param how.by the requester, for the audit trail; default: the database role
   * @param how.transaction the caller's own transaction on the same database
   * @returns when the lease now ends
   * @throws {LeaseError} `droplet_unknown`, `lease_expired`, `lease_absent`, `lease_limit`, `droplet_being_destroyed` or `droplet_busy`
   */
  renewLease(dropletId: number, how: { ttlS: number; by?: string | undefined; transaction?: CallersTransaction | undefined }): Promise<Lease>;
  /** Returns the leases of the live droplets that these sagas provisioned or adopted, by saga id. */
  leasesOf(sagaIds: readonly string[]): Promise<ReadonlyMap<string, SagaLease>>;
  /**
   * Returns, by saga id, which of these sagas wait until somebody acts, and why: `token_refused`, `scope_missing` or
   * `account_full`, with the answer of DigitalOcean. Their status is that of a saga under way.
   */
  holdsOf(sagaIds: readonly string[]): Promise<ReadonlyMap<string, Hold>>;
  /**
   * Starts any saga.
   *
   * @param saga its definition, or the name of a droplet saga; only a definition types the input and the result
   * @throws {InvalidRequestError} {IdempotencyConflictError} {KeyInProgressError} {StartRefusedError}
   */
  start<Input extends JsonObject, Outputs extends JsonObject = JsonObject, Given = unknown>(
    saga: StartableSaga<Input, Outputs, Given> | string,
    input: InputFor<Input, Given>,
    options?: StartOptions,
  ): Promise<SagaHandle<Outputs>>;
  /**
   * Returns a handle to an existing saga. Its result is the saga's whole context.
   *
   * @throws {InvalidRequestError} if it is no id
   */
  handle(sagaId: string): SagaHandle<JsonObject>;
  /**
   * Reads a saga; null if the id is unknown.
   *
   * @throws {InvalidRequestError} if it is no id
   */
  get(sagaId: string): Promise<Saga | null>;
  /**
   * Finds sagas, newest first.
   *
   * @throws {InvalidRequestError} naming each wrong field of the filter
   */
  list(filter?: ListFilter): Promise<readonly Saga[]>;
  /** Reads a saga's events after `afterSeq` (all by default), oldest first. */
  events(sagaId: string, afterSeq?: number): Promise<StoredEvent[]>;
  /**
   * Cancels a saga and rolls it back. A cancel and a completion race; exactly one wins, and the result says which.
   *
   * @param by the requester, for the audit trail
   */
  cancel(sagaId: string, by: string, reason?: string): Promise<ActionResult>;
  /** Resumes a stuck saga. */
  retry(sagaId: string, by: string): Promise<ActionResult>;
  /**
   * Runs a rolled-back saga again: starts a new one with the same input, once. `accepted` and `already` carry the new
   * saga; get its handle with `handle(saga.id)`. `refused`: the saga was not rolled back, secrets are
   * `missing`, or the rollback may have left something: `leftovers` says what.
   *
   * @param by the requester, for the audit trail
   * @param options.secrets the secrets that the saga had, such as `user_data`, by field; they were erased when it was
   *   rolled back
   * @param options.despiteLeftovers true if a person has checked what the rollback may have left
   * @param options.sagas the definitions to find the saga in, by name; the droplet sagas by default. A saga that is not among
   *   them is `refused`
   * @throws {InvalidRequestError} {StartRefusedError}
   */
  rerun(sagaId: string, by: string, options?: { secrets?: Readonly<Record<string, string>> | undefined; despiteLeftovers?: boolean | undefined; sagas?: StartableSagas | undefined }): Promise<RerunResult>;
  /**
   * Returns what the saga's current job waits for; null if the job is not in the queue, or the client has no queues.
   * Times in milliseconds.
   */
  peek(saga: Saga): Promise<{ memo: Memo; dueInMs: number } | null>;
  /** Ends what waits, with a `ClientClosedError`. */
  close(): Promise<void>;
}>;

// How long the reconciler waits for the client to enqueue a saga it started.
const ENQUEUE_GRACE_MS = 5_000;

// Poll interval. One statement serves all waiting handles.
const LOOK_EVERY_MS = 250;

// A client issues one statement after the other, and its caller has a pool too.
const POOL_MAX = 4;

// The fields that a typed id matches if the caller names no others.
const subjectFields = { names: [], ids: [DROPLET_FIELD] };

// Step outputs are JSON. The saga's own types are unknown here.
const anyOutputs = z.record(z.string(), z.json());

// An unreachable queue store must not keep a command from ending.
const CLOSE_WITHIN_MS = 1_000;

/** Opens a client. It connects on first use. */
export function openClient(options: ClientOptions): Client {
  const { keyRing = emptyKeyRing, deployment = {}, log = silentLog } = options;
  const db: Database = openDatabase(options.databaseUrl, { max: options.poolMax ?? POOL_MAX, applicationName: 'arcadia-client', io: tracedIo(directIo) });
  const queues = options.queueStore === undefined ? null : openClientQueues(options.queueStore, { db, labelsOf: dropletLabels, log });
  const reconcileGraceMs = queues === null ? 0 : ENQUEUE_GRACE_MS;
  const store = createSagaStore(db, { worker: 'client', reconcileGraceMs });
  const closing = new AbortController();
  const reader = {
    get: async (sagaId: string) => (await loadSaga(db, sagaId))?.saga ?? null,
    events: (sagaId: string, afterSeq?: number) => listEvents(db, sagaId, afterSeq),
  };
  // One statement serves handles whose sagas end at the same time. It contains only ids that the feed has found: an
  // invalid one would fail them all.
  const ofHandles = { ...reader, get: async (sagaId: string) => (await store.load(sagaId))?.saga ?? null };
  const feed = createEventFeed((wanted) => readProgress(db, wanted), log, LOOK_EVERY_MS);
  const handleOf = <Outputs>(sagaId: string, outputs: z.ZodType<Outputs>) => createHandle(sagaId, { reader: ofHandles, feed, outputs, closed: closing.signal, log });

  const databaseOf = (transaction: CallersTransaction | undefined) => (transaction === undefined ? db : inTransaction(transaction));
  const start = async (name: string, input: unknown, given: StartOptions | undefined, catalog: StartableSagas = dropletContracts) => {
    const { transaction, idempotencyKey, requestedBy, priority } = optionsOf(given);
    const request: StartRequest = { name, input, idempotencyKey, requestedBy, priority };
    if (transaction === undefined && queues !== null) return (await startAndEnqueue(request, { catalog, db, queues, keyRing, reconcileGraceMs, deployment, log })).sagaId;
    // The job must not exist before the transaction is committed, so Postgres notifies the workers.
    const target = databaseOf(transaction);
    const started = await startSaga(target, catalog, request, 0, keyRing, deployment);
    if (started.firstJob !== null) await announceSaga(target, started.sagaId);
    return started.sagaId;
  };
  const passOn = async (job: NextJob) => (queues === null ? announceSaga(db, job.sagaId) : enqueueOrLeave(job, queues, log));
  const enqueueNext = async <Answer extends ActionResult>(answered: Answer): Promise<Answer> => {
    if (answered.kind === 'accepted' && answered.next !== null) await passOn(answered.next);
    return answered;
  };
  const calls: Omit<Client, 'handle' | 'close'> = {
    provisionDroplet: async (input, startOptions) => handleOf(await start(provisionContract.name, input, startOptions), provisionDropletOutputs),
    destroyDroplet: async (dropletId, given) => {
      const { reason, ...startOptions } = optionsOf(given);
      const input = reason === undefined ? { droplet_id: dropletId } : { droplet_id: dropletId, reason };
      return handleOf(await start(destroyContract.name, input, startOptions), destroyDropletOutputs);
    },
    adoptDroplet: async (dropletId, given) => {
      const { reason, protected: isProtected, lease, ...startOptions } = optionsOf(given);
      const input = { droplet_id: dropletId, ...(reason === undefined ? {} : { reason }), ...(isProtected === undefined ? {} : { protected: isProtected }), ...(lease === undefined ? {} : { lease }) };
      return handleOf(await start(adoptContract.name, input, startOptions), adoptDropletOutputs);
    },
    setProtection: async (dropletId, given) => {
      const { transaction, ...how } = optionsOf(given);
      checkArguments('protection', { dropletId, ...how });
      return setProtection(databaseOf(transaction), dropletId, { protected: how.protected, by: how.by ?? null });
    },
    renewLease: async (dropletId, given) => {
      const { transaction, ...how } = optionsOf(given);
      checkArguments('lease', { dropletId, ...how });
      return renewLease(databaseOf(transaction), dropletId, { ttlS: how.ttlS, by: how.by ?? null });
    },
    leasesOf: async (sagaIds) => {
      checkArguments('sagas', { sagaIds });
      return findLeases(db, sagaIds);
    },
    holdsOf: async (sagaIds) => {
      checkArguments('sagas', { sagaIds });
      return findHolds(db, sagaIds);
    },
    start: async <Input extends JsonObject, Outputs extends JsonObject, Given>(saga: StartableSaga<Input, Outputs, Given> | string, input: InputFor<Input, Given>, startOptions?: StartOptions) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of a saga by its name, nobody has said what its outputs are
      if (typeof saga === 'string') return handleOf(await start(saga, input, startOptions, dropletContracts), anyOutputs as unknown as z.ZodType<Outputs>);
      checkArguments('definition', { saga });
      return handleOf(await start(saga.name, input, startOptions, { [saga.name]: saga }), saga.outputs);
    },
    get: async (sagaId) => {
      checkArguments('saga', { sagaId });
      return reader.get(sagaId);
    },
    list: async (given) => {
      const { limit = 50, status, dropletId, ...filter } = optionsOf(given);
      checkArguments('list', { limit, status, dropletId, ...filter });
      const field = dropletId === undefined ? filter.field : ofDroplet(dropletId);
      const { sagas } = await searchSagas(db, { subjectFields, ...filter, field, status: typeof status === 'string' ? [status] : status }, { limit });
      return sagas;
    },
    events: async (sagaId, given) => {
      const { afterSeq } = optionsOf({ afterSeq: given });
      checkArguments('events', { sagaId, afterSeq });
      return reader.events(sagaId, afterSeq);
    },
    cancel: async (sagaId, by, given) => {
      const { reason } = optionsOf({ reason: given });
      checkArguments('action', { sagaId, by, reason });
      return enqueueNext(await cancelSaga(store, sagaId, by, reason));
    },
    retry: async (sagaId, by) => {
      checkArguments('action', { sagaId, by });
      return enqueueNext(await retrySaga(store, sagaId, by));
    },
    rerun: async (sagaId, by, given) => {
      const { secrets, despiteLeftovers, sagas = dropletContracts } = optionsOf(given);
      checkArguments('rerun', { sagaId, by, secrets, despiteLeftovers });
      return enqueueNext(await rerunSaga(db, sagas, { sagaId, secrets, despiteLeftovers, requestedBy: by }, reconcileGraceMs, keyRing, deployment));
    },
    peek: async (saga) => {
      const job = nextJobOf(saga);
      return job === null || queues === null ? null : queues.peek(job);
    },
  };
  return {
    ...untilClosed(calls, closing.signal),
    handle: (sagaId) => {
      closing.signal.throwIfAborted();
      checkArguments('saga', { sagaId });
      return handleOf(sagaId, anyOutputs);
    },
    close: async () => {
      closing.abort(new ClientClosedError('the client is closed'));
      await Promise.all([queues?.close(CLOSE_WITHIN_MS), endsWithin(CLOSE_WITHIN_MS, db.close())]);
    },
  };
}

/** Refuses every call once the client is closed, with the reason of the signal. */
function untilClosed<Calls extends Readonly<Record<string, (...given: never[]) => Promise<unknown>>>>(calls: Calls, closed: AbortSignal): Calls {
  const guarded = Object.entries(calls).map(([name, call]) => [
    name,
    async (...given: never[]) => {
      closed.throwIfAborted();
      return call(...given);
    },
  ]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each takes and returns what it did
  return Object.fromEntries(guarded) as Calls;
}
