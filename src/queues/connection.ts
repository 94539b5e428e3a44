// Opens the store for BullMQ's jobs: Redis, or Postgres if no Redis is configured. The rest of src/queues gets its queues
// and workers here and does not depend on the kind of store.
import type { LockPatience } from '../platform/lock-retries.ts';
import type { Log } from '../platform/log.ts';
import { migratePostgresQueues, openPostgresConnection } from './postgres-connection.ts';
import type { QueueConnection, QueueConnectionOptions } from './queue-connection.ts';
import { usable } from './queue-store.ts';
import type { QueueStore } from './queue-store.ts';
import { openRedisConnection } from './redis-connection.ts';

export type { JobLoop, Lane, QueueConnection, QueueConnectionOptions } from './queue-connection.ts';
export { placeOf, queueStoreOf } from './queue-store.ts';
export type { QueuePlace, QueueStore } from './queue-store.ts';
export { QueueStoreError } from './queue-store-error.ts';

/**
 * Opens a connection to the store without checking that it is reachable: see {@link QueueConnection.check}.
 *
 * @throws {ConfigError} if the store cannot hold jobs
 */
export function openQueueConnection(given: QueueStore, log: Log, options: QueueConnectionOptions = {}): QueueConnection {
  const store = usable(given);
  return store.kind === 'redis' ? openRedisConnection(store, log) : openPostgresConnection(store, log, options);
}

/**
 * Migrates BullMQ's own tables if the queues are in Postgres. Safe to run twice or concurrently.
 *
 * @param patience how to wait for the locks of tables
 */
export async function migrateQueues(store: QueueStore, patience: Partial<LockPatience> = {}): Promise<void> {
  if (store.kind === 'postgres') await migratePostgresQueues(store, patience);
}
