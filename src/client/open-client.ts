// Opens a client, which starts sagas and reads them.
import { z } from 'zod';
import { DROPLET_FIELD, dropletLabels, ofDroplet } from '../inventory/droplet-of-saga.ts';
import { setProtection } from '../inventory/protection.ts';
import { findLeases, renewLease } from '../inventory/lease.ts';
import type { Client, ClientOptions, InputFor, StartOptions, StartableSaga } from './client.ts';
import { checkArguments, optionsOf } from './check-arguments.ts';
import { ClientClosedError } from './errors.ts';
import { createHandle } from './handle.ts';
import { openClientQueues } from './queues.ts';
import type { CallersTransaction } from './transaction.ts';
import { inTransaction } from './transaction.ts';
import type { Database } from '../platform/db.ts';
import { missingMigration, openDatabase } from '../platform/db.ts';
import { endsWithin } from '../platform/deadline.ts';
import { directIo } from '../platform/io.ts';
import type { JsonObject } from '../platform/json.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import { silentLog } from '../platform/log.ts';
import { createEventFeed } from '../saga/event-feed.ts';
import type { NextJob } from '../saga/saga.ts';
import { nextJobOf } from '../saga/saga.ts';
import { findHolds } from '../saga/holds.ts';
import { searchSagas } from '../saga/search.ts';
import { rerunSaga } from '../saga/rerun.ts';
import type { StartRequest, StartableSagas } from '../saga/start.ts';
import { startSaga } from '../saga/start.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { cancelSaga, retrySaga } from '../saga/cancel-and-retry.ts';
import { listEvents, readProgress } from '../saga/events.ts';
import { announceSaga } from '../saga/new-saga.ts';
import { createSagaStore, loadSaga } from '../saga/store.ts';
import { enqueueOrLeave, startAndEnqueue } from '../queues/start-and-enqueue.ts';
import { tracedIo } from '../platform/tracing.ts';
import { adoptContract, destroyContract, dropletContracts, provisionContract } from '../steps/contract.ts';
import { adoptDropletOutputs, destroyDropletOutputs, provisionDropletOutputs } from '../steps/outputs.ts';

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
      const { secrets, despiteLeftovers, sagas } = optionsOf(given);
      checkArguments('rerun', { sagaId, by, secrets, despiteLeftovers });
      // What the steps of droplets left is known even if the caller's definitions only name them.
      return enqueueNext(await rerunSaga(db, { ...dropletContracts, ...sagas }, { sagaId, secrets, despiteLeftovers, requestedBy: by }, reconcileGraceMs, keyRing, deployment));
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

/** Refuses every call once the client is closed, with the reason of the signal. Says what a database lacks that is not migrated. */
function untilClosed<Calls extends Readonly<Record<string, (...given: never[]) => Promise<unknown>>>>(calls: Calls, closed: AbortSignal): Calls {
  const guarded = Object.entries(calls).map(([name, call]) => [
    name,
    async (...given: never[]) => {
      closed.throwIfAborted();
      try {
        return await call(...given);
      } catch (error) {
        throw missingMigration(error) ?? error;
      }
    },
  ]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each takes and returns what it did
  return Object.fromEntries(guarded) as Calls;
}
