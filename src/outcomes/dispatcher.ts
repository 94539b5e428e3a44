// Moves outcomes from the log to a target, in a loop. Each worker runs one dispatcher per subscription; the one that holds the
// lease in Postgres does the work.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';
import { createWakeup } from '../saga/wakeup.ts';
import { readBatch } from './log.ts';
import { ensureSubscription, giveBackLease, takeLease } from './subscriptions.ts';
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
  /** Milliseconds between two reads of the log. */
  pollMs?: number;
  /** Duration of the lease in milliseconds: after it, another worker replaces one that has stopped. */
  leaseMs?: number;
}>;

const POLL_MS = 500;
const LEASE_MS = 6_000;
const TEND_MS = 2_000;
const AFTER_FAILURE_MS = 1_000;
const QUIET_MS = 30_000;

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

  const hold = async (): Promise<boolean> => {
    if (!isThere) await ensureSubscription(db, { name: target.name, target: target.describe });
    isThere = true;
    if (performance.now() - leaseAt < leaseMs / 3) return isHeld;
    const at = performance.now();
    isHeld = await takeLease(db, reader, leaseMs);
    leaseAt = at;
    return isHeld;
  };

  const pass = async (): Promise<'nothing' | 'all' | 'some'> => {
    if (performance.now() - tendedAt > TEND_MS) {
      tendedAt = performance.now();
      await target.tend();
    }
    const room = await target.room();
    isFull = room <= 0;
    if (isFull) return 'nothing';
    const batch = await readBatch(db, reader, sources, room);
    if (batch === null) return 'nothing';
    await target.take(reader, batch);
    return batch.to.reading === null ? 'all' : 'some';
  };

  return {
    wake: wakeup.wake,
    madeRoom: () => {
      if (isFull) wakeup.wake();
    },
    run: async (signal) => {
      while (!signal.aborted) {
        let pauseMs = pollMs;
        try {
          const taken = (await hold()) ? await pass() : 'nothing';
          if (taken === 'all') await delay(target.restMs, undefined, { signal }).catch(() => undefined);
          if (taken === 'some') pauseMs = 0;
        } catch (error) {
          warn(error);
          pauseMs = AFTER_FAILURE_MS;
        }
        if (pauseMs > 0) await wakeup.wait(pauseMs, signal);
      }
      if (isHeld) await giveBackLease(db, reader).catch(() => undefined);
    },
  };
}
