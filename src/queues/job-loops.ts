// Counts the jobs that each worker of a process was handed and is running.
import type { Processor } from 'bullmq';
import type { JobLoop, WorkerSettingsOfBullMq } from './queue-connection.ts';

/** Counts each worker's jobs on their way to its processor. */
export function countLoops() {
  const loops: JobLoop[] = [];
  return {
    all: () => loops,
    counted: (queueName: string, processor: Processor, { concurrency = 1 }: WorkerSettingsOfBullMq): Processor => {
      const loop = { queueName, concurrency, handed: 0, running: 0 };
      loops.push(loop);
      // A third parameter would make BullMQ create an AbortController for each job, which nothing here uses.
      return async (job, token) => {
        loop.handed += 1;
        loop.running += 1;
        try {
          return await processor(job, token);
        } finally {
          loop.running -= 1;
        }
      };
    },
  };
}
