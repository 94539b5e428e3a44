// A chaos run from start to end: the stage, the load and the monkeys, then quiet until all is at rest, then the report.
import { setTimeout as delay } from 'node:timers/promises';
import { patience } from '../support/patience.ts';
import { waitFor } from '../support/wait-for.ts';
import { gatherEvidence } from './evidence.ts';
import { startLoad } from './load.ts';
import { openDiary, runMonkeys } from './monkeys.ts';
import { planDeeds } from './plan.ts';
import type { Report } from './report.ts';
import { makeReport } from './report.ts';
import type { ChaosOptions } from './settings.ts';
import { faultsAfterwards } from './settings.ts';
import type { Stage } from './stage.ts';
import { openChaosStage } from './stage.ts';

// A slow machine has a queue to work off when the storm is over.
const REST_WITHIN_MS = Math.round(120_000 * Math.min(3, patience()));
const JOBS_GONE_WITHIN_MS = 30_000;

/** Runs chaos; `say` is told of every deed. Throws when the stage could not be set, not for what the run finds. */
export async function runChaos(options: ChaosOptions, say: (line: string) => void): Promise<Report> {
  const stage = await openChaosStage(options);
  try {
    await waitFor(() => stage.fleet.workers().length === options.workers, { what: 'the workers to be ready', deadlineMs: 60_000 });
    const durationMs = options.minutes * 60_000;
    const giveUp = new AbortController();
    const diary = openDiary();
    const load = startLoad(stage, { durationMs, sagasPerMinute: options.sagasPerMinute, seed: options.seed, signal: giveUp.signal });
    const deeds = planDeeds(durationMs, options.seed, options.backend);
    await Promise.all([runMonkeys(deeds, stage, diary, say), delay(durationMs)]);

    say('   the storm is over: waiting until everything is at rest');
    stage.sandbox.setFaults(faultsAfterwards);
    const calmFrom = performance.now();
    const timer = setTimeout(() => giveUp.abort(), REST_WITHIN_MS);
    await load.done;
    clearTimeout(timer);
    const retried = await untilAtRest(stage, calmFrom + REST_WITHIN_MS, say);
    const settledAfterMs = performance.now() - calmFrom;
    const jobs = await untilNoJobs(stage);
    const evidence = await gatherEvidence(stage, { load, diary, retried, jobs });
    return makeReport(options, evidence, stage.fleet.starts(), settledAfterMs);
  } finally {
    await stage.close();
  }
}

/** Waits until no saga moves any more, but not for ever. A stuck one is resumed, once: an operator would do that. */
async function untilAtRest(stage: Stage, giveUpAt: number, say: (line: string) => void): Promise<string[]> {
  const retried = new Set<string>();
  let lastLeft = -1;
  while (performance.now() < giveUpAt) {
    const left = await readUnsettled(stage);
    const stuck = left.filter(({ id, status }) => status === 'stuck' && !retried.has(id));
    for (const { id } of stuck) {
      retried.add(id);
      await stage.client.retry(id, 'chaos');
    }
    const moving = left.filter(({ status }) => status !== 'stuck');
    if (moving.length === 0 && stuck.length === 0) break;
    if (left.length !== lastLeft) say(`   ${left.length} sagas to go`);
    lastLeft = left.length;
    await delay(1_000);
  }
  return [...retried];
}

async function readUnsettled(stage: Stage): Promise<{ id: string; status: string }[]> {
  return stage.db.run(
    'chaos.unsettled',
    (sql) => sql<{ id: string; status: string }[]>`
      select id, status from arcadia.sagas where status in ('pending', 'running', 'compensating', 'stuck')`,
  );
}

/** Late jobs find nothing to do and end: what is left then would be there for ever. */
async function untilNoJobs(stage: Stage): Promise<{ live: number; failed: number }> {
  const giveUpAt = performance.now() + JOBS_GONE_WITHIN_MS;
  for (;;) {
    const counts = await stage.queues.counts();
    if (counts.live === 0 || performance.now() > giveUpAt) return counts;
    await delay(500);
  }
}
