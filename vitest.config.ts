// How the tests run: every *.test.ts under test/, against the services that test/support/services.ts starts once a run.

import { defineConfig } from 'vitest/config';
import type { TestSpecification } from 'vitest/node';
import { BaseSequencer } from 'vitest/node';

// Each of these files has a process of its own: they kill, signal and freeze, start browsers or global tracing, or measure.
const isolated = [
  'test/{bench,chaos,crash,deploy,dev,e2e,faults,processes,secrets,simulation,support,topologies}/**/*.test.ts',
  'test/{examples,packages,published,readme}.test.ts',
  'test/{client/package,inventory/fleet,observability/tracing,outcomes/chaos,outcomes/crash,outcomes/throughput}.test.ts',
  'test/web/{browser,droplets-browser,every-page,failure-causes,fleet-page,long-text}.test.ts',
];

// In the order in which they begin. At the end, a long file would keep all waiting. Every fifth uses a whole core or more;
// the four after it mostly wait. So the crash matrix and the chaos run, which take for frozen what is starved, are not
// beside each other. Vitest, which knows no times in a fresh checkout, goes by the size of all other files.
const longest = [
  'chaos/chaos', 'faults/leases', 'dev/dev', 'faults/wrong-clock', 'faults/digitalocean-outage',
  'crash/kill', 'e2e/fleet', 'dev/demo', 'crash/quick-recovery', 'processes/upgrade',
  'crash/cut', 'faults/refusals', 'topologies/fleet', 'faults/watchdog', 'e2e/ready',
  'crash/zombie', 'faults/queue', 'readme', 'inventory/fleet', 'faults/redis-failover',
  'web/every-page', 'faults/store', 'dev/embedded-postgres', 'processes/own-app', 'faults/deploy',
  'crash/flush', 'dev/smoke/smoke', 'examples', 'faults/foreign-droplets', 'faults/store-connections',
  'simulation/simulation', 'web/long-text', 'web/fleet-page', 'support/services', 'faults/request-budget',
  'outcomes/chaos', 'client/package', 'faults/cancel', 'faults/mispointed', 'outcomes/throughput',
  'cli/commands', 'cli/readers-that-leave', 'cli/saga-ids', 'cli/output', 'steps/create-droplet',
  'platform/session-settings', 'cli/stop', 'queues/step-workers', 'client/client', 'cli/doctor', 'cli/hostile-text',
  'platform/db', 'steps/odd-answers', 'steps/adopt-droplet', 'observability/scrape', 'cli/watch-sagas', 'web/ready',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    // oxlint-disable-next-line unicorn/no-array-sort -- not an array's
    const bySize = await super.sort(files);
    const inOrder = bySize.toSorted((one, other) => placeOf(one) - placeOf(other));
    // A process is used again only for the file that is next in line.
    return [...inOrder.filter((file) => !isShared(file)), ...inOrder.filter(isShared)];
  }
}

function isShared({ project }: TestSpecification): boolean {
  return !project.config.isolate;
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
    exclude: ['**/node_modules/**', ...(asksForBenchmarks ? [] : ['test/bench/**'])],
    globalSetup: ['test/support/services.ts'],
    setupFiles: ['test/support/database-end.ts'],
    sequence: { sequencer: LongestFirst },
    pool: 'forks',
    // More than there are cores, on a machine with two: most files wait for what happens in its own time.
    maxWorkers: 5,
    // For what hangs. Waits in a test have deadlines of their own, which say what never came.
    testTimeout: 240_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    projects: [
      { extends: true, test: { name: 'isolated', include: isolated } },
      // Their modules, which take half a second of a core to load, are loaded once a process. They keep no state.
      { extends: true, test: { name: 'shared', include: ['test/**/*.test.ts'], exclude: isolated, isolate: false } },
    ],
  },
});
