// How the tests run: every *.test.ts under test/, against the services that test/support/services.ts starts once a run.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/services.ts'],
    // A process for each file: the tests kill, signal and wait, and a file must not see what another one left behind.
    pool: 'forks',
    // The tests start real servers and workers: on the two cores of a small machine, more files at once only run late.
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
  },
});
