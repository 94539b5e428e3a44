// Adds the jobs of sagas to their queues and checks whether an expected job still exists.
import type { Job, Queue } from 'bullmq';
import { z } from 'zod';
import type { Io } from '../platform/io.ts';
import type { LabelsOf } from '../saga/labels.ts';
import type { Direction, NextJob } from '../saga/saga.ts';
import type { Woken } from '../saga/holds.ts';
import type { Memo } from '../saga/step.ts';
import { inTraceOf } from '../platform/tracing.ts';
import type { QueueConnection } from './connection.ts';
import { isMisdated, promote } from './misdated.ts';
import { dueAtOf, jobDataOf, jobIdOf, queueNameOf, queueNames, stepJobSchema } from './jobs.ts';
import type { OnUnreadable } from './unreadable.ts';
import { mayBeUnreadable, removeUnreadable, whyUnreadable } from './unreadable.ts';
import { withTimeLimit } from './time-limit.ts';

export type StepQueues = Readonly<{
  /** Adds a job at the end of its queue. Does nothing if the job exists, in any state. */
  enqueue(job: NextJob): Promise<void>;
  /** Adds the successor of a job that ends now. If due at once, it is the next job taken. */
  follow(job: NextJob): Promise<void>;
  /**
   * Makes sure that a job will run. Keeps a waiting, delayed or active job; replaces one that is finished or missing or
   * cannot be read. A delayed job that is due, or whose due time is impossible, becomes due now.
   *
   * @param now the database's time
   * @returns the memo of the existing job; null if the job had to be created again
   */
  ensure(job: NextJob, now?: Date): Promise<Memo | null>;
  /** Makes a delayed job due now. Replaces a job that is finished or missing or cannot be read. */
  wake(job: NextJob): Promise<Woken>;
  /** Returns a waiting job's counters and why it waits, for people to read; null if there is no such job. */
  peek(job: NextJob): Promise<{ memo: Memo; dueInMs: number; reason?: string | undefined } | null>;
  /** Like {@link peek}, and also which worker has the job and how long it has been due. */
  inspect(job: NextJob): Promise<InspectedJob | null>;
  close(): Promise<void>;
}>;

/**
 * A job in its queue. `reason`: why its step was last postponed. `dueSinceMs`: how long it has been due. `takenBy`: name
 * of the worker that has it (empty: unknown); null: no worker has it.
 */
export type InspectedJob = Readonly<{ memo: Memo; dueInMs: number; dueSinceMs: number; takenBy: string | null; reason?: string | undefined }>;

// Maximum number of lines in a job's log.
const KEEP_LOGS = 50;

/**
 * Opens the queues of steps and compensations for adding jobs.
 *
 * @param connection the queues' own, or the lane of a worker
 * @param options.clock returns the time in Unix milliseconds; needed if `Date.now()` may be wrong, in a process that is
 *   not ours
 * @param options.labelsOf the labels of a saga in its jobs, for people to read; none by default
 * @param options.onUnreadable is told of a job that was removed because it could not be read
 */
