// The time limit of a call to the queue store.
import { withDeadline } from '../platform/deadline.ts';
import { QueueStoreError } from './queue-store-error.ts';

const TIME_LIMIT_MS = 5_000;

/** @throws {QueueStoreError} where the store does not answer within 5 s */
export function withTimeLimit<T>(what: string, operation: () => Promise<T>): Promise<T> {
  return withDeadline(TIME_LIMIT_MS, operation(), () => new QueueStoreError(`${what}: the queue store did not answer within ${TIME_LIMIT_MS} ms`));
}
