// DBOS Transact: a workflow of three steps, run through a queue. A step's result is a row that is committed before the
// next step begins; nothing is enqueued from step to step.
//
// Tuned: the queue's polling interval, 10 ms rather than 1 s (a new workflow is not announced; each look takes as many as
// there are slots); as many workflows at once as the others run jobs. Its log is at 'error'. Left alone, as it gained
// nothing: the 10 connections (20 and 40 were no faster).
import { randomUUID } from 'node:crypto';
import { DBOS, DBOSClient } from '@dbos-inc/dbos-sdk';
import { createTally, repeat, serve, untilNone } from './contender.ts';

const APPLICATION = 'bench';
const QUEUE = 'sagas';
const POLL_MS = 10;
const PARALLEL_STARTS = 50;

const noOp = () => Promise.resolve();

serve(async ({ databaseUrl, concurrency }) => {
  const tally = createTally();
  async function saga(sagaId: string): Promise<void> {
    await DBOS.runStep(noOp, { name: 'step_1' });
    await DBOS.runStep(noOp, { name: 'step_2' });
    await DBOS.runStep(() => Promise.resolve(tally.finish(sagaId)), { name: 'step_3' });
  }
  DBOS.registerWorkflow(saga, { name: 'saga' });
  DBOS.setConfig({ name: APPLICATION, systemDatabaseUrl: databaseUrl, logLevel: 'error' });
  // Makes the tables. The queue is known before the launch that counts: one that comes later is found within a second.
  await DBOS.launch();
  await DBOS.registerQueue(QUEUE, { workerConcurrency: concurrency, minPollingIntervalMs: POLL_MS });
  await DBOS.shutdown();
  const client = await DBOSClient.create({ systemDatabaseUrl: databaseUrl, applicationName: APPLICATION });
  const enqueue = (sagaId: string) => client.enqueue<typeof saga>({ workflowName: 'saga', queueName: QUEUE }, sagaId);
  return {
    preload: (sagas) => repeat(sagas, PARALLEL_STARTS, () => enqueue(randomUUID())),
    start: () => DBOS.launch(),
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilNone(databaseUrl, `select 1 from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') limit 1`);
    },
    one: async () => {
      const sagaId = randomUUID();
      const ended = tally.ofName(sagaId);
      await enqueue(sagaId);
      await ended;
    },
  };
});
