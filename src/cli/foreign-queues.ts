// Whether the queues that this process is pointed at belong to its database. Only reads, so that a command that asks never
// claims queues, as the processes that work on them do.
import type { Environment } from '../processes/environment.ts';
import { ownerOf } from '../processes/environment.ts';
import type { QueueConnection } from '../queues/connection.ts';

/** Queues that are not this database's. `isClaimed`: they are another's; otherwise nobody's yet. */
export type ForeignQueues = Readonly<{ isClaimed: boolean; problem: string; remedy: string }>;

const SET_BOTH = 'Set REDIS_URL and QUEUE_PREFIX as the workers have them.';

/**
 * @returns null if the queues are this database's
 * @throws {QueueStoreError} if the store does not answer
 */
export async function findForeignQueues({ store, readOwner }: Pick<QueueConnection, 'store' | 'readOwner'>, environment: Environment): Promise<ForeignQueues | null> {
  if (store.kind === 'postgres' || readOwner === null) return null;
  const owner = await readOwner();
  const own = ownerOf(environment);
  if (owner === own) return null;
  const queues = `The queues at REDIS_URL under QUEUE_PREFIX ${store.prefix} belong to`;
  if (owner === null) return { isClaimed: false, problem: `${queues} no database: no process of this one has claimed them`, remedy: `${SET_BOTH} If they are right, start a worker. If Redis was emptied, restart the workers.` };
  return { isClaimed: true, problem: `${queues} another database (${owner}; this one is ${own})`, remedy: `${SET_BOTH} Each database needs a QUEUE_PREFIX of its own.` };
}
