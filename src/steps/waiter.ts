// A saga as it waits for the request budget: DigitalOcean's client knows no sagas.
import type { Waiter } from '../do/budget.ts';
import type { Saga } from '../saga/saga.ts';

/** Returns what the budget knows of a saga that waits: its requester's turns, and its place among them. */
export function waiterOf({ id, requestedBy, priority, createdAt }: Pick<Saga, 'id' | 'requestedBy' | 'priority' | 'createdAt'>): Waiter {
  return { id, requester: requestedBy, priority, since: createdAt };
}
