// A saga as read from the database, with the database's clock and data that is not part of the saga.
import type { Saga } from './saga.ts';
import type { Memo } from './step.ts';
import type { WrittenDefinition } from './written-definitions.ts';

/**
 * A saga as read, with the database's clock at that moment. `dueInMs`: time until its current job is due; at least 0.
 * `inputChecked`: the input was validated against the saga's schema.
 */
export type LoadedSaga = Readonly<{ saga: Saga; now: Date; dueInMs: number; memo: Memo; inputChecked: boolean }>;

/** A saga as claimed by a job. */
export type ClaimedSaga = LoadedSaga &
  Readonly<{
    /** Whether the claim holds: the saga is at the job's revision, or this claim moved it from there to running. */
    stands: boolean;
    /** Milliseconds since this was true, by this process's clock; 0 if it was read just now. */
    ageMs: number;
    /** The definition that `migrate` wrote, if the saga is not admitted yet. */
    written?: WrittenDefinition;
  }>;
