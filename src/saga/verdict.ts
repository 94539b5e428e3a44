// What a job asks for, and what the queue has to do with it after it was run.
import type { LoadedSaga } from './loaded.ts';
import type { NextJob } from './saga.ts';
import { nextJobOf } from './saga.ts';
import type { Memo } from './step.ts';

/** What a job says: look at this saga, if it is still at this revision. `step`: what it was made for, by its own word. */
export type JobClaim = Readonly<{ sagaId: string; revision: number; memo: Memo; step?: string | undefined }>;

/** What the queue has to do with the job, after it was run. */
export type Verdict =
  /** Enqueue this job, then complete the current one. */
  | Readonly<{ kind: 'next'; job: NextJob; note: string }>
  /** The same job again, later; nothing was written. */
  | Readonly<{ kind: 'postpone'; delayMs: number; memo: Memo; note: string }>
  /** Complete the job: nothing follows. */
  | Readonly<{ kind: 'complete'; note: string }>;

/** Enqueues the job, where there is one, and completes the current one. */
export function next(job: NextJob | null, note: string): Verdict {
  return job === null ? { kind: 'complete', note } : { kind: 'next', job, note };
}

/** The job is late. Make sure that the one which is due now exists: whoever moved the saga may have died before enqueueing it. */
export function supersededBy(current: LoadedSaga, revision: number): Verdict {
  const note = `revision ${revision} is past: the saga is at ${current.saga.revision}, ${current.saga.status}`;
  return next(nextJobOf(current.saga, current.dueInMs), note);
}
