// How the tests run: every *.test.ts under test/, against the services that test/support/services.ts starts once a run.

import { defineConfig } from 'vitest/config';
import type { TestSpecification } from 'vitest/node';
import { BaseSequencer } from 'vitest/node';

// Those that take longest, first: at the end, one of them would keep all waiting. Vitest, which knows no times in a fresh
// checkout, goes by the size of a file. Of the crash matrix and the chaos run, no two begin together.
const longest = [
  'crash/kill',
  'dev/embedded-postgres',
  'cli/commands',
  'chaos/chaos',
  'crash/zombie',
  'dev/demo',
  'crash/quick-recovery',
  'simulation/simulation',
  'faults/store',
  'faults/watchdog',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    // oxlint-disable-next-line unicorn/no-array-sort -- not an array's
    const bySize = await super.sort(files);
    return bySize.toSorted((one, other) => placeOf(one) - placeOf(other));
  }
}

function placeOf({ moduleId }: TestSpecification): number {
  const index = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
  return index === -1 ? longest.length : index;
}

// They take minutes, and say little of the product: `script/test test/bench` runs them.
const asksForBenchmarks = process.argv.some((argument) => argument.includes('test/bench'));

export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/**/*.test.ts'],
    exclude: ['**/node_modules/**', ...(asksForBenchmarks ? [] : ['test/bench/**'])],
    globalSetup: ['test/support/services.ts'],
    setupFiles: ['test/support/database-end.ts'],
    sequence: { sequencer: LongestFirst },
    // A process for each file: the tests kill, signal and wait, and a file must not see what another one left behind.
    pool: 'forks',
    // Each file starts servers and workers of its own: on two cores, more files at once only run late.
    maxWorkers: 2,
    // For what hangs. Waits in a test have deadlines of their own, which say what never came.
    testTimeout: 240_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
  },
});
