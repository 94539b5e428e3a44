// graphile-worker: three tasks, each of which adds the job of the next before its own job is completed.
//
// Tuned as its page on performance does: jobs fetched 500 at once into the worker's local queue, completed in batches
// without a wait. A new job is announced by NOTIFY, so the polling interval says nothing. Left alone, as it gained
// nothing: the 10 connections (25 and 50 were no faster).
import { randomUUID } from 'node:crypto';
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import type { TaskList } from 'graphile-worker';
import { createTally, serve, untilNone } from './contender.ts';

type Payload = { sagaId: string };

declare global {
  namespace GraphileWorker {
    interface Tasks {
      step_1: Payload;
      step_2: Payload;
      step_3: Payload;
    }
  }
}

const first = () => ({ identifier: 'step_1', payload: { sagaId: randomUUID() } });

serve(async ({ databaseUrl, concurrency }) => {
  const tally = createTally();
  const logger = new Logger(() => () => undefined);
  const preset = {
    worker: { connectionString: databaseUrl, concurrentJobs: concurrency, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, logger },
  };
  const utils = await makeWorkerUtils({ preset });
  await utils.migrate();
  const taskList: TaskList = {
    step_1: async (payload, helpers) => void (await helpers.addJob('step_2', payload)),
    step_2: async (payload, helpers) => void (await helpers.addJob('step_3', payload)),
    step_3: ({ sagaId }) => tally.finish(sagaId),
  };
  return {
    preload: async (sagas) => {
      for (let left = sagas; left > 0; left -= 500) await utils.addJobs(Array.from({ length: Math.min(500, left) }, first));
    },
    start: async () => void (await run({ preset, taskList, parsedCronItems: [], noHandleSignals: true })),
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilNone(databaseUrl, 'select 1 from graphile_worker.jobs limit 1');
    },
    one: async () => {
      const sagaId = randomUUID();
      const ended = tally.ofName(sagaId);
      await utils.addJob('step_1', { sagaId });
      await ended;
    },
  };
});
