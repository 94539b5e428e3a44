// The intake turns jobs that other backends add to the queue `sagas` into sagas. The contract is in docs. A malformed job
// fails at once and shows the reason.
import { createHash } from 'node:crypto';
import type { Job, Worker } from 'bullmq';
import { DelayedError, UnrecoverableError } from 'bullmq';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import { TIMES_LEFT_TO_OTHERS, leftForMs } from '../saga/left-to-others.ts';
import type { StartRequest, StartedSaga, Starter } from '../saga/start.ts';
import { IdempotencyConflictError, InvalidRequestError, KeyInProgressError, StartRefusedError } from '../saga/start-errors.ts';
import { shorten } from '../platform/text.ts';
import { namesIn } from '../platform/value-marks.ts';
import type { QueueConnection } from './connection.ts';
import { acceptedJobSchema, intakeJobSchema, queueNames, refusedJobSchema } from './jobs.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';

// The queue store does not distinguish producers. Sagas from other channels are found too, so that a request can be
// repeated over another channel.
const QUEUE: Starter = { name: 'queue', mayRead: true, isShared: true };

const OUTAGE_DELAY_MS = 1_000;
// Until the next try while a transaction holds the key, perhaps for minutes, and perhaps that of many jobs.
const KEY_DELAY_MS = 5_000;

const MAX_REASON_LENGTH = 2_000;

// Two levels: the request and its input.
const MAX_NAMED_DEPTH = 2;

type IntakeOptions = Readonly<{
  /** Inserts the saga and enqueues its first job. */
  start: (request: StartRequest) => Promise<StartedSaga>;
  exists: (sagaId: string) => Promise<boolean>;
  /**
   * Whether a request for a saga of this name may be meant for another version, which is being deployed: `unknown` if only that one
   * knows the saga. `fresh`: this version is about to refuse it.
   */
  isForOthers?: (name: string, how?: { fresh: true }) => Promise<'unknown' | 'differs' | null>;
  io: Io;
  log: Log;
}>;

/** Starts the intake worker. */
export function startIntakeWorker(connection: QueueConnection, options: IntakeOptions & { settings: WorkerSettings }): Worker {
  const worker = connection.worker(queueNames.intake, (job, token) => accept(job, token, options), workerOptions(options.settings));
  worker.on('failed', (job, error) => options.log.warn({ queue: queueNames.intake, jobId: job?.id, reason: error.message }, 'request refused'));
  return worker;
}

async function accept(job: Job, token: string | undefined, options: IntakeOptions): Promise<{ sagaId: string }> {
  const accepted = acceptedJobSchema.safeParse(job.data);
  if (accepted.success) return acceptAgain(job, token, accepted.data, options);
  const refused = refusedJobSchema.safeParse(job.data);
  if (refused.success) {
    // A job that looks refused may not have been refused here: a producer may have sent it like this, with values. So
    // redact it again.
    const reason = shorten(refused.data.reason, MAX_REASON_LENGTH);
    await options.io('queue', 'update data', () => job.updateData({ refused: namesIn(refused.data.refused, MAX_NAMED_DEPTH), reason }));
    throw new UnrecoverableError(`already refused, and its values were removed: send a new request (${reason})`);
  }
  const parsed = intakeJobSchema.safeParse(job.data);
  if (!parsed.success) {
    return refuse(job, `expected {input, idempotencyKey?, requestedBy?, priority?}: ${sentenceOf(problemsOf(parsed.error.issues, 'data'))}`, options.io);
  }
  const { input, idempotencyKey = keyOfJob(job), requestedBy, priority } = parsed.data;
  let started: StartedSaga;
  try {
    if (await mayLeave(job, options)) return await leaveToOthers(job, token, options);
    started = await options.start({ name: job.name, input, idempotencyKey, requestedBy, priority, starter: QUEUE, keyWait: 'none' });
  } catch (error) {
    if (error instanceof DelayedError) throw error;
    if (error instanceof InvalidRequestError || error instanceof IdempotencyConflictError || error instanceof StartRefusedError) return refuseUnlessForOthers(job, token, error.message, options);
    return putBack(job, token, error, options);
  }
  await options.io('queue', 'update data', () => job.updateData({ sagaId: started.sagaId }));
  return { sagaId: started.sagaId };
}

/**
 * Completes a job whose saga exists already: a worker died between replacing its data and completing it. A producer may
 * have sent such data too.
 */
async function acceptAgain(job: Job, token: string | undefined, accepted: { sagaId: string }, options: IntakeOptions): Promise<{ sagaId: string }> {
  let exists: boolean;
  try {
    exists = await options.exists(accepted.sagaId);
  } catch (error) {
    return putBack(job, token, error, options);
  }
  return exists ? accepted : refuse(job, `no saga ${accepted.sagaId} exists: to start one, send a new job with {input, idempotencyKey?, requestedBy?, priority?}`, options.io);
}

/** Looks once more for a version that takes the request: what a refused job had is lost. */
async function refuseUnlessForOthers(job: Job, token: string | undefined, reason: string, options: IntakeOptions): Promise<never> {
  let isLeft: boolean;
  try {
    isLeft = await mayLeave(job, options, { fresh: true });
  } catch (error) {
    return putBack(job, token, error, options);
  }
  return isLeft ? leaveToOthers(job, token, options) : refuse(job, reason, options.io);
}

/** If no other version has taken a request that this one can decide over, this one does. */
async function mayLeave(job: Job, { isForOthers }: IntakeOptions, how?: { fresh: true }): Promise<boolean> {
  const why = (await isForOthers?.(job.name, how)) ?? null;
  return why === 'unknown' || (why === 'differs' && job.attemptsStarted <= TIMES_LEFT_TO_OTHERS);
}

async function leaveToOthers(job: Job, token: string | undefined, { io, log }: IntakeOptions): Promise<never> {
  log.warn({ jobId: job.id, saga: job.name }, 'the definition of this version is not the one that `arcadia migrate` wrote: request left to a newer worker');
  await io('queue', 'move to delayed', () => job.moveToDelayed(Math.round(Date.now() + leftForMs(Math.random())), token));
  throw new DelayedError();
}

/** Tries again later. That is no attempt of the job. */
async function putBack(job: Job, token: string | undefined, error: unknown, { io, log }: IntakeOptions): Promise<never> {
  log.warn({ jobId: job.id, err: error }, 'could not accept the request yet: trying again later');
  const delayMs = error instanceof KeyInProgressError ? KEY_DELAY_MS : OUTAGE_DELAY_MS;
  await io('queue', 'move to delayed', () => job.moveToDelayed(Date.now() + delayMs, token));
  throw new DelayedError();
}

/**
 * Fails a job. It stays in the queue as long as its producer specified, so that people can inspect it: with the names of
 * its fields but without their values, because a malformed request may hold user data anywhere.
 */
async function refuse(job: Job, reason: string, io: Io): Promise<never> {
  await io('queue', 'update data', () => job.updateData({ refused: namesIn(job.data, MAX_NAMED_DEPTH), reason }));
  throw new UnrecoverableError(reason);
}

/**
 * Derives the idempotency key, so that a job that is delivered twice is one request. The job id alone is not unique:
 * Redis counts from 1 again after a flush.
 */
function keyOfJob(job: Job): string {
  const key = `job:${job.timestamp}:${job.id}`;
  return key.length <= 255 ? key : `job:${createHash('sha256').update(key).digest('hex')}`;
}
