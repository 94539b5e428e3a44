// Puts the jobs of sagas into their queues, and finds out whether one that should be there still is.
import type { Job, Queue } from 'bullmq';
import { z } from 'zod';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import type { LabelsOf } from '../saga/labels.ts';
import type { Direction, NextJob } from '../saga/saga.ts';
import type { Woken } from '../saga/holds.ts';
import type { Memo } from '../saga/step.ts';
import { inTraceOf } from '../platform/tracing.ts';
import type { QueueConnection } from './connection.ts';
import { QueueStoreError } from './connection.ts';
import { isMisdated, promote } from './misdated.ts';
import { dueAtOf, jobDataOf, jobIdOf, queueNameOf, queueNames, stepJobSchema } from './jobs.ts';

export type StepQueues = Readonly<{
  /** Adds a job at the end of its queue; does nothing when it is there already, in whatever state. */
  enqueue(job: NextJob): Promise<void>;
  /** Adds the job that follows one that ends now: where it is due at once, it is the next to be taken. */
  follow(job: NextJob): Promise<void>;
  /**
   * Makes sure that a job is going to run: leaves one that is waiting, delayed or active, and puts a new one in the
   * place of one that is finished or gone. A delayed one that is due, or can't be due when it says, is due now.
   *
   * @param now the database's time
   * @returns the memo of the job that was found; null when it had to be made again
   */
  ensure(job: NextJob, now?: Date): Promise<Memo | null>;
  /** Makes a job that is delayed due now, and puts a new one in the place of one that is finished or gone. */
  wake(job: NextJob): Promise<Woken>;
  /** The counters of a waiting job and why it waits, for people to see; null when there is no such job. */
  peek(job: NextJob): Promise<{ memo: Memo; dueInMs: number; reason?: string | undefined } | null>;
  /** The same, and whether a worker has it: who, how long it has been due. */
  inspect(job: NextJob): Promise<InspectedJob | null>;
  close(): Promise<void>;
}>;

/**
 * A job as its queue has it. `reason`: why its step was put off the last time. `dueSinceMs`: how long it has been due. `takenBy`:
 * the worker that has it, by its name (empty: not known); null: none has.
 */
export type InspectedJob = Readonly<{ memo: Memo; dueInMs: number; dueSinceMs: number; takenBy: string | null; reason?: string | undefined }>;

const TIME_LIMIT_MS = 5_000;

// Lines that a job's log keeps.
const KEEP_LOGS = 50;

/**
 * Opens the queues of steps and compensations for adding.
 *
 * @param connection the queues' own, or the lane of a worker
 * @param options.clock tells the time in Unix milliseconds, where `Date.now()` may be wrong: in a process that is not our own
 * @param options.labelsOf what jobs tell of their sagas, for people to read; nothing where left out
 */
export function openStepQueues(connection: Pick<QueueConnection, 'queue'>, io: Io, options: { clock?: () => Promise<number>; labelsOf?: LabelsOf } = {}): StepQueues {
  const { clock = null, labelsOf } = options;
  const nowMs = clock ?? (() => Promise.resolve(Date.now()));
  const queues: Record<Direction, Queue> = {
    forward: connection.queue(queueNames.steps),
    backward: connection.queue(queueNames.compensations),
  };

  const ask = <T>(name: string, operation: () => Promise<T>): Promise<T> => io('queue', name, () => withTimeLimit(name, operation));

  const add = async (job: NextJob, place: { lifo?: true } = {}) => {
    const timestamp = clock === null ? {} : { timestamp: await clock() };
    const delayMs = Math.max(0, Math.round(job.delayMs));
    // What stands here is written, read and sent along with each job: how long it is kept, its worker says.
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
      const found = await ask(`find in ${name}`, () => findJob(queues[job.direction], job));
      const state = found === null ? null : await ask(`state in ${name}`, () => found.getState());
      if (found !== null && state === 'delayed' && isMisdated(found, now.getTime())) await ask(`promote in ${name}`, () => promote(found));
      if (found !== null && state !== null && isLive(state)) return memoOf(found);
      // A finished job that is still kept would swallow the one to be added.
      if (found !== null) await ask(`remove from ${name}`, () => found.remove());
      await ask(`add ${name}`, () => add(job));
      return null;
    },
    wake: async (job) => {
      const name = queueNameOf(job.direction);
      const found = await ask(`find in ${name}`, () => findJob(queues[job.direction], job));
      const state = found === null ? 'gone' : await ask(`state in ${name}`, () => found.getState());
      if (state === 'active') return 'busy';
      // Somebody else may have been quicker.
      if (state === 'delayed') await ask(`promote in ${name}`, () => found?.promote().catch(() => undefined) ?? Promise.resolve());
      else if (!isLive(state)) {
        if (found !== null) await ask(`remove from ${name}`, () => found.remove());
        await ask(`add ${name}`, () => add(job));
      }
      return 'woken';
    },
    peek: async (job) => {
      const found = await withTimeLimit('peek', () => findJob(queues[job.direction], job));
      if (found === null) return null;
      return { memo: memoOf(found), dueInMs: Math.max(0, dueAtOf(found) - (await nowMs())), reason: reasonOf(found) };
    },
    inspect: async (job) => {
      const found = await withTimeLimit('inspect', () => findJob(queues[job.direction], job));
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

/** A queue that was opened while its store was away waits for it without a limit, whatever the connection's own limits are. */
function withTimeLimit<T>(name: string, operation: () => Promise<T>): Promise<T> {
  return withDeadline(TIME_LIMIT_MS, operation(), () => new QueueStoreError(`${name}: the queue store did not answer within ${TIME_LIMIT_MS} ms`));
}

async function findJob(queue: Queue, job: NextJob): Promise<Job | null> {
  return ((await queue.getJob(jobIdOf(job))) as Job | undefined) ?? null;
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
