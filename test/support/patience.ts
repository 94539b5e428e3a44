// How slow this machine is. A deadline says that something never comes, not how quick it is: a test that measures asserts what
// it measured. On a machine that takes four times as long to start a process, a test waits four times as long before it
// gives up.
import { spawnSync } from 'node:child_process';

// Milliseconds that a process of Node.js takes to start and end on a machine of this decade that has nothing else to do.
const USUAL_START_MS = 50;
const MOST = 8;

// Told to the test files, and to the processes that they start.
const VARIABLE = 'ARCADIA_TEST_PATIENCE';

/** Measures it, once a run. */
export function measurePatience(): void {
  const starts = [1, 2, 3, 4, 5].map(() => {
    const begun = performance.now();
    spawnSync(process.execPath, ['--eval', '0']);
    return performance.now() - begun;
  });
  const median = starts.toSorted((one, other) => one - other)[2] ?? USUAL_START_MS;
  process.env[VARIABLE] = Math.min(MOST, Math.max(1, median / USUAL_START_MS)).toFixed(1);
}

/** By how much deadlines are longer here: 1 on a usual machine. */
export function patience(): number {
  return Number(process.env[VARIABLE] ?? 1);
}
