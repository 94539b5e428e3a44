// arcadia-cloud: the worker as it is, with a saga of three steps that do nothing.
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { loadConfig } from '../../src/config.ts';
import { openDatabase } from '../../src/db.ts';
import { directIo } from '../../src/io.ts';
import type { JsonObject } from '../../src/json.ts';
import { createLog, silentLog } from '../../src/log.ts';
import { openQueueConnection, queueStoreOf } from '../../src/queues/connection.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { startSaga } from '../../src/saga/start.ts';
import { done } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import type { StepDeps } from '../../src/steps/deps.ts';
import { startWorker } from '../../src/worker.ts';
import { createTally, serve } from './contender.ts';

const PARALLEL_STARTS = 50;
// The reconciler leaves the sagas that are loaded before the clock starts to their jobs.
const SLACK_MS = 600_000;

function noOp(name: string, onExecute: (sagaId: string) => void = () => undefined): Step<StepDeps> {
  return {
    name,
    execute: (run) => {
      onExecute(run.saga.id);
      return Promise.resolve(done());
    },
    compensate: () => Promise.resolve(done()),
  };
}

serve(async ({ databaseUrl, redisUrl, concurrency }) => {
  const config = loadConfig({
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    QUEUE_PREFIX: `{arcadia-${process.pid}}`,
    DIGITALOCEAN_TOKEN: 'none',
    DIGITALOCEAN_API_URL: 'http://127.0.0.1:1',
    WORKER_CONCURRENCY: String(concurrency),
  });
  const db = openDatabase(databaseUrl, { max: 10 });
  const queues = openStepQueues(openQueueConnection(queueStoreOf(config), silentLog), directIo);
  const tally = createTally();
  const steps = [noOp('step_1'), noOp('step_2'), noOp('step_3', (sagaId) => tally.finish(sagaId))];
  const catalog = { no_op: { input: z.custom<JsonObject>(), steps } };
  const startOne = async (slackMs: number) => {
    const { sagaId, firstJob } = await startSaga(db, catalog, { name: 'no_op', input: {} }, slackMs);
    const ended = tally.ofName(sagaId);
    if (firstJob !== null) await queues.enqueue(firstJob);
    return { ended };
  };
  const untilWritten = async (sagas: number) => {
    for (;;) {
      const [row] = await db.sql<{ count: number }[]>`select count(*)::int as count from arcadia.sagas where status = 'completed'`;
      if ((row?.count ?? 0) >= sagas) return;
      await delay(5);
    }
  };
  return {
    preload: async (sagas) => {
      let left = sagas;
      const startSome = async () => {
        while ((left -= 1) >= 0) await startOne(SLACK_MS);
      };
      await Promise.all(Array.from({ length: PARALLEL_STARTS }, startSome));
    },
    start: async () => void (await startWorker(config, createLog('info'), directIo, catalog)),
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilWritten(sagas);
    },
    one: async () => {
      const { ended } = await startOne(5_000);
      await ended;
    },
  };
});
