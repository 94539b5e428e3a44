// pg-boss: one queue whose jobs say which step they are. The handler of a batch sends the jobs of the next step in one
// statement, and the batch is completed afterwards, in another; each job has a result of its own, so that one that fails
// fails alone.
//
// Tuned: batches of 100 by as many fetchers as make up the concurrency, fetched on without a pause while they come back
// full (batches of 25 and 50 were slower, of 200 no faster; jobs fetched one by one, by 200 fetchers, thirty times
// slower); a new job is announced by NOTIFY, with the shortest polling interval (0.5 s) behind it.
import { randomUUID } from 'node:crypto';
import { PgBoss } from 'pg-boss';
import { createTally, serve, untilNone } from './contender.ts';

const STEPS = 3;
const QUEUE = 'sagas';
const BATCH = 100;

type Data = { sagaId: string; step: number };

const first = () => ({ data: { sagaId: randomUUID(), step: 1 } });

serve(async ({ databaseUrl, concurrency }) => {
  const tally = createTally();
  const boss = new PgBoss({ connectionString: databaseUrl, useListenNotify: true });
  boss.on('error', (error) => void process.stderr.write(`pg-boss: ${error.message}\n`));
  await boss.start();
  await boss.createQueue(QUEUE, { notify: true });
  const advance = async (jobs: readonly { id: string; data: Data }[]) => {
    const next = jobs.filter(({ data }) => data.step < STEPS).map(({ data }) => ({ data: { ...data, step: data.step + 1 } }));
    if (next.length > 0) await boss.insert(QUEUE, next);
    for (const { data } of jobs) if (data.step === STEPS) tally.finish(data.sagaId);
    return jobs.map(({ id }) => ({ id, status: 'completed' as const }));
  };
  return {
    preload: async (sagas) => {
      for (let left = sagas; left > 0; left -= 500) await boss.insert(QUEUE, Array.from({ length: Math.min(500, left) }, first));
    },
    start: async () => {
      const batchSize = Math.min(BATCH, concurrency);
      const polling = { burstWhenBatchFull: true, pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5 };
      await boss.work<Data>(QUEUE, { batchSize, localConcurrency: Math.ceil(concurrency / batchSize), perJobResults: true, ...polling }, advance);
    },
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilNone(databaseUrl, `select 1 from pgboss.job where name = '${QUEUE}' and state < 'completed' limit 1`);
    },
    one: async () => {
      const { data } = first();
      const ended = tally.ofName(data.sagaId);
      await boss.send(QUEUE, data);
      await ended;
    },
  };
});
