// Numbers the I/Os of a worker at the one seam through which they all go, and strikes at one of them. What comes before
// the first I/O of a job (BullMQ hands it out) and after its last (BullMQ completes it) lies between two numbers: a
// worker killed after the last I/O of a job never completed it.

import { AsyncLocalStorage } from 'node:async_hooks';
import type { Io, IoKind } from '../../src/platform/io.ts';

/** One I/O of a scenario, by its place in the order. Numbers begin with 1. */
export type Boundary = { readonly number: number; readonly kind: IoKind; readonly name: string };

/** Whose I/Os are numbered: those of the steps' jobs, of the intake's jobs, of the first pass of the reconciler or over the leases, or of deliveries of outcomes. */
export type Chain = 'job' | 'intake' | 'reconciler' | 'sync' | 'lease' | 'outcome';

/** What is done with a numbered I/O instead of simply running it. */
export type Around = <T>(boundary: Boundary, operation: () => Promise<T>) => Promise<T>;

/** Where to strike: `during` is after the request was carried out, and before its answer was read. */
export type Position = 'before' | 'during' | 'after';

// The first I/O of these tells whose everything is that follows from it.
const firstOfChain: Readonly<Record<string, Chain>> = { 'store.take_overdue': 'reconciler', 'store.insert': 'intake', 'syncs.due': 'sync', 'syncs.start': 'sync', 'leases.reopen': 'lease' };

/** An Io that numbers the I/Os of one chain and hands each to `around`; all others are simply run. */
export function numberedIo(chain: Chain, around: Around): Io {
  const chains = new AsyncLocalStorage<Chain>();
  let number = 0;
  let passes = 0;
  let leasePasses = 0;
  let isStarted = false;
  return async (kind, name, operation) => {
    const first = firstOfChain[name];
    if (first !== undefined) chains.enterWith(first);
    if (name === 'store.take_overdue') passes += 1;
    if (name === 'leases.reopen') leasePasses += 1;
    // Before it, no worker exists: the account is what a process looks at last when it starts.
    if (!isStarted) {
      isStarted = name === 'environment.account';
      return operation();
    }
    // For people to read, after the job is put back: another worker may have taken it by then. That nothing depends on
    // it is shown in test/queues/job-logs.test.ts.
    if (kind === 'queue' && name === 'log') return operation();
    // Sent after an answer that came late, and awaited by nobody: only a slow machine has it in its course.
    if (name === 'budget.late') return operation();
    const isOther = (chains.getStore() ?? 'job') !== chain || (chain === 'reconciler' && passes > 1) || (chain === 'lease' && leasePasses > 1);
    if (isOther) return operation();
    number += 1;
    return around({ number, kind, name }, operation);
  };
}

/** As {@link numberedIo}, for the saga of orders-app.ts: what its jobs ask of Postgres and of the service. */
export function numberedOrderIo(around: Around): Io {
  let number = 0;
  return async (kind, name, operation) => {
    if (!/^store\.(start|load|commit)$|\/orders$/.test(name)) return operation();
    number += 1;
    return around({ number, kind, name }, operation);
  };
}

/** As {@link numberedIo}, for deliveries of outcomes: what their jobs ask of Postgres and of the receiver. */
export function numberedOutcomeIo(around: Around): Io {
  let number = 0;
  return async (kind, name, operation) => {
    if (!/^outcomes\.(load|read_sagas|failed|delivered)$|^POST webhook$/.test(name)) return operation();
    number += 1;
    return around({ number, kind, name }, operation);
  };
}

/** Runs `strike` at one boundary, and everything else as it is. An I/O that fails has an `after` too. */
export function strikeAt(number: number, position: Exclude<Position, 'during'>, strike: () => Promise<void>): Around {
  return async (boundary, operation) => {
    if (boundary.number !== number) return operation();
    if (position === 'before') await strike();
    try {
      return await operation();
    } finally {
      if (position === 'after') await strike();
    }
  };
}

/** Adds something that happens right after an I/O of this name, by whichever worker. */
export function withSequel(io: Io, name: string, sequel: () => Promise<void>): Io {
  return (kind, ioName, operation) =>
    io(kind, ioName, async () => {
      const result = await operation();
      if (ioName === name) await sequel();
      return result;
    });
}
