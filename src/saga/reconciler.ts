// The reconciler: looks after sagas that are overdue, whatever became of their jobs. A timer in each worker, because a
// schedule that is kept in the queue store is lost with it.
import type { Log } from '../platform/log.ts';
import type { NextJob } from './saga.ts';
import { nextJobOf } from './saga.ts';
import type { Memo } from './step.ts';
import type { SagaStore } from './store.ts';
import type { Wakeup } from './wakeup.ts';

export type ReconcilerOptions = Readonly<{
  store: Pick<SagaStore, 'takeOverdue' | 'saveMemos'>;
  /**
   * Makes sure that a job is going to run. `now` is the database's time.
   *
   * @returns the memo of one that was there, null for one made again
   */
  ensure(job: NextJob, now: Date): Promise<Memo | null>;
  log: Log;
  /** Told of each pass; null: it failed. Must not throw. */
  onPass?: (pass: ReconcilerPass | null) => void;
}>;

export type ReconcilerPass = Readonly<{
  /** Sagas that were overdue. */
  overdue: number;
  /** First jobs that were not there: of sagas that were started in Postgres alone, or whose first job was lost. */
  firstJobs: number;
  /** Later jobs that were gone. */
  remade: number;
}>;

const BATCH = 200;

// One look asks the queue for so many jobs at a time.
const PARALLEL = 20;

/** Takes every saga that is overdue and makes sure that it has a live job. */
export async function reconcile(options: ReconcilerOptions): Promise<ReconcilerPass> {
  let overdue = 0;
  let firstJobs = 0;
  let remade = 0;
  for (;;) {
    const sagas = await options.store.takeOverdue(BATCH);
    overdue += sagas.length;
    const memos: { sagaId: string; revision: number; memo: Memo }[] = [];
    for (let start = 0; start < sagas.length; start += PARALLEL) {
      const looks = sagas.slice(start, start + PARALLEL).map(async (saga) => {
        const job = nextJobOf(saga);
        if (job === null) return;
        const memo = await options.ensure(job, saga.now);
        if (memo === null && job.revision === 0) firstJobs += 1;
        else if (memo === null) remade += 1;
        else if (Object.keys(memo).length > 0) memos.push({ sagaId: saga.id, revision: saga.revision, memo });
      });
      await Promise.all(looks);
    }
    await options.store.saveMemos(memos);
    if (sagas.length < BATCH) break;
  }
  if (firstJobs + remade > 0) options.log.info({ overdue, firstJobs, remade }, 'reconciler enqueued sagas that had no job');
  return { overdue, firstJobs, remade };
}

/**
 * Runs {@link reconcile} every `intervalMs`, with some jitter so that a fleet's workers spread, and whenever it is woken,
 * until the signal is aborted. A failed pass is logged and tried again at the next.
 */
export async function runReconciler(options: ReconcilerOptions & { intervalMs: number; wakeup: Wakeup; signal: AbortSignal }): Promise<void> {
  while (!options.signal.aborted) {
    try {
      const pass = await reconcile(options);
      options.onPass?.(pass);
    } catch (error) {
      options.onPass?.(null);
      options.log.warn({ err: error }, 'reconciler pass failed: trying again at the next');
    }
    const jitter = 0.75 + Math.random() * 0.5;
    await options.wakeup.wait(options.intervalMs * jitter, options.signal);
  }
}
