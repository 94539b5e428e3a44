// How the tests run: every *.test.ts under test/, against the services that test/support/services.ts starts once a run.

import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import type { TestSpecification } from 'vitest/node';

// They take a minute each: where one of them began last, the other worker would stand idle beside it.
const isLong = ({ moduleId }: TestSpecification) => /\/test\/(?:crash|chaos|e2e)\//.test(moduleId);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const ordered = await super.sort(files); // oxlint-disable-line unicorn/no-array-sort -- a sequencer's, not an array's
    return [...ordered.filter((file) => isLong(file)), ...ordered.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/services.ts'],
    // A process for each file: the tests kill, signal and wait, and a file must not see what another one left behind.
    pool: 'forks',
    // The tests start real servers and workers: on the two cores of a small machine, more files at once only run late.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
  },
});
