/** Thrown if the queue store is unreachable or does not answer in time. */
export class QueueStoreError extends Error {
  override readonly name = 'QueueStoreError';
  readonly code = 'queue_store';
}
