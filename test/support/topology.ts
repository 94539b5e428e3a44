// Where the queues of a run's tests may be.

import { inject } from 'vitest';
import type { QueueStore } from '../../src/queues/connection.ts';

/**
 * Both kinds of queue store; Redis alone where the run is by way of PgBouncer, through which BullMQ's Postgres backend
 * cannot work, or on a Redis Cluster, which says nothing new about Postgres.
 */
export function queueStoreKinds(): readonly QueueStore['kind'][] {
  const { pgBouncerPort, redisUrl } = inject('services');
  return pgBouncerPort === null && !redisUrl.includes(',') ? ['redis', 'postgres'] : ['redis'];
}
