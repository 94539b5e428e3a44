// Closing workers within a time limit.
import type { Worker } from 'bullmq';
import type { Log } from '../log.ts';

/**
 * Stops taking jobs and lets the running ones finish. BullMQ's own close waits for them without a limit; what is not
 * done by the deadline is dropped, and taken up by another worker.
 */
export async function closeWorkers(workers: readonly Worker[], deadlineMs: number, log: Log): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), deadlineMs);
  });
  const closed = Promise.all(workers.map((worker) => worker.close())).then(() => 'closed' as const);
  const result = await Promise.race([closed, deadline]);
  clearTimeout(timer);
  if (result === 'closed') return;
  log.warn({ deadlineMs }, 'steps still running at the deadline: left to other workers');
  await Promise.allSettled(workers.map((worker) => worker.close(true)));
}
