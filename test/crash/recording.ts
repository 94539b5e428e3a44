// The list of boundaries, made by machine: each scenario is run once without a fault, and its I/Os are written down.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inject } from 'vitest';
import type { Boundary } from './boundaries.ts';
import { numberedIo } from './boundaries.ts';
import type { Scenario } from './scenarios.ts';
import type { QueueBackend } from './stage.ts';
import { recordingsFolder } from '../support/services.ts';
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

/** What another file of this run has recorded, else a recording of its own. */
export async function recordOnce(scenario: Scenario, backend: QueueBackend): Promise<Recording> {
  if (typeof backend !== 'string') return record(scenario, backend);
  const folder = recordingsFolder(inject('services').runId);
  const file = join(folder, `${scenario.name.replaceAll(/\W+/g, '-')}.${backend}.json`);
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written below
    return JSON.parse(readFileSync(file, 'utf8')) as Recording;
  } catch {
    // Nobody has: two that record at once come to the same.
    const recording = await record(scenario, backend);
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${file}.${process.pid}`, JSON.stringify(recording));
    renameSync(`${file}.${process.pid}`, file);
    return recording;
  }
}

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
