// How the tests run: every *.test.ts under test/, against the services that test/support/services.ts starts once a run.

import { defineConfig } from 'vitest/config';
import type { TestSpecification } from 'vitest/node';
import { BaseSequencer } from 'vitest/node';

// These assert how long something takes, or take what is starved for frozen. They run first, two at once beside the first, which
// mostly waits: a machine with two cores can serve that.
const measured = [
  'test/chaos/chaos.test.ts', 'test/crash/quick-recovery.test.ts', 'test/e2e/fleet.test.ts', 'test/observability/scrape.test.ts',
  'test/dev/demo.test.ts', 'test/faults/{deploy,redis-failover,refusals,wrong-clock}.test.ts', 'test/web/{failure-causes,fleet-page,long-text,open-transactions}.test.ts',
];

// Each of these has a process of its own: they kill, signal and freeze, start browsers, or change something global.
const isolated = [
  'test/{bench,chaos,crash,deploy,dev,e2e,faults,processes,secrets,simulation,support,topologies}/**/*.test.ts',
  'test/{examples,packages,published,readme}.test.ts',
  'test/{client/package,inventory/fleet,observability/{idle,tracing},outcomes/chaos,outcomes/crash,outcomes/throughput}.test.ts',
  'test/web/{browser,bulk-browser,droplets-browser,every-page}.test.ts',
];

// The order in which the longest begin. At the end, a long file would keep all waiting. Every fourth uses a whole core or
// more; the three after it mostly wait. Vitest, which knows no times in a fresh checkout, goes by the size of all others.
const longest = [
  'faults/refusals', 'chaos/chaos', 'e2e/fleet', 'dev/demo', 'faults/wrong-clock', 'crash/quick-recovery',
  'observability/idle', 'crash/kill', 'dev/dev', 'faults/leases', 'faults/digitalocean-outage',
  'crash/cut', 'processes/upgrade', 'topologies/fleet', 'faults/watchdog',
  'crash/zombie', 'e2e/ready', 'readme', 'inventory/fleet',
  'crash/flush', 'faults/store', 'dev/embedded-postgres', 'processes/own-app',
  'web/every-page', 'faults/queue', 'examples', 'dev/smoke/smoke',
  'simulation/simulation', 'faults/store-connections', 'faults/foreign-droplets', 'support/services',
  'outcomes/chaos', 'client/package', 'faults/request-budget', 'outcomes/crash',
  'dev/smoke/kill', 'dev/smoke/unanswered', 'dev/smoke/given-database',
  'cli/commands', 'cli/readers-that-leave', 'cli/saga-ids', 'cli/output', 'steps/create-droplet',
  'platform/session-settings', 'cli/stop', 'queues/step-workers', 'client/client', 'cli/doctor', 'cli/hostile-text',
  'platform/db', 'steps/odd-answers', 'steps/adopt-droplet', 'cli/watch-sagas', 'web/ready',
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

// More than there are cores, on a machine with two: most files wait for what happens in its own time.
const maxWorkers = 4;

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
    // For what hangs. Waits in a test have deadlines of their own, which say what never came.
    testTimeout: 240_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    projects: [
      { extends: true, test: { name: 'measured', include: measured, maxWorkers: 3, sequence: { groupOrder: 0 } } },
      { extends: true, test: { name: 'isolated', include: isolated, exclude: measured, maxWorkers, sequence: { groupOrder: 1 } } },
      // Their modules, which take half a second of a core to load, are loaded once a process. They keep no state.
      { extends: true, test: { name: 'shared', include: ['test/**/*.test.ts'], exclude: [...measured, ...isolated], isolate: false, maxWorkers, sequence: { groupOrder: 1 } } },
    ],
  },
});
