// What a person asks of a saga: to be rolled back, or to go on after it got stuck. Decided by one update at one
// revision, so that of a cancel and a completion exactly one wins.
import type { NextJob, Saga } from './saga.ts';
import type { SagaStore } from './store.ts';
import type { Outcome, RetryPolicy } from './transition.ts';
import { decide } from './transition.ts';

/** What became of the request. `next` is the job to enqueue. */
export type ActionResult =
  | Readonly<{ kind: 'accepted'; saga: Saga; next: NextJob | null }>
  /** What was asked for has happened, or is happening, already. */
  | Readonly<{ kind: 'already'; saga: Saga }>
  | Readonly<{ kind: 'refused'; saga: Saga; why: string }>
  | Readonly<{ kind: 'not_found' }>;

// A saga moves on some ten times in its life: losing more races than that means something else is wrong.
const MAX_RACES = 50;

// Neither request retries anything, so no back-off is computed.
const noRetries: RetryPolicy = { stepAttempts: 1, stepBackoffMs: 1, compensationAttempts: 1 };

/** Asks for a saga's rollback. A saga that is being rolled back, or was, stays as it is: `already`. */
export async function cancelSaga(store: Pick<SagaStore, 'load' | 'commit'>, sagaId: string, by: string, reason?: string): Promise<ActionResult> {
  const outcome: Outcome = reason === undefined ? { kind: 'cancel_requested', by } : { kind: 'cancel_requested', by, reason };
  return act(store, sagaId, outcome, (saga) => saga.status === 'compensating' || saga.status === 'compensated');
}

/** Resumes a stuck saga: its step, or its compensation, gets all its attempts again. */
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
