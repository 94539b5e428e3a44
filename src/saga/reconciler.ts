// The reconciler repairs overdue sagas, whatever happened to their jobs. It is a timer in each worker, because a schedule
// in the queue store would be lost with the store.
import type { Log } from '../platform/log.ts';
import type { NextJob } from './saga.ts';
import { nextJobOf } from './saga.ts';
import type { Memo } from './step.ts';
import type { SagaStore } from './store.ts';
import type { Wakeup } from './wakeup.ts';

export type ReconcilerOptions = Readonly<{
  store: Pick<SagaStore, 'takeOverdue' | 'saveMemos'>;
  /**
   * Makes sure that a job will run. `now` is the database's time.
   *
   * @returns the memo of an existing job; null for one that was created again
   */
  ensure(job: NextJob, now: Date): Promise<Memo | null>;
  log: Log;
  /** Called after each pass; null: it failed. Must not throw. */
  onPass?: (pass: ReconcilerPass | null) => void;
}>;

export type ReconcilerPass = Readonly<{
  /** Number of overdue sagas. */
  overdue: number;
  /** Number of missing first jobs: of sagas that were started in Postgres alone, or whose first job was lost. */
  firstJobs: number;
  /** Number of missing later jobs. */
  remade: number;
}>;

const BATCH = 200;

// How many jobs one pass checks in parallel: each check is little work and a round trip.
const PARALLEL = 100;

// One pass takes at most this many, so that it is over within a second and is reported, however many sagas are overdue.
const MAX_IN_PASS = 1_000;

/**
 * Makes sure that overdue sagas have a live job: all of them, or the 1,000 that are longest overdue. A saga for which that
 * fails is logged and left to a later pass.
 *
 * @throws what `ensure` throws, if it fails for every saga
 */
export async function reconcile(options: ReconcilerOptions): Promise<ReconcilerPass> {
  let overdue = 0;
  let firstJobs = 0;
  let remade = 0;
  let looked = 0;
  let failed = 0;
  let taking = options.store.takeOverdue(BATCH);
  for (;;) {
    const sagas = await taking;
    overdue += sagas.length;
    const isLast = sagas.length < BATCH || overdue >= MAX_IN_PASS;
    if (!isLast) {
      // Postgres takes the next ones while the queue store answers for these. If that fails, the wait for it throws.
      taking = options.store.takeOverdue(BATCH);
      taking.catch(() => undefined);
    }
    const memos: { sagaId: string; revision: number; memo: Memo }[] = [];
    for (let start = 0; start < sagas.length; start += PARALLEL) {
      const chunk = sagas.slice(start, start + PARALLEL);
      const looks = chunk.map(async (saga) => {
        const job = nextJobOf(saga);
        if (job === null) return;
        const memo = await options.ensure(job, saga.now);
        if (memo === null && job.revision === 0) firstJobs += 1;
        else if (memo === null) remade += 1;
        else if (Object.keys(memo).length > 0) memos.push({ sagaId: saga.id, revision: saga.revision, memo });
      });
      const failures = failuresOf(chunk, await Promise.allSettled(looks));
      looked += chunk.length;
      failed += failures.length;
      // The queue store is to blame, and would not answer for the others either.
      if (failures[0] !== undefined && (failed === looked || failures.length === PARALLEL)) throw failures[0].reason;
      for (const { sagaId, reason } of failures) options.log.warn({ sagaId, err: reason }, 'reconciler could not make sure of a job: trying again later');
    }
    await options.store.saveMemos(memos);
    if (isLast) break;
  }
  if (firstJobs + remade > 0) options.log.info({ overdue, firstJobs, remade }, 'reconciler enqueued sagas that had no job');
  return { overdue, firstJobs, remade };
}

function failuresOf(chunk: readonly { id: string }[], results: readonly PromiseSettledResult<void>[]): { sagaId: string; reason: unknown }[] {
  return chunk.flatMap(({ id }, index) => {
    const result = results[index];
    return result?.status === 'rejected' ? [{ sagaId: id, reason: result.reason as unknown }] : [];
  });
}

/**
 * Runs {@link reconcile} every `intervalMs`, with jitter so that a fleet's workers spread out, and whenever it is woken,
 * until the signal is aborted. A pass that left overdue sagas is followed by the next at once. A failed pass is logged and
 * retried at the next.
 */
export async function runReconciler(options: ReconcilerOptions & { intervalMs: number; wakeup: Wakeup; signal: AbortSignal }): Promise<void> {
  while (!options.signal.aborted) {
    try {
      const pass = await reconcile(options);
      options.onPass?.(pass);
      if (pass.overdue >= MAX_IN_PASS) continue;
    } catch (error) {
      options.onPass?.(null);
      options.log.warn({ err: error }, 'reconciler pass failed: trying again in the next one');
    }
    const jitter = 0.75 + Math.random() * 0.5;
    await options.wakeup.wait(options.intervalMs * jitter, options.signal);
  }
}
