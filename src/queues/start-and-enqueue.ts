// Starts a saga and enqueues its first job right away. If the queue is unreachable, the saga exists anyway and the
// reconciler enqueues the job.
import type { Database } from '../platform/db.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import type { StepQueues } from './step-queues.ts';
import type { Deployment } from '../saga/definition.ts';
import type { NextJob } from '../saga/saga.ts';
import type { StartRequest, StartableSagas, StartedSaga } from '../saga/start.ts';
import { startSaga } from '../saga/start.ts';
import { inSpan } from '../platform/tracing.ts';

// BullMQ waits without a limit for a connection that was never established.
const ENQUEUE_WITHIN_MS = 3_000;

/**
 * Starts a saga.
 *
 * @param options.catalog the sagas that can be started
 * @param options.keyRing seals secrets
 * @param options.reconcileGraceMs how long the reconciler waits before it enqueues the job itself, in milliseconds
 * @throws {InvalidRequestError} {IdempotencyConflictError} {IdempotencyKeyTakenError} {KeyInProgressError} {StartRefusedError}
 */
export async function startAndEnqueue(
  request: StartRequest,
  options: { catalog: StartableSagas; db: Database; queues: Pick<StepQueues, 'enqueue'>; keyRing: KeyRing; reconcileGraceMs: number; deployment?: Deployment; log: Log },
): Promise<StartedSaga> {
  // The saga's trace continues from this span, whichever process enqueues its jobs. Unknown names share one span name.
  const { catalog } = options;
  const name = Object.hasOwn(catalog, request.name) ? request.name : 'saga';
  return inSpan(`start ${name}`, {}, async (span) => {
    const started = await startSaga(options.db, catalog, request, options.reconcileGraceMs, options.keyRing, options.deployment);
    span.setAttributes({ 'arcadia.saga.id': started.sagaId, 'arcadia.saga.name': name });
    if (started.firstJob !== null) await enqueueOrLeave(started.firstJob, options.queues, options.log);
    return started;
  });
}

/** Enqueues a job. If the queue is unreachable, leaves that to the reconciler. */
export async function enqueueOrLeave(job: NextJob, queues: Pick<StepQueues, 'enqueue'>, log: Log): Promise<void> {
  try {
    await withDeadline(ENQUEUE_WITHIN_MS, queues.enqueue(job), () => new Error(`the queue store did not answer within ${ENQUEUE_WITHIN_MS} ms`));
  } catch (error) {
    log.warn({ sagaId: job.sagaId, err: error }, 'could not enqueue the saga: the reconciler will');
  }
}
