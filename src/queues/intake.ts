// The intake: what other backends put into the queue `sagas` becomes a saga. The contract is in docs; a malformed job
// fails at once, with the reason on it.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Job, Worker } from 'bullmq';
import { DelayedError, UnrecoverableError } from 'bullmq';
import type { Io } from '../io.ts';
import type { Log } from '../log.ts';
import type { StartRequest, StartedSaga } from '../saga/start.ts';
import { IdempotencyConflictError, InvalidRequestError } from '../saga/start.ts';
import type { QueueConnection } from './connection.ts';
import { redactUserData } from '../saga/redact.ts';
import { acceptedJobSchema, intakeJobSchema, queueNames, refusedJobSchema } from './jobs.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';

const OUTAGE_DELAY_MS = 1_000;

/** Starts the worker of the intake queue. `start` inserts the saga and enqueues its first job. */
export function startIntakeWorker(
  connection: QueueConnection,
  options: { settings: WorkerSettings; start: (request: StartRequest) => Promise<StartedSaga>; io: Io; log: Log },
): Worker {
  const worker = connection.worker(queueNames.intake, (job, token) => accept(job, token, options), workerOptions(options.settings));
  worker.on('failed', (job, error) => options.log.warn({ queue: queueNames.intake, jobId: job?.id, reason: error.message }, 'request refused'));
  return worker;
}

async function accept(
  job: Job,
  token: string | undefined,
  options: { start: (request: StartRequest) => Promise<StartedSaga>; io: Io; log: Log },
): Promise<{ sagaId: string }> {
  const accepted = acceptedJobSchema.safeParse(job.data);
  if (accepted.success) return accepted.data;
  const refused = refusedJobSchema.safeParse(job.data);
  if (refused.success) {
    throw new UnrecoverableError(`refused before, and its user_data was removed: send a new request (${refused.data.reason})`);
  }
  const parsed = intakeJobSchema.safeParse(job.data);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'data'}: ${issue.message}`);
    return refuse(job, `expected {input, idempotencyKey?, requestedBy?}: ${problems.join('; ')}`, options.io);
  }
  const { input, idempotencyKey = keyOfJob(job), requestedBy } = parsed.data;
  let started: StartedSaga;
  try {
    started = await options.start({ name: job.name, input, idempotencyKey, requestedBy });
  } catch (error) {
    if (error instanceof InvalidRequestError || error instanceof IdempotencyConflictError) return refuse(job, error.message, options.io);
    options.log.warn({ jobId: job.id, err: error }, 'request could not be accepted yet: left for later');
    await options.io('queue', 'move to delayed', () => job.moveToDelayed(Date.now() + OUTAGE_DELAY_MS, token));
    throw new DelayedError();
  }
  await options.io('queue', 'update data', () => job.updateData({ sagaId: started.sagaId }));
  return { sagaId: started.sagaId };
}

/** A refused job stays for as long as its producer says, for people to look at: without the user data that it may have brought. */
async function refuse(job: Job, reason: string, io: Io): Promise<never> {
  // A text is no request, and may be one that was encoded twice.
  const kept: unknown = typeof job.data === 'string' ? null : redactUserData(job.data);
  if (!isDeepStrictEqual(kept, job.data)) await io('queue', 'update data', () => job.updateData({ refused: kept, reason }));
  throw new UnrecoverableError(reason);
}

/** A job that is delivered twice is one request. Its id alone won't do: Redis counts from 1 again after it was flushed. */
function keyOfJob(job: Job): string {
  const key = `job:${job.timestamp}:${job.id}`;
  return key.length <= 255 ? key : `job:${createHash('sha256').update(key).digest('hex')}`;
}
