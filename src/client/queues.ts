// The queues of a client with a queue store. BullMQ is loaded with the first job, and never by a client without a store.
import type { Database } from '../platform/db.ts';
import { endsWithin } from '../platform/deadline.ts';
import { directIo } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { requirePackages } from '../platform/packages.ts';
import type { QueueStore } from '../queues/queue-store.ts';
import { usable } from '../queues/queue-store.ts';
import type { StepQueues } from '../queues/step-queues.ts';
import type { LabelsOf } from '../saga/labels.ts';

export type ClientQueues = Readonly<
  Pick<StepQueues, 'enqueue' | 'peek'> & {
    /** Closes what was opened, with a deadline of `limitMs` milliseconds for each of its two parts. */
    close(limitMs: number): Promise<void>;
  }
>;

/**
 * Opens the queues for adding jobs. Loads and connects nothing before the first use.
 *
 * @param options.db the source of the time: the clock of a client's machine may be wrong
 * @param options.labelsOf the labels in the jobs of a saga
 * @throws {ConfigError} if the store cannot hold jobs, or a package that the queues need is not installed
 */
export function openClientQueues(given: QueueStore, options: { db: Database; labelsOf: LabelsOf; log: Log }): ClientQueues {
  const { db, labelsOf, log } = options;
  const store = usable(given);
  requirePackages('queues');
  const open = async () => {
    const [{ openQueueConnection }, { openStepQueues }, { createDatabaseClock }] = await Promise.all([
      import('../queues/connection.ts'),
      import('../queues/step-queues.ts'),
      import('../platform/clock.ts'),
    ]);
    const connection = openQueueConnection(store, log);
    return { connection, queues: openStepQueues(connection, directIo, { clock: createDatabaseClock(db), labelsOf }) };
  };
  let opened: ReturnType<typeof open> | null = null;
  const use = async () => (await (opened ??= open())).queues;
  return {
    enqueue: async (job) => (await use()).enqueue(job),
    peek: async (job) => (await use()).peek(job),
    close: async (limitMs) => {
      const parts = await opened?.catch(() => null);
      if (parts == null) return;
      const { connection, queues } = parts;
      await endsWithin(limitMs, queues.close());
      await endsWithin(limitMs, connection.close());
    },
  };
}
