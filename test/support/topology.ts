// The queue stores of a test run.

import { inject } from 'vitest';
import type { QueueStore } from '../../src/queues/connection.ts';

/**
 * Both kinds of queue store. Only Redis if the run goes through PgBouncer, which BullMQ's Postgres backend does not support, or if
 * it uses a Redis Cluster, which shows nothing new about Postgres.
 */
export function queueStoreKinds(): readonly QueueStore['kind'][] {
  const { pgBouncerPort, redisUrl } = inject('services');
  return pgBouncerPort === null && !redisUrl.includes(',') ? ['redis', 'postgres'] : ['redis'];
}
