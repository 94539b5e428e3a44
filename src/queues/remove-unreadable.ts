// Removes jobs that cannot be read from the queues of a process's workers, so that they neither take turns of other jobs nor
// break the lists of people. A saga whose job is removed gets another one from the reconciler. A request is lost: nobody can
// say what it asked for.
import type { Queue, Worker } from 'bullmq';
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { shorten, withoutUnstorable } from '../platform/text.ts';
import { recordAudit } from '../saga/audit.ts';
import { createWakeup } from '../saga/wakeup.ts';
import { claimOfJobId, queueNames } from './jobs.ts';
import type { QueueConnection } from './queue-connection.ts';
import type { OnUnreadable, UnreadableJob } from './unreadable.ts';
import { mayBeUnreadable, removeUnreadable, whyUnreadable } from './unreadable.ts';

// Every worker that takes such a job reports it. This is for jobs of a queue that nobody takes from, such as a paused one.
const EVERY_MS = 600_000;

// How many jobs of each state one round looks at: those that are taken next.
const LAST = 1_000;
const PARALLEL = 100;

const MAX_ID_LENGTH = 200;

/** Logs each job that was removed, and records it in the audit trail. A failure to record is logged. */
export function tellUnreadable({ db, actor, log }: { db: Pick<Database, 'run'>; actor: string; log: Log }): OnUnreadable {
  return async (job) => {
    const { queue, why } = job;
    const jobId = withoutUnstorable(shorten(job.jobId, MAX_ID_LENGTH));
    const sagaId = sagaOf(job);
    log.error({ queue, jobId, ...(sagaId === null ? {} : { sagaId }) }, `a job could not be read and was removed: ${why}`);
    try {
      await recordAudit(db, { actor, action: 'job_removed', sagaId, detail: { queue, jobId, reason: `the job could not be read: ${why}` } });
    } catch (error) {
      log.warn({ queue, jobId, err: error }, 'could not record the removal of a job');
    }
  };
}

/**
 * Looks for such jobs whenever a worker reports one, and now and then, until the signal is aborted. A look that fails is
 * repeated at the next report.
 */
export async function removeUnreadableJobs(
  connection: Pick<QueueConnection, 'queue' | 'store'>,
  workers: readonly Worker[],
  options: { onUnreadable: OnUnreadable; signal: AbortSignal; log: Log; everyMs?: number },
): Promise<void> {
  if (connection.store.kind !== 'redis') return;
  await Promise.all(workers.map((worker) => watch(connection.queue(worker.name), worker, options)));
}

async function watch(queue: Queue, worker: Worker, { onUnreadable, signal, log, everyMs = EVERY_MS }: Parameters<typeof removeUnreadableJobs>[2]): Promise<void> {
  const wakeup = createWakeup();
  worker.on('error', (error) => {
    if (mayBeUnreadable(error)) wakeup.wake();
  });
  for (;;) {
    await wakeup.wait(everyMs, signal);
    if (signal.aborted) break;
    try {
      await look(queue, onUnreadable, log);
    } catch (error) {
      log.debug({ queue: queue.name, err: error }, 'could not look for jobs that cannot be read');
    }
  }
  await queue.close();
}

async function look(queue: Queue, onUnreadable: OnUnreadable, log: Log): Promise<void> {
  const ids = await queue.getRanges(['active', 'waiting', 'prioritized', 'delayed'], 0, LAST - 1, true);
  for (let start = 0; start < ids.length; start += PARALLEL) {
    await Promise.all(ids.slice(start, start + PARALLEL).map(async (jobId) => removeIfUnreadable(queue, jobId, onUnreadable, log)));
  }
}

async function removeIfUnreadable(queue: Queue, jobId: string, onUnreadable: OnUnreadable, log: Log): Promise<void> {
  const why = await whyUnreadable(queue, jobId);
  if (why === null) return;
  if (await removeUnreadable(queue, jobId)) await onUnreadable({ queue: queue.name, jobId, why });
  else log.error({ queue: queue.name, jobId }, `a job cannot be read, and BullMQ does not remove it: ${why}`);
}

/** The id of a request is its producer's choice, and means no saga. */
function sagaOf({ queue, jobId }: UnreadableJob): string | null {
  const isOfStep = queue === queueNames.steps || queue === queueNames.compensations;
  return isOfStep ? (claimOfJobId(jobId)?.sagaId ?? null) : null;
}
