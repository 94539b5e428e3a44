// Moves outcomes from the log to a target, in a loop. Each worker runs one dispatcher per subscription; the one that holds the
// lease in Postgres does the work.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../platform/db.ts';
import { isDatabaseOutage } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import { shorten } from '../platform/text.ts';
import { QueueStoreError } from '../queues/queue-store-error.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';
import { createWakeup, startSpreadMs } from '../saga/wakeup.ts';
import { forgetRestored, giveBackLease, takeLease } from './lease.ts';
import type { Batch } from './log.ts';
import { readBatch } from './log.ts';
import { ensureSubscription, recordTrouble } from './subscriptions.ts';
import type { Target } from './targets.ts';

export type Dispatcher = Readonly<{
  /** Reads the log at once, because a saga of this worker has ended. */
  wake(): void;
  /** Reads the log at once if the target was full, because this worker has delivered an outcome. */
  madeRoom(): void;
  /** Runs until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}>;

export type DispatcherOptions = Readonly<{
  /** A database outside the I/O seam: these statements belong to no job. */
  db: Pick<Database, 'run'>;
  sources: readonly OutcomeSource[];
  target: Target;
  log: Log;
  /** Milliseconds between two reads of the log; three times that while nothing happens. */
  pollMs?: number;
  /** Duration of the lease in milliseconds: after it, another worker replaces one that has stopped. */
  leaseMs?: number;
}>;

const POLL_MS = 500;
// While nothing has happened for a while, it reads this many times less often. What ends in this process wakes it. What ends
// elsewhere is read within 1.5 s, and the promise is 2 s.
const IDLE_POLLS = 3;
const IDLE_AFTER_MS = 30_000;
const LEASE_MS = 6_000;
const TEND_MS = 2_000;
const AFTER_FAILURE_MS = 1_000;
const QUIET_MS = 30_000;
const LONGEST_REASON = 300;

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { db, sources, target, log, pollMs = POLL_MS, leaseMs = LEASE_MS } = options;
  const reader = { subscription: target.name, holder: randomUUID() };
  const wakeup = createWakeup();
  const warn = onceInAWhile(QUIET_MS, (error: unknown) => log.warn({ err: error, subscription: target.name }, 'outcomes wait: trying again'));
  let isThere = false;
  let isHeld = false;
  let isFull = false;
  let leaseAt = Number.NEGATIVE_INFINITY;
  let tendedAt = Number.NEGATIVE_INFINITY;
  let newsAt = performance.now();
  // As recorded; undefined: another worker may have recorded something.
  let trouble: string | null | undefined;

  const isRenewalDue = () => performance.now() - leaseAt >= leaseMs / 3;
  const lose = () => {
    isHeld = false;
  };

  const hold = async (): Promise<boolean> => {
    if (!isThere) await ensureSubscription(db, { name: target.name, target: target.describe });
    isThere = true;
    // The next read of the log renews it, unless nothing can be read.
    if (isHeld && !isFull) return true;
    if (!isRenewalDue()) return isHeld;
    const [at, wasHeld] = [performance.now(), isHeld];
    isHeld = await takeLease(db, reader, leaseMs);
    leaseAt = at;
    if (isHeld && !wasHeld) {
      trouble = undefined;
      target.begin();
      await forgetRestored(db, sources);
    }
    return isHeld;
  };

  const tellOfTrouble = async (why: string | null): Promise<void> => {
    if (target.whenFull === null || why === trouble) return;
    // If it is not answered, it may still be recorded.
    trouble = undefined;
    await recordTrouble(db, target.name, why);
    trouble = why;
  };

  const read = async (room: number): Promise<Batch | null> => {
    const { needsBodies: withFacts } = target;
    if (!isRenewalDue()) return readBatch(db, reader, sources, room, { withFacts });
    const at = performance.now();
    const batch = await readBatch(db, reader, sources, room, { withFacts, renewal: { leaseMs, onLost: lose } });
    leaseAt = at;
    return batch;
  };

  const pass = async (): Promise<'nothing' | 'all' | 'some'> => {
    if (performance.now() - tendedAt > TEND_MS) {
      tendedAt = performance.now();
      await target.tend();
    }
    const room = await target.room();
    isFull = room <= 0;
    if (isFull) {
      await tellOfTrouble(target.whenFull);
      return 'nothing';
    }
    const batch = await read(room);
    if (batch === null) {
      if (isHeld) await tellOfTrouble(null);
      return 'nothing';
    }
    newsAt = performance.now();
    await target.take(reader, batch);
    await tellOfTrouble(null);
    return batch.to.reading === null ? 'all' : 'some';
  };

  return {
    wake: wakeup.wake,
    madeRoom: () => {
      if (isFull) wakeup.wake();
    },
    run: async (signal) => {
      await wakeup.wait(Math.min(pollMs, startSpreadMs()), signal);
      while (!signal.aborted) {
        let pauseMs = performance.now() - newsAt < IDLE_AFTER_MS ? pollMs : IDLE_POLLS * pollMs;
        try {
          const taken = (await hold()) ? await pass() : 'nothing';
          if (taken === 'all') await delay(target.restMs, undefined, { signal }).catch(() => undefined);
          if (taken === 'some') pauseMs = 0;
        } catch (error) {
          warn(error);
          if (isHeld && !isOfOurStores(error)) await tellOfTrouble(shorten(error instanceof Error ? error.message : String(error), LONGEST_REASON)).catch(() => undefined);
          pauseMs = AFTER_FAILURE_MS;
        }
        if (pauseMs > 0) await wakeup.wait(pauseMs, signal);
      }
      if (isHeld) await giveBackLease(db, reader).catch(() => undefined);
    },
  };
}

/** Whether an error says that one of our own stores does not answer: nothing about the receiver. Other conditions report that. */
function isOfOurStores(error: unknown): boolean {
  return error instanceof QueueStoreError || isDatabaseOutage(error);
}
