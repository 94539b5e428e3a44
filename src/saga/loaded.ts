// A saga as it was read: with the database's clock, and what is not the saga's own.
import type { Saga } from './saga.ts';
import type { Memo } from './step.ts';

/**
 * A saga as it was read, with the database's clock at that moment. `dueInMs`: when its current job is due, from then;
 * not below 0. `inputChecked`: the input was held against the saga's schema.
 */
export type LoadedSaga = Readonly<{ saga: Saga; now: Date; dueInMs: number; memo: Memo; inputChecked: boolean }>;

/** A saga as a job claims it. */
export type ClaimedSaga = LoadedSaga &
  Readonly<{
    /** Whether the job's claim stands: the saga is at the job's revision, or was moved from it to running by this very claim. */
    stands: boolean;
    /** How long ago this was so, in milliseconds by this process's clock; 0 when it was read just now. */
    ageMs: number;
  }>;
