// The list of boundaries, made by machine: each scenario is run once without a fault, and its I/Os are written down.

import type { Boundary } from './boundaries.ts';
import { numberedIo } from './boundaries.ts';
import type { Scenario } from './scenarios.ts';
import type { QueueBackend } from './stage.ts';
import { openCrashStage } from './stage.ts';

export type Recording = {
  readonly boundaries: readonly Boundary[];
  /** Those that are this scenario's to interrupt. */
  readonly own: readonly Boundary[];
  /** Which steps ran, such as `forward create_droplet`. */
  readonly ran: readonly string[];
  readonly problems: readonly string[];
};

// Nothing is interrupted, so nothing has to run out.
const PATIENCE = 15;

/** Runs a scenario without a fault. */
export async function record(scenario: Scenario, backend: QueueBackend): Promise<Recording> {
  const stage = await openCrashStage(scenario, backend, [], PATIENCE);
  try {
    const boundaries: Boundary[] = [];
    const worker = await stage.startWorker(
      numberedIo(scenario.chain, (boundary, operation) => {
        boundaries.push(boundary);
        return operation();
      }),
    );
    await stage.untilAtRest();
    const problems = await stage.problems();
    const ran = await stage.ran();
    await worker.close();
    const first = scenario.from === undefined ? 0 : boundaries.findIndex(({ name }) => name === scenario.from);
    return { boundaries, own: boundaries.slice(first), ran, problems };
  } finally {
    await stage.close();
  }
}
