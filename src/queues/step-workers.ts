// The workers. Each hands a step's job to the engine and applies the engine's verdict to the queue.
import type { Job, Worker } from 'bullmq';
import { DelayedError, MetricsTime, UnrecoverableError } from 'bullmq';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import type { JobClaim, Verdict } from '../saga/verdict.ts';
import type { LabelsOf } from '../saga/labels.ts';
import type { NextJob } from '../saga/saga.ts';
import { shorten, withoutUnstorable } from '../platform/text.ts';
import { annotate } from '../platform/tracing.ts';
import type { Lane, QueueConnection } from './connection.ts';
import { jobLine } from './job-lines.ts';
import { dueAtOf, isStepJobId, jobIdOf, parseStepJob, queueNameOf, queueNames } from './jobs.ts';
import type { StepQueues } from './step-queues.ts';
import { openStepQueues } from './step-queues.ts';

export type WorkerSettings = Readonly<{
  concurrency: number;
  lockMs: number;
  /** Recorded on every job the worker takes, so that people see which worker has it. */
  name?: string;
}>;

// Longest delay of a job whose worker cannot reach Postgres.
const OUTAGE_DELAY_MS = 1_000;

// Only an upper bound. The reconciler recreates a job that was lost to stalls.
const MAX_STALLED_COUNT = 10;

// The job's log is for people, so no job waits long for it.
const LOG_WITHIN_MS = 1_000;

// Every read of the queue reads the jobs' data.
const MAX_NOTE_LENGTH = 1_000;

// Kept for people to inspect on the dashboard. The truth about sagas is in Postgres.
const kept = { removeOnComplete: { age: 24 * 3_600, count: 2_000 }, removeOnFail: { age: 14 * 24 * 3_600, count: 5_000 } };

// Up to two intervals may pass between two checks of a queue. A check blocks all others for one interval. A worker whose
// timer fires just before that ends skips its own check and sleeps for another interval.
const INTERVALS_BETWEEN_CHECKS = 2;
const CHECKS_A_LOCK = 8;

/** How often a worker looks for jobs of dead workers, in milliseconds. */
function stalledIntervalMs(lockMs: number): number {
  return Math.max(100, Math.round(lockMs / CHECKS_A_LOCK));
}

/** The time within which a dead worker's job is waiting again, in milliseconds after the worker's death: 37.5 s by default. */
export function takeoverWithinMs(lockMs: number): number {
  return lockMs + INTERVALS_BETWEEN_CHECKS * stalledIntervalMs(lockMs);
}

/** The options shared by all kinds of workers. */
export function workerOptions(settings: WorkerSettings) {
  return {
    ...(settings.name === undefined ? {} : { name: settings.name }),
    concurrency: settings.concurrency,
    lockDuration: settings.lockMs,
    stalledInterval: stalledIntervalMs(settings.lockMs),
    maxStalledCount: MAX_STALLED_COUNT,
    // How long BullMQ waits before it retries to report a finished job to its store. Default: 15 s.
    runRetryDelay: 1_000,
    // Counts completed and failed jobs per minute, for the metrics and the dashboard.
    metrics: { maxDataPoints: MetricsTime.ONE_WEEK },
  };
}