export function openStepQueues(connection: Pick<QueueConnection, 'queue'>, io: Io, options: { clock?: () => Promise<number>; labelsOf?: LabelsOf; onUnreadable?: OnUnreadable } = {}): StepQueues {
  const { clock = null, labelsOf, onUnreadable } = options;
  const nowMs = clock ?? (() => Promise.resolve(Date.now()));
  const queues: Record<Direction, Queue> = {
    forward: connection.queue(queueNames.steps),
    backward: connection.queue(queueNames.compensations),
  };

  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> => io('queue', name, () => withTimeLimit(name, operation));

  const add = async (job: NextJob, place: { lifo?: true } = {}) => {
    const timestamp = clock === null ? {} : { timestamp: await clock() };
    const delayMs = Math.max(0, Math.round(job.delayMs));
    // These options are written, read and sent with each job, so its retention is left to the worker's options.
    const jobOptions = {
      jobId: jobIdOf(job),
      keepLogs: KEEP_LOGS,
      ...timestamp,
      ...(delayMs === 0 ? place : { delay: delayMs }),
    };
    await inTraceOf(job.traceparent, () => queues[job.direction].add(job.step, jobDataOf(job, labelsOf), jobOptions));
  };

  return {
    enqueue: (job) => ask(`add ${queueNameOf(job.direction)}`, () => add(job)),
    follow: (job) => ask(`add ${queueNameOf(job.direction)}`, () => add(job, { lifo: true })),
    ensure: async (job, now = new Date()) => {
      const name = queueNameOf(job.direction);
      // Together, as the reconciler asks for thousands: one round trip instead of two.
      const [found, state] = await Promise.all([
        ask(`find in ${name}`, () => findOrRemove(queues[job.direction], job, onUnreadable)),
        ask(`state in ${name}`, () => queues[job.direction].getJobState(jobIdOf(job))),
      ]);
      if (found !== null && state === 'delayed' && isMisdated(found, now.getTime())) await ask(`promote in ${name}`, () => promote(found));
      if (found !== null && isLive(state)) return memoOf(found);
      // The two replies may be from different moments, and a live job must not be removed.
      if (found !== null && isLive(await ask(`state in ${name}`, () => found.getState()))) return memoOf(found);
      // BullMQ would ignore the new job while a finished job with the same id is kept.
      if (found !== null) await ask(`remove from ${name}`, () => found.remove());
      await ask(`add ${name}`, () => add(job));
      return null;
    },
    wake: async (job) => {
      const name = queueNameOf(job.direction);
      const found = await ask(`find in ${name}`, () => findOrRemove(queues[job.direction], job, onUnreadable));
      const state = found === null ? 'gone' : await ask(`state in ${name}`, () => found.getState());
      if (state === 'active') return 'busy';
      // Another process may have promoted it first.
      if (state === 'delayed') await ask(`promote in ${name}`, () => found?.promote().catch(() => undefined) ?? Promise.resolve());
      else if (!isLive(state)) {
        if (found !== null) await ask(`remove from ${name}`, () => found.remove());
        await ask(`add ${name}`, () => add(job));
      }
      return 'woken';
    },
    peek: async (job) => {
      const found = await withTimeLimit('peek', () => findReadable(queues[job.direction], job));
      if (found === null) return null;
      return { memo: memoOf(found), dueInMs: Math.max(0, dueAtOf(found) - (await nowMs())), reason: reasonOf(found) };
    },
    inspect: async (job) => {
      const found = await withTimeLimit('inspect', () => findReadable(queues[job.direction], job));
      if (found === null) return null;
      const state = await withTimeLimit('inspect', () => found.getState());
      const dueInMs = dueAtOf(found) - (await nowMs());
      return { memo: memoOf(found), dueInMs: Math.max(0, dueInMs), dueSinceMs: Math.max(0, -dueInMs), takenBy: state === 'active' ? (found.processedBy ?? '') : null, reason: reasonOf(found) };
    },
    close: async () => {
      await Promise.all(Object.values(queues).map((queue) => queue.close()));
    },
  };
}

/** A queue that was opened while its store was unreachable waits without a limit, whatever the connection's own limits are. */
async function findJob(queue: Queue, job: NextJob): Promise<Job | null> {
  return ((await queue.getJob(jobIdOf(job))) as Job | undefined) ?? null;
}

/** Like {@link findJob}; null for a job that cannot be read. */
async function findReadable(queue: Queue, job: NextJob): Promise<Job | null> {
  try {
    return await findJob(queue, job);
  } catch (error) {
    if (mayBeUnreadable(error) && (await whyUnreadable(queue, jobIdOf(job))) !== null) return null;
    throw error;
  }
}

/** Like {@link findJob}. A job that cannot be read would be in the way of another with its id, so it is removed. */
async function findOrRemove(queue: Queue, job: NextJob, onUnreadable: OnUnreadable | undefined): Promise<Job | null> {
  try {
    return await findJob(queue, job);
  } catch (error) {
    const jobId = jobIdOf(job);
    const why = mayBeUnreadable(error) ? await whyUnreadable(queue, jobId) : null;
    if (why === null || !(await removeUnreadable(queue, jobId))) throw error;
    await onUnreadable?.({ queue: queue.name, jobId, why });
    return null;
  }
}

function isLive(state: string): boolean {
  return state === 'waiting' || state === 'delayed' || state === 'active' || state === 'prioritized' || state === 'waiting-children';
}

function memoOf(job: Job): Memo {
  const parsed = stepJobSchema.safeParse(job.data);
  return parsed.success ? (parsed.data.memo ?? {}) : {};
}

function reasonOf(job: Job): string | undefined {
  return z.object({ reason: z.string().optional().catch(undefined) }).safeParse(job.data).data?.reason;
}
