/** Thrown where the store of the queues can't be used: it can't be reached, or did not answer in time. */
export class QueueStoreError extends Error {
  override readonly name = 'QueueStoreError';
  readonly code = 'queue_store';
}
