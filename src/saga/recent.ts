// What this process knows of sagas that it moved on a moment ago: the job that follows need not read them again.
//
// It is no cache: a saga is handed out once, to the job of the very revision that was written, and is forgotten some
// seconds later. Somebody else may have moved the saga on meanwhile, just as between a read and what is done upon it; whoever was
// overtaken learns it from the fence of its next write.
import { msOf } from '../platform/time.ts';
import type { Saga } from './saga.ts';
import type { Claim } from './step.ts';
import type { LoadedSaga } from './loaded.ts';

export type RecentSagas = Readonly<{
  /** @param sentAt when the statement that wrote it was sent, by this process's clock that never jumps */
  put(saga: Saga, sentAt: number): void;
  take(job: Claim): (LoadedSaga & { ageMs: number }) | null;
}>;

/**
 * @param limits.max sagas at once; what comes beyond is not kept, and has to be read
 * @param limits.maxAgeMs how long a saga is known
 */
export function createRecentSagas(limits: { max: number; maxAgeMs: number }, monotonicMs = () => performance.now()): RecentSagas {
  // Oldest first: a saga that is put again goes to the end.
  const sagas = new Map<string, { saga: Saga; sentAt: number; knownAt: number }>();
  const forgetOld = (now: number) => {
    for (const [id, { sentAt }] of sagas) {
      if (now - sentAt <= limits.maxAgeMs) return;
      sagas.delete(id);
    }
  };
  return {
    put: (saga, sentAt) => {
      const knownAt = monotonicMs();
      forgetOld(knownAt);
      sagas.delete(saga.id);
      if (sagas.size < limits.max) sagas.set(saga.id, { saga, sentAt, knownAt });
    },
    take: ({ sagaId, revision }) => {
      const found = sagas.get(sagaId);
      if (found === undefined) return null;
      sagas.delete(sagaId);
      const at = monotonicMs();
      const ageMs = at - found.sentAt;
      if (found.saga.revision !== revision || ageMs > limits.maxAgeMs) return null;
      // By the database's clock it is at least so late: it stood at `updatedAt` before the reply came.
      const now = new Date(msOf(found.saga.updatedAt) + at - found.knownAt);
      return { saga: found.saga, now, dueInMs: 0, memo: {}, inputChecked: true, ageMs };
    },
  };
}
