// What this process knows of sagas that it moved on a moment ago: the job that follows need not read them again.
//
// It is no cache: a saga is handed out once, to the job of the very revision that was written, and is forgotten a second
// later. Somebody else may have moved the saga on meanwhile, just as between a read and what is done upon it; whoever was
// overtaken learns it from the fence of its next write.
import type { Saga } from './saga.ts';
import type { Claim } from './step.ts';
import type { LoadedSaga } from './store.ts';

export type RecentSagas = Readonly<{
  /** @param sentAt when the statement that wrote it was sent, by this process's clock that never jumps */
  put(saga: Saga, sentAt: number): void;
  take(job: Claim): (LoadedSaga & { ageMs: number }) | null;
}>;

/**
 * @param limits.max sagas at once; of more, the oldest are forgotten
 */
export function createRecentSagas(limits: { max: number; maxAgeMs: number }, monotonicMs = () => performance.now()): RecentSagas {
  const sagas = new Map<string, { saga: Saga; sentAt: number; knownAt: number }>();
  return {
    put: (saga, sentAt) => {
      sagas.delete(saga.id);
      sagas.set(saga.id, { saga, sentAt, knownAt: monotonicMs() });
      if (sagas.size <= limits.max) return;
      for (const oldest of sagas.keys()) {
        sagas.delete(oldest);
        break;
      }
    },
    take: ({ sagaId, revision }) => {
      const found = sagas.get(sagaId);
      if (found === undefined) return null;
      sagas.delete(sagaId);
      const at = monotonicMs();
      const ageMs = at - found.sentAt;
      if (found.saga.revision !== revision || ageMs > limits.maxAgeMs) return null;
      // By the database's clock it is at least so late: it stood at `updatedAt` before the reply came.
      const now = new Date(found.saga.updatedAt.getTime() + at - found.knownAt);
      return { saga: found.saga, now, dueInMs: 0, memo: {}, inputChecked: true, ageMs };
    },
  };
}
