// The intake: what other backends put into the queue `sagas` becomes a saga. The contract is in docs; a malformed job
// fails at once, with the reason on it.
import { createHash } from 'node:crypto';
import type { Job, Worker } from 'bullmq';
import { DelayedError, UnrecoverableError } from 'bullmq';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import type { StartRequest, StartedSaga, Starter } from '../saga/start.ts';
import { IdempotencyConflictError, InvalidRequestError } from '../saga/start.ts';
import { shorten } from '../platform/text.ts';
import type { QueueConnection } from './connection.ts';
import { acceptedJobSchema, intakeJobSchema, queueNames, refusedJobSchema } from './jobs.ts';
import type { WorkerSettings } from './step-workers.ts';
import { workerOptions } from './step-workers.ts';

// The queue store does not tell one producer from another. Sagas of other channels are found, so that a request can be
// repeated over another one.
const QUEUE: Starter = { name: 'queue', mayRead: true, isShared: true };

const OUTAGE_DELAY_MS = 1_000;

const MAX_REASON_LENGTH = 2_000;
// The request, and its input.
const MAX_NAMED_DEPTH = 2;
const MAX_NAMES = 50;
const MAX_NAME_LENGTH = 100;

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
    // Whether it was we who refused it, nobody knows: what looks like a refused job may have been sent with values.
    const reason = shorten(refused.data.reason, MAX_REASON_LENGTH);
    await options.io('queue', 'update data', () => job.updateData({ refused: namesIn(refused.data.refused, MAX_NAMED_DEPTH), reason }));
    throw new UnrecoverableError(`refused before, and its values were removed: send a new request (${reason})`);
  }
  const parsed = intakeJobSchema.safeParse(job.data);
  if (!parsed.success) {
    return refuse(job, `expected {input, idempotencyKey?, requestedBy?}: ${sentenceOf(problemsOf(parsed.error.issues, 'data'))}`, options.io);
  }
  const { input, idempotencyKey = keyOfJob(job), requestedBy } = parsed.data;
  let started: StartedSaga;
  try {
    started = await options.start({ name: job.name, input, idempotencyKey, requestedBy, starter: QUEUE });
  } catch (error) {
    if (error instanceof InvalidRequestError || error instanceof IdempotencyConflictError) return refuse(job, error.message, options.io);
    options.log.warn({ jobId: job.id, err: error }, 'request could not be accepted yet: left for later');
    await options.io('queue', 'move to delayed', () => job.moveToDelayed(Date.now() + OUTAGE_DELAY_MS, token));
    throw new DelayedError();
  }
  await options.io('queue', 'update data', () => job.updateData({ sagaId: started.sagaId }));
  return { sagaId: started.sagaId };
}

/**
 * A refused job stays for as long as its producer says, for people to look at: with the names of its fields, and without
 * their values. User data may stand anywhere in a request that is not as it should be.
 */
async function refuse(job: Job, reason: string, io: Io): Promise<never> {
  await io('queue', 'update data', () => job.updateData({ refused: namesIn(job.data, MAX_NAMED_DEPTH), reason }));
  throw new UnrecoverableError(reason);
}

const mark = /^\[(?:an object|a list of \d{1,9}|a (?:string|number|boolean)|null|\d{1,9} more fields)\]$/;

/** The first names of fields, with the types of their values; what this function returned stays as it is. */
function namesIn(value: unknown, depth: number): unknown {
  if (typeof value === 'string' && mark.test(value)) return value;
  if (Array.isArray(value)) return `[a list of ${value.length}]`;
  if (typeof value !== 'object' || value === null) return value === null ? '[null]' : `[a ${typeof value}]`;
  if (depth === 0) return '[an object]';
  const entries = Object.entries(value);
  const named = entries.slice(0, MAX_NAMES).map(([name, entry]) => [shorten(name, MAX_NAME_LENGTH), namesIn(entry, depth - 1)] as const);
  return Object.fromEntries(entries.length > MAX_NAMES ? [...named, ['…', `[${entries.length - MAX_NAMES} more fields]`]] : named);
}

/** A job that is delivered twice is one request. Its id alone won't do: Redis counts from 1 again after it was flushed. */
function keyOfJob(job: Job): string {
  const key = `job:${job.timestamp}:${job.id}`;
  return key.length <= 255 ? key : `job:${createHash('sha256').update(key).digest('hex')}`;
}
