// How requests and sagas that may be meant for another version are left to its workers. Which worker takes the job next is random,
// so there are many short waits, out of step with those of other workers.

const LEFT_FOR_MS = { min: 500, max: 1_500 };

/** So many waits take about thirty seconds. After that, nobody else seems to be there. */
export const TIMES_LEFT_TO_OTHERS = 30;

/** Returns the length of one wait in milliseconds, for a random number from 0 to 1. */
export function leftForMs(random: number): number {
  return LEFT_FOR_MS.min + (LEFT_FOR_MS.max - LEFT_FOR_MS.min) * random;
}
