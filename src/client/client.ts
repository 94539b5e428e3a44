// What the client does, and what it takes and returns: for the command line and for TypeScript backends. open-client.ts makes one.
import type { Protection } from '../inventory/protection.ts';
import type { Lease, SagaLease } from '../inventory/lease.ts';
import type { SagaHandle } from './handle.ts';
import type { CallersTransaction } from './transaction.ts';
import type { JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import type { QueueStore } from '../queues/queue-store.ts';
import type { NamedSaga } from '../saga/app.ts';
import type { Deployment } from '../saga/definition.ts';
import type { Memo } from '../saga/step.ts';
import type { Saga, SagaPriority, SagaStatus } from '../saga/saga.ts';
import type { Hold } from '../saga/holds.ts';
import type { SagaFilter } from '../saga/filter.ts';
import type { RerunResult } from '../saga/rerun.ts';
import type { StartableSagas } from '../saga/start.ts';
import type { StoredEvent } from '../saga/events.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import type { LeaseTerms, ProvisionDropletInput } from '../steps/inputs.ts';
import type { AdoptDropletOutputs, DestroyDropletOutputs, ProvisionDropletOutputs } from '../steps/outputs.ts';

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
export type StartableSaga<Input extends JsonObject, Outputs extends JsonObject, Given> = Pick<NamedSaga<never, Input, Outputs, Given>, 'name' | 'input' | 'steps' | 'outputs' | 'secrets'>;

/** What a caller passes: the input as its schema takes it; as it returns it if its type does not say. */
export type InputFor<Input extends JsonObject, Given> = NoInfer<unknown extends Given ? Input : Given>;

/** Every call fails with a `ClientClosedError` once the client is closed, and with a `NotMigratedError` if the database lacks what this version needs. An option that is null counts as left out. */
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
   * @param options.sagas the definitions to find the saga in, by name, beside the droplet sagas. A saga that is not among them
   *   is `refused`
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