type StepWorkerOptions = Readonly<{
  settings: WorkerSettings;
  queues: StepQueues;
  /** The labels of a saga in the jobs that follow. */
  labelsOf?: LabelsOf;
  /** Hands a job to the engine. Throws if no verdict was possible (Postgres is unreachable). */
  run: (claim: JobClaim) => Promise<Verdict>;
  /** Called with the delay between due time and start of each job, in milliseconds. Must not throw. */
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
        const parsed = parseStepJob(job.data);
        // Both times are by the database's clock: see src/platform/clock.ts.
        options.onTaken?.(name, Math.max(0, Date.now() - dueAtOf(job, parsed.data)));
        annotate(() => ({ 'messaging.system': 'bullmq', 'messaging.operation.type': 'process', 'messaging.destination.name': name }));
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
 * The verdict is already committed. If the queue is unreachable, the reconciler enqueues the job once it is overdue. So
 * on a worker's own lane nothing waits for the queue's reply. The store receives the two commands in order, so the next
 * job exists before this one is finished.
 */
function openEnqueueNext(queueName: string, lane: Lane | null, { queues, labelsOf, io, log }: StepWorkerOptions): EnqueueNext {
  const warn = (next: NextJob) => (error: unknown) => {
    log.warn({ sagaId: next.sagaId, err: error }, 'could not enqueue the next job: the reconciler will');
  };
  if (lane === null) return async (next) => queues.enqueue(next).catch(warn(next));
  const laned = openStepQueues(lane, io, labelsOf === undefined ? {} : { labelsOf });
  return async (next) => {
    // The next job takes the place of the one that ends, so it does not delay jobs from elsewhere.
    const follows = queueNameOf(next.direction) === queueName;
    (follows ? laned.follow(next) : laned.enqueue(next)).catch(warn(next));
    await lane.sent();
  };
}

type Processing = Readonly<{ parsed: ReturnType<typeof parseStepJob>; token: string | undefined; options: StepWorkerOptions; enqueueNext: EnqueueNext }>;

async function processJob(job: Job, { parsed, token, options, enqueueNext }: Processing): Promise<string> {
  if (!parsed.success) {
    throw new UnrecoverableError(`not a job of a saga: ${sentenceOf(problemsOf(parsed.error.issues, 'data'))}. Nothing was done. Remove it: sagas are started by the queue ${queueNames.intake}, and make their own jobs`);
  }
  const { sagaId, revision, step, memo = {} } = parsed.data;
  // If its data were edited by hand, the job would run for another saga and its own saga would wait: the reconciler skips
  // a saga that has a live job.
  if (job.id !== jobIdOf(parsed.data) && isStepJobId(job.id)) {
    throw new UnrecoverableError(
      `the job was edited: its id says ${job.id}, its data say ${jobIdOf(parsed.data)}. Nothing was done. Remove it: its saga gets a new job by itself`,
    );
  }
  let verdict: Verdict;
  try {
    verdict = await options.run({ sagaId, revision, memo, step });
  } catch (error) {
    // No verdict was committed, so nothing is lost. The job stays the same, and so does the saga's attempt count.
    options.log.warn({ sagaId, jobId: job.id, err: error }, 'could not run the job: trying again later');
    // Logs only the error's name: an unexpected error may contain anything.
    const note = `could not run the step (${error instanceof Error ? error.name : 'Error'}): retrying; see the log of worker ${options.settings.name ?? ''}`;
    verdict = { kind: 'postpone', delayMs: OUTAGE_DELAY_MS, memo, note };
  }
  switch (verdict.kind) {
    case 'complete':
      return shorten(verdict.note, MAX_NOTE_LENGTH);
    case 'next':
      await enqueueNext(verdict.job);
      return shorten(verdict.note, MAX_NOTE_LENGTH);
    case 'postpone':
      return postpone(job, token, { ...verdict, note: withoutUnstorable(shorten(verdict.note, MAX_NOTE_LENGTH)) }, { io: options.io, reasonBefore: parsed.data.reason });
    default:
      return verdict satisfies never;
  }
}

/** Delays the same job. It leaves the worker and waits in the queue, where it occupies no slot. */
async function postpone(
  job: Job,
  token: string | undefined,
  verdict: Extract<Verdict, { kind: 'postpone' }>,
  { io, reasonBefore }: { io: Io; reasonBefore: string | undefined },
): Promise<never> {
  const decidedAt = Date.now();
  const since = performance.now();
  const dueAt = Math.round(decidedAt + verdict.delayMs);
  await io('queue', 'update data', () => job.updateData({ ...job.data, memo: verdict.memo, dueAt, reason: verdict.note }));
  // If the clock was set right meanwhile, `dueAt` is of the wrong one, and the difference would be the job's delay.
  await io('queue', 'move to delayed', () => job.moveToDelayed(Math.round(Date.now() + Math.max(0, verdict.delayMs - (performance.now() - since))), token));
  // A poll with the same reason as the last one needs no new line.
  if (verdict.note !== reasonBefore) await writeToLog(job, jobLine(new Date(decidedAt), verdict.note), io);
  throw new DelayedError();
}

/**
 * Logs why a job was postponed, once it is, for the dashboard. (Postgres has the outcome of a finished job: see
 * job-lines.ts.) The job does not depend on its log, so failures are ignored.
 */
async function writeToLog(job: Job, line: string, io: Io): Promise<void> {
  try {
    await io('queue', 'log', () => withDeadline(LOG_WITHIN_MS, job.log(line), () => new Error('the log was not written in time')));
  } catch {
    // The job's outcome does not depend on its log.
  }
}
