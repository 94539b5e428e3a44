// Measures how slow this machine is. A deadline detects that something never happens; it does not measure speed. (A test of speed
// asserts on what it measured.) On a machine that starts a process four times slower, tests wait four times longer.
import { spawnSync } from 'node:child_process';

// Milliseconds that a Node.js process takes to start and exit on an idle current machine.
const USUAL_START_MS = 50;
const MOST = 8;

// Passed to the test files and to the processes that they start.
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
