// The baseline: a chain of three BullMQ jobs, each of which adds the next. It has no rows; only Redis keeps anything.
import { randomUUID } from 'node:crypto';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { createTally, serve } from './contender.ts';

const STEPS = 3;
// The same retention as our jobs.
const kept = { removeOnComplete: { age: 24 * 3_600, count: 2_000 }, removeOnFail: { age: 14 * 24 * 3_600, count: 5_000 } };

const first = () => ({ name: 'step_1', data: { sagaId: randomUUID(), step: 1 }, opts: kept });

serve(async ({ redisUrl, concurrency }) => {
  const prefix = `{bare-${process.pid}}`;
  const queue = new Queue('steps', { connection: new Redis(redisUrl, { maxRetriesPerRequest: 1 }), prefix });
  const tally = createTally();
  return {
    preload: async (sagas) => {
      for (let left = sagas; left > 0; left -= 500) await queue.addBulk(Array.from({ length: Math.min(500, left) }, first));
    },
    start: async () => {
      const worker = new Worker(
        'steps',
        async ({ data }: { data: { sagaId: string; step: number } }) => {
          if (data.step < STEPS) await queue.add(`step_${data.step + 1}`, { ...data, step: data.step + 1 }, kept);
          else tally.finish(data.sagaId);
        },
        { connection: new Redis(redisUrl, { maxRetriesPerRequest: null }), prefix, concurrency },
      );
      await worker.waitUntilReady();
    },
    finished: (sagas) => tally.reached(sagas),
    one: async () => {
      const job = first();
      const ended = tally.ofName(job.data.sagaId);
      await queue.add(job.name, job.data, job.opts);
      await ended;
    },
  };
});
