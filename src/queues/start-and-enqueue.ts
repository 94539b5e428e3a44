// Starts a saga and enqueues its first job right away. Where the queue can't be reached, the saga stands all the same:
// the reconciler enqueues it.
import type { Database } from '../platform/db.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import type { StepQueues } from './step-queues.ts';
import type { NextJob } from '../saga/saga.ts';
import type { StartRequest, StartableSagas, StartedSaga } from '../saga/start.ts';
import { startSaga } from '../saga/start.ts';
import { inSpan } from '../platform/tracing.ts';

// BullMQ waits without a limit for a connection that was never made.
const ENQUEUE_WITHIN_MS = 3_000;

/**
 * Starts a saga.
 *
 * @param options.catalog the sagas that can be started
 * @param options.keyRing seals what is secret
 * @param options.reconcileGraceMs how long the reconciler leaves the enqueueing to us, in milliseconds
 * @throws {InvalidRequestError} {IdempotencyConflictError} {IdempotencyKeyTakenError}
 */
export async function startAndEnqueue(
  request: StartRequest,
  options: { catalog: StartableSagas; db: Database; queues: Pick<StepQueues, 'enqueue'>; keyRing: KeyRing; reconcileGraceMs: number; log: Log },
): Promise<StartedSaga> {
  // The saga's trace goes on from here, whoever enqueues its jobs. A name that no saga has is not worth a span of its own.
  const { catalog } = options;
  const name = Object.hasOwn(catalog, request.name) ? request.name : 'saga';
  return inSpan(`start ${name}`, {}, async (span) => {
    const started = await startSaga(options.db, catalog, request, options.reconcileGraceMs, options.keyRing);
    span.setAttributes({ 'arcadia.saga.id': started.sagaId, 'arcadia.saga.name': name });
    if (started.firstJob !== null) await enqueueOrLeave(started.firstJob, options.queues, options.log);
    return started;
  });
}

/** Enqueues a job, or leaves that to the reconciler where the queue can't be reached. */
export async function enqueueOrLeave(job: NextJob, queues: Pick<StepQueues, 'enqueue'>, log: Log): Promise<void> {
  try {
    await withDeadline(ENQUEUE_WITHIN_MS, queues.enqueue(job), () => new Error(`the queue store did not answer within ${ENQUEUE_WITHIN_MS} ms`));
  } catch (error) {
    log.warn({ sagaId: job.sagaId, err: error }, 'could not enqueue the saga: the reconciler will');
  }
}
