// arcadia-cloud: the worker as it is, with a saga of three steps that do nothing.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { directIo } from '../../src/platform/io.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { createLog } from '../../src/platform/create-log.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection, queueStoreOf } from '../../src/queues/connection.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import { startSaga } from '../../src/saga/start.ts';
import { done, waiting } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import type { StepDeps } from '../../src/steps/deps.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { createTally, serve } from './contender.ts';
import { noOpCatalog } from './no-op.ts';

const PARALLEL_STARTS = 50;
// Keeps the reconciler away from sagas that are enqueued before the clock starts.
const SLACK_MS = 600_000;

// Sagas that wait while the others run: their number, and the milliseconds between two polls.
const WAITING = { sagas: Number(process.env['BENCH_WAITING'] ?? 0), everyMs: Number(process.env['BENCH_WAITING_MS'] ?? 5_000) };

serve(async ({ databaseUrl, redisUrl, concurrency }) => {
  const config = loadConfig({
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    QUEUE_PREFIX: `{arcadia-${process.pid}}`,
    DIGITALOCEAN_TOKEN: 'none',
    DIGITALOCEAN_API_URL: 'http://127.0.0.1:1',
    WORKER_CONCURRENCY: String(concurrency),
    ...(process.env['OUTCOME_NOTIFY'] === undefined ? {} : { OUTCOME_NOTIFY: process.env['OUTCOME_NOTIFY'] }),
  });
  const db = openDatabase(databaseUrl, { max: 10 });
  const queues = openStepQueues(openQueueConnection(queueStoreOf(config), silentLog), directIo);
  const tally = createTally();
  const wait: Step<StepDeps> = {
    name: 'wait',
    execute: () => Promise.resolve(waiting(WAITING.everyMs, 'not yet')),
    compensate: () => Promise.resolve(done()),
  };
  const catalog = { ...noOpCatalog({ onLastStep: tally.finish }), wait: { input: z.custom<JsonObject>(), steps: [wait] } };
  const startOne = async (reconcileGraceMs: number) => {
    const { sagaId, firstJob } = await startSaga(db, catalog, { name: 'no_op', input: {} }, reconcileGraceMs);
    const ended = tally.ofName(sagaId);
    if (firstJob !== null) await queues.enqueue(firstJob);
    return { ended };
  };
  const untilWritten = async () => {
    for (;;) {
      const left = await db.sql`select 1 from arcadia.sagas where name = 'no_op' and status in ('pending', 'running') limit 1`;
      if (left.length === 0) return;
      await delay(5);
    }
  };
  /** Sagas in the middle of their waits, with their next polls spread evenly over the interval. */
  const startWaiting = async () => {
    const wanted = Array.from({ length: WAITING.sagas }, () => randomUUID());
    // Among a million ids, a few share their first 8 characters.
    const rows = await db.sql<{ id: string }[]>`
      insert into arcadia.sagas (id, saga8, name, status, steps, revision, input, wake_at)
      select id, left(id::text, 8), 'wait', 'running', '{wait}', 1, '{}', clock_timestamp() + ${WAITING.everyMs}::int * interval '1 millisecond' + interval '15 seconds'
      from unnest(${wanted}::uuid[]) as id on conflict do nothing returning id`;
    const ids = rows.map(({ id }) => id);
    const jobOf = (sagaId: string, index: number) => ({
      sagaId, revision: 1, direction: 'forward' as const, step: 'wait', position: 1, of: 1, attempt: 1, saga: { name: 'fake', input: {}, context: {} }, traceparent: null, delayMs: (WAITING.everyMs * (index + 1)) / ids.length,
    });
    await Promise.all(ids.map((id, index) => queues.enqueue(jobOf(id, index))));
  };
  return {
    preload: async (sagas) => {
      let left = sagas;
      const startSome = async () => {
        while ((left -= 1) >= 0) await startOne(SLACK_MS);
      };
      await Promise.all(Array.from({ length: PARALLEL_STARTS }, startSome));
      await startWaiting();
    },
    start: async () => void (await startWorker(config, createLog('info'), directIo, { catalog, openDeps: () => Promise.resolve({}) })),
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilWritten();
    },
    one: async () => {
      const { ended } = await startOne(5_000);
      await ended;
    },
  };
});
