// The client: starts sagas and looks at them. For the command line, and for backends that speak TypeScript.
import type { Database } from './db.ts';
import { openDatabase } from './db.ts';
import { endsWithin } from './deadline.ts';
import { directIo } from './io.ts';
import type { JsonObject } from './json.ts';
import type { KeyRing } from './key-ring.ts';
import { emptyKeyRing } from './key-ring.ts';
import type { Log } from './log.ts';
import { silentLog } from './log.ts';
import type { QueueStore } from './queues/connection.ts';
import { openQueueConnection } from './queues/connection.ts';
import { openStepQueues } from './queues/step-queues.ts';
import type { Memo } from './saga/step.ts';
import type { Saga, SagaStatus } from './saga/saga.ts';
import { nextJobOf } from './saga/saga.ts';
import type { StoredEvent } from './saga/store.ts';
import type { Steered } from './saga/steer.ts';
import { cancelSaga, retrySaga } from './saga/steer.ts';
import { createSagaStore, listEvents, listSagas, loadSaga } from './saga/store.ts';
import { enqueueOrLeave, startAndEnqueue } from './start-and-enqueue.ts';
import type { ProvisionDropletInput } from './steps/inputs.ts';

export type StartOptions = Readonly<{
  /** The same key always gives the same saga. */
  idempotencyKey?: string | undefined;
  /** Who asks: kept with the saga, for people to read. */
  requestedBy?: string | undefined;
}>;

export type Client = Readonly<{
  /**
   * Starts a `provision_droplet` saga.
   *
   * @param input DigitalOcean's own create fields
   * @returns the saga's id
   * @throws {InvalidRequestError} naming each field that is wrong
   * @throws {IdempotencyConflictError} when the key was used with another input
   */
  provisionDroplet(input: ProvisionDropletInput, options?: StartOptions): Promise<string>;
  /**
   * Starts a `destroy_droplet` saga. Only a droplet that arcadia-cloud provisioned is destroyed.
   *
   * @param dropletId DigitalOcean's id of the droplet
   * @returns the saga's id
   * @throws {InvalidRequestError} {IdempotencyConflictError}
   */
  destroyDroplet(dropletId: number, options?: StartOptions & { reason?: string | undefined }): Promise<string>;
  /** Reads a saga; null when there is none with this id. */
  get(sagaId: string): Promise<Saga | null>;
  /** Lists sagas, newest first; 50 unless told otherwise. */
  list(filter?: { status?: SagaStatus; name?: string; limit?: number }): Promise<Saga[]>;
  /** Reads what happened to a saga after event `afterSeq` (exclusive; all when left out), oldest first. */
  events(sagaId: string, afterSeq?: number): Promise<StoredEvent[]>;
  /**
   * Asks for a saga's rollback. Of a cancel and a completion exactly one wins, and the answer says which.
   *
   * @param by who asks, for the record
   */
  cancel(sagaId: string, by: string, reason?: string): Promise<Steered>;
  /** Resumes a stuck saga. */
  retry(sagaId: string, by: string): Promise<Steered>;
  /** What the saga's current job waits for; null when it is not in the queue. Times in milliseconds. */
  peek(saga: Saga): Promise<{ memo: Memo; dueInMs: number } | null>;
  close(): Promise<void>;
}>;

// How long the reconciler leaves the enqueueing of a new saga to the client that started it.
const ENQUEUE_SLACK_MS = 5_000;

// A queue store that can't be reached must not keep a command from ending.
const CLOSE_WITHIN_MS = 1_000;

/**
 * Opens a client.
 *
 * @param options.queueStore where the workers' queues are: the same as theirs
 * @param options.keyRing seals `user_data`: the same keys as the workers' (see `parseKeyRing`). Without it, none is accepted
 */
export function openClient(options: { databaseUrl: string; queueStore: QueueStore; keyRing?: KeyRing; log?: Log }): Client {
  const { keyRing = emptyKeyRing, log = silentLog } = options;
  const db: Database = openDatabase(options.databaseUrl, { max: 4, applicationName: 'arcadia-client' });
  const connection = openQueueConnection(options.queueStore, log);
  const queues = openStepQueues(connection, directIo);
  const start = async (name: string, input: JsonObject, { idempotencyKey, requestedBy }: StartOptions) => {
    const started = await startAndEnqueue({ name, input, idempotencyKey, requestedBy }, { db, queues, keyRing, slackMs: ENQUEUE_SLACK_MS, log });
    return started.sagaId;
  };
  const store = createSagaStore(db, { worker: 'client', slackMs: ENQUEUE_SLACK_MS });
  const enqueueNext = async (steered: Steered) => {
    if (steered.kind === 'accepted' && steered.next !== null) await enqueueOrLeave(steered.next, queues, log);
    return steered;
  };
  return {
    provisionDroplet: (input, startOptions = {}) => start('provision_droplet', input, startOptions),
    destroyDroplet: (dropletId, { reason, ...startOptions } = {}) =>
      start('destroy_droplet', reason === undefined ? { droplet_id: dropletId } : { droplet_id: dropletId, reason }, startOptions),
    get: async (sagaId) => (await loadSaga(db, sagaId))?.saga ?? null,
    list: ({ status, name, limit = 50 } = {}) =>
      listSagas(db, { limit, ...(status === undefined ? {} : { status }), ...(name === undefined ? {} : { name }) }),
    events: (sagaId, afterSeq) => listEvents(db, sagaId, afterSeq),
    cancel: async (sagaId, by, reason) => enqueueNext(await cancelSaga(store, sagaId, by, reason)),
    retry: async (sagaId, by) => enqueueNext(await retrySaga(store, sagaId, by)),
    peek: async (saga) => {
      const job = nextJobOf(saga);
      return job === null ? null : queues.peek(job);
    },
    close: async () => {
      await endsWithin(CLOSE_WITHIN_MS, queues.close());
      await endsWithin(CLOSE_WITHIN_MS, Promise.allSettled([connection.close(), db.close()]));
    },
  };
}
