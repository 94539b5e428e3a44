// A person's requests to a saga: roll back, or resume after it got stuck. Each is one update at one revision. A cancel
// and a completion race; exactly one wins.
import type { NextJob, Saga } from './saga.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy } from './transition.ts';
import { decide } from './transition.ts';

/** The result of the request. `next` is the job to enqueue. */
export type ActionResult =
  | Readonly<{ kind: 'accepted'; saga: Saga; next: NextJob | null }>
  /** The requested change has already happened or is in progress. */
  | Readonly<{ kind: 'already'; saga: Saga }>
  | Readonly<{ kind: 'refused'; saga: Saga; why: string }>
  | Readonly<{ kind: 'not_found' }>;

// A saga changes about ten times in its life. Losing more races than this means that something else is wrong.
const MAX_RACES = 50;

// Neither request causes a retry, so no backoff is computed.
const noRetries: RetryPolicy = { stepAttempts: 1, stepBackoffMs: 1, compensationAttempts: 1 };

/** Cancels a saga and rolls it back. Changes nothing if the saga is being rolled back or was: `already`. */
export async function cancelSaga(store: Pick<SagaStore, 'load' | 'commit'>, sagaId: string, by: string, reason?: string): Promise<ActionResult> {
  const outcome: Outcome = reason === undefined ? { kind: 'cancel_requested', by } : { kind: 'cancel_requested', by, reason };
  return act(store, sagaId, outcome, (saga) => saga.status === 'compensating' || saga.status === 'compensated');
}

/** Resumes a stuck saga. Its step, or its compensation, gets all its attempts again. */
export async function retrySaga(store: Pick<SagaStore, 'load' | 'commit'>, sagaId: string, by: string): Promise<ActionResult> {
  return act(store, sagaId, { kind: 'retry_requested', by }, (saga) => saga.status === 'compensating');
}

async function act(
  store: Pick<SagaStore, 'load' | 'commit'>,
  sagaId: string,
  outcome: Outcome,
  isAlready: (saga: Saga) => boolean,
): Promise<ActionResult> {
  for (let race = 0; race < MAX_RACES; race += 1) {
    const loaded = await store.load(sagaId);
    if (loaded === null) return { kind: 'not_found' };
    if (isAlready(loaded.saga)) return { kind: 'already', saga: loaded.saga };
    const transition = decide(loaded.saga, outcome, noRetries, 0);
    if ('refused' in transition) return { kind: 'refused', saga: loaded.saga, why: transition.refused };
    if ((await store.commit(transition)) === 'applied') return { kind: 'accepted', saga: transition.saga, next: transition.next };
  }
  throw new Error(`saga ${sagaId} moved on ${MAX_RACES} times while it was to be cancelled or resumed`);
}
