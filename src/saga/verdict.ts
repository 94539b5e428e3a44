// A job's request, and what the queue does with the job after it ran.
import type { LoadedSaga } from './loaded.ts';
import type { NextJob } from './saga.ts';
import { nextJobOf } from './saga.ts';
import type { Memo } from './step.ts';

/**
 * A job's claim: "check this saga if it is still at this revision". `step`: the step it was created for, according to the
 * job.
 */
export type JobClaim = Readonly<{ sagaId: string; revision: number; memo: Memo; step?: string | undefined }>;

/** What the queue does with a job after it ran. */
export type Verdict =
  /** Enqueue this job, then complete the current one. */
  | Readonly<{ kind: 'next'; job: NextJob; note: string }>
  /** Run the same job again later. Nothing was written. */
  | Readonly<{ kind: 'postpone'; delayMs: number; memo: Memo; note: string }>
  /** Complete the job. Nothing follows. */
  | Readonly<{ kind: 'complete'; note: string }>;

/** Enqueues the job, if there is one, and completes the current one. */
export function next(job: NextJob | null, note: string): Verdict {
  return job === null ? { kind: 'complete', note } : { kind: 'next', job, note };
}

/**
 * The job is late. Make sure that the current job exists: the process that moved the saga on may have died before it
 * enqueued the job.
 */
export function supersededBy(current: LoadedSaga, revision: number): Verdict {
  const note = `revision ${revision} is outdated: the saga is at revision ${current.saga.revision}, ${current.saga.status}`;
  return next(nextJobOf(current.saga, current.dueInMs), note);
}
