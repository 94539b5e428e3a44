// The workers: each job of a step is handed to the engine, and the engine's verdict is carried out on the queue.
import type { Job, Worker } from 'bullmq';
import { DelayedError, MetricsTime, UnrecoverableError } from 'bullmq';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import type { JobClaim, Verdict } from '../saga/verdict.ts';
import type { LabelsOf } from '../saga/labels.ts';
import type { NextJob } from '../saga/saga.ts';
import { shorten } from '../platform/text.ts';
import { annotate } from '../platform/tracing.ts';
import type { Lane, QueueConnection } from './connection.ts';
import { jobLine } from './job-lines.ts';
import { dueAtOf, isStepJobId, jobIdOf, queueNameOf, queueNames, stepJobSchema } from './jobs.ts';
import type { StepQueues } from './step-queues.ts';
import { openStepQueues } from './step-queues.ts';

export type WorkerSettings = Readonly<{
  concurrency: number;
  lockMs: number;
  /** Stands on every job that the worker takes, for people to see who has it. */
  name?: string;
}>;

// A worker that cannot reach Postgres leaves the job for later, at most so late.
const OUTAGE_DELAY_MS = 1_000;

// Only ever an upper bound: a job lost to stalls is made again by the reconciler.
const MAX_STALLED_COUNT = 10;

// The job's log is for people: no job waits long for it.
const LOG_WITHIN_MS = 1_000;

// What stands in a job is read with every look at the queue.
const MAX_NOTE_LENGTH = 1_000;

// Kept for people to look at on the dashboard; the truth about sagas is in Postgres.
const kept = { removeOnComplete: { age: 24 * 3_600, count: 2_000 }, removeOnFail: { age: 14 * 24 * 3_600, count: 5_000 } };

// Two intervals may pass between two checks of a queue: a check holds off all others for one interval, and a worker whose
// timer fires just before that is over skips its own and sleeps for another one.
const INTERVALS_BETWEEN_CHECKS = 2;
const CHECKS_A_LOCK = 8;

/** How often a worker looks for jobs of the dead, in milliseconds. */
function stalledIntervalMs(lockMs: number): number {
  return Math.max(100, Math.round(lockMs / CHECKS_A_LOCK));
}

/** By when the job of a worker that died is waiting again, in milliseconds after its death: 37.5 s by default. */
export function takeoverWithinMs(lockMs: number): number {
  return lockMs + INTERVALS_BETWEEN_CHECKS * stalledIntervalMs(lockMs);
}

/** What all kinds of workers are made with. */
export function workerOptions(settings: WorkerSettings) {
  return {
    ...(settings.name === undefined ? {} : { name: settings.name }),
    concurrency: settings.concurrency,
    lockDuration: settings.lockMs,
    stalledInterval: stalledIntervalMs(settings.lockMs),
    maxStalledCount: MAX_STALLED_COUNT,
    // BullMQ waits this long before it tries again to tell its store of a finished job. Default: 15 s.
    runRetryDelay: 1_000,
    // Counts what was completed and failed, for the metrics and the dashboard: a point a minute.
    metrics: { maxDataPoints: MetricsTime.ONE_WEEK },
  };
}

type StepWorkerOptions = Readonly<{
  settings: WorkerSettings;
  queues: StepQueues;
  /** What the jobs that follow tell of their sagas. */
  labelsOf?: LabelsOf;
  /** Hands a job to the engine; throws when it could not be decided (Postgres is away). */
  run: (claim: JobClaim) => Promise<Verdict>;
  /** Told how long after it was due each job was taken, in milliseconds. Must not throw. */
  onTaken?: (queue: string, lateMs: number) => void;
  io: Io;
  log: Log;
}>;

/** Starts the workers of both step queues. */
export function startStepWorkers(connection: QueueConnection, options: StepWorkerOptions): Worker[] {
  const { settings, log } = options;
  return [queueNames.steps, queueNames.compensations].map((name) => {
    const worker: Worker = connection.worker(
      name,
      (job, token) => {
        const parsed = stepJobSchema.safeParse(job.data);
        // Both by the database's clock: see src/platform/clock.ts.
        options.onTaken?.(name, Math.max(0, Date.now() - dueAtOf(job, parsed.data)));
        annotate({ 'messaging.system': 'bullmq', 'messaging.operation.type': 'process', 'messaging.destination.name': name });
        return processJob(job, { parsed, token, options, enqueueNext });
      },
      { ...workerOptions(settings), ...kept },
    );
    const enqueueNext = openEnqueueNext(name, connection.laneOf(worker), options);
    worker.on('failed', (job, error) => log.warn({ queue: name, jobId: job?.id, reason: error.message }, 'job failed'));
    worker.on('lockRenewalFailed', (jobIds) => log.warn({ queue: name, jobIds }, 'lost the lock: another worker may take over'));
    return worker;
  });
}

