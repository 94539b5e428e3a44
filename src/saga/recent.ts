// The sagas that this process moved on a moment ago. The next job need not read them again.
//
// This is not a cache: a saga is handed out once, to the job of exactly the written revision, and is forgotten after a
// few seconds. Another writer may have moved the saga on meanwhile, as it may between any read and write. The fence of
// the next write then fails.
import { msOf } from '../platform/time.ts';
import type { Saga } from './saga.ts';
import type { Claim } from './step.ts';
import type { LoadedSaga } from './loaded.ts';

export type RecentSagas = Readonly<{
  /**
   * @param sentAt when the statement that wrote it was sent, by this process's monotonic clock
   */
  put(saga: Saga, sentAt: number): void;
  take(job: Claim): (LoadedSaga & { ageMs: number }) | null;
}>;

/**
 * @param limits.max maximum number of sagas; any others are not kept and have to be read
 * @param limits.maxAgeMs how long a saga is kept
 */
export function createRecentSagas(limits: { max: number; maxAgeMs: number }, monotonicMs = () => performance.now()): RecentSagas {
  // Oldest first: putting a saga again moves it to the end.
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
      // The database's clock shows at least this time: `updatedAt` was set before the reply arrived.
      const now = new Date(msOf(found.saga.updatedAt) + at - found.knownAt);
      return { saga: found.saga, now, dueInMs: 0, memo: {}, inputChecked: true, ageMs };
    },
  };
}
