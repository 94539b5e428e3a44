// openworkflow: a workflow of three steps. Each step is a row that is committed when it begins, and again with its
// result before the next begins; nothing is enqueued from step to step.
//
// Tuned: as many workflows at once as the others run jobs (with 20 or 50 it was slower). How often an idle worker looks
// can't be set: after 50 to 100 ms, then less and less often, up to 1 s; a new workflow is not announced. Left alone, as
// it gained nothing: the 10 connections of its driver.
import { randomUUID } from 'node:crypto';
import { OpenWorkflow } from 'openworkflow';
import { BackendPostgres } from 'openworkflow/postgres';
import { createTally, repeat, serve, untilNone } from './contender.ts';

const PARALLEL_STARTS = 50;

serve(async ({ databaseUrl, concurrency }) => {
  const tally = createTally();
  const openworkflow = new OpenWorkflow({ backend: await BackendPostgres.connect(databaseUrl) });
  const saga = openworkflow.defineWorkflow<{ sagaId: string }, void>({ name: 'saga' }, async ({ input, step }) => {
    await step.run({ name: 'step_1' }, () => null);
    await step.run({ name: 'step_2' }, () => null);
    await step.run({ name: 'step_3' }, () => tally.finish(input.sagaId));
  });
  return {
    preload: (sagas) => repeat(sagas, PARALLEL_STARTS, () => saga.run({ sagaId: randomUUID() })),
    start: () => openworkflow.newWorker({ concurrency }).start(),
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilNone(databaseUrl, `select 1 from openworkflow.workflow_runs where status in ('pending', 'running') limit 1`);
    },
    one: async () => {
      const sagaId = randomUUID();
      const ended = tally.ofName(sagaId);
      await saga.run({ sagaId });
      await ended;
    },
  };
});