/** Enqueues the job that follows. */
type EnqueueNext = (next: NextJob) => Promise<void>;

/**
 * What was decided is written: where the queue is away, the reconciler enqueues the job once it is overdue. So down a
 * worker's own lane nobody waits for the queue's word: the job that follows is there before this one is finished, as the
 * store is told so in that order.
 */
function openEnqueueNext(queueName: string, lane: Lane | null, { queues, labelsOf, io, log }: StepWorkerOptions): EnqueueNext {
  const warn = (next: NextJob) => (error: unknown) => {
    log.warn({ sagaId: next.sagaId, err: error }, 'could not enqueue the next job: the reconciler will');
  };
  if (lane === null) return async (next) => queues.enqueue(next).catch(warn(next));
  const laned = openStepQueues(lane, io, labelsOf === undefined ? {} : { labelsOf });
  return async (next) => {
    // In the place of the one that ends: of what comes from elsewhere, none is put off by it.
    const follows = queueNameOf(next.direction) === queueName;
    (follows ? laned.follow(next) : laned.enqueue(next)).catch(warn(next));
    await lane.sent();
  };
}

type Processing = Readonly<{ parsed: ReturnType<typeof stepJobSchema.safeParse>; token: string | undefined; options: StepWorkerOptions; enqueueNext: EnqueueNext }>;

async function processJob(job: Job, { parsed, token, options, enqueueNext }: Processing): Promise<string> {
  if (!parsed.success) {
    throw new UnrecoverableError(`not a job of a saga: ${sentenceOf(problemsOf(parsed.error.issues, 'data'))}. Nothing was done. Remove it: sagas are started by the queue ${queueNames.intake}, and make their own jobs`);
  }
  const { sagaId, revision, step, memo = {} } = parsed.data;
  // Edited by hand, it would run for another saga, and its own would wait: the reconciler leaves a saga alone that has a live job.
  if (isStepJobId(job.id) && job.id !== jobIdOf(parsed.data)) {
    throw new UnrecoverableError(
      `the job was edited: its id says ${job.id}, its data say ${jobIdOf(parsed.data)}. Nothing was done. Remove it: its saga gets a new job by itself`,
    );
  }
  let verdict: Verdict;
  try {
    verdict = await options.run({ sagaId, revision, memo, step });
  } catch (error) {
    // Nothing was decided, so nothing is lost. The job stays the same, and so do the saga's attempts.
    options.log.warn({ sagaId, jobId: job.id, err: error }, 'job could not be run: left for later');
    // Only its name: nobody knows what an error that was not expected says.
    const note = `nothing could be decided (${error instanceof Error ? error.name : 'Error'}): tried again; the log of worker ${options.settings.name ?? ''} says why`;
    verdict = { kind: 'postpone', delayMs: OUTAGE_DELAY_MS, memo, note };
  }
  switch (verdict.kind) {
    case 'complete':
      return shorten(verdict.note, MAX_NOTE_LENGTH);
    case 'next':
      await enqueueNext(verdict.job);
      return shorten(verdict.note, MAX_NOTE_LENGTH);
    case 'postpone':
      return postpone(job, token, { ...verdict, note: shorten(verdict.note, MAX_NOTE_LENGTH) }, { io: options.io, reasonBefore: parsed.data.reason });
    default:
      return verdict satisfies never;
  }
}

/** The same job again, later: it leaves the worker's hands and waits in the queue, where it holds no slot. */
async function postpone(
  job: Job,
  token: string | undefined,
  verdict: Extract<Verdict, { kind: 'postpone' }>,
  { io, reasonBefore }: { io: Io; reasonBefore: string | undefined },
): Promise<never> {
  const decidedAt = Date.now();
  const dueAt = Math.round(decidedAt + verdict.delayMs);
  await io('queue', 'update data', () => job.updateData({ ...job.data, memo: verdict.memo, dueAt, reason: verdict.note }));
  await io('queue', 'move to delayed', () => job.moveToDelayed(dueAt, token));
  // A poll like the one before it has nothing to tell.
  if (verdict.note !== reasonBefore) await writeToLog(job, jobLine(new Date(decidedAt), verdict.note), io);
  throw new DelayedError();
}

/**
 * Tells the dashboard why a job was put back, once it is. (What a job ended with is in Postgres: see job-lines.ts.)
 * Without it a job runs just as well: no failure of it counts.
 */
async function writeToLog(job: Job, line: string, io: Io): Promise<void> {
  try {
    await io('queue', 'log', () => withDeadline(LOG_WITHIN_MS, job.log(line), () => new Error('the log was not written in time')));
  } catch {
    // Everything that matters is done.
  }
}
