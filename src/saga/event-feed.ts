// What happens to sagas, as it happens: one poll of Postgres for all who listen, whatever the number of sagas. Polled
// rather than notified, so that it also works through connection poolers, and loses nothing when a connection is lost.
import { isDatabaseOutage } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import type { SagaStatus } from './saga.ts';
import { isAtRest } from './saga.ts';
import type { SagaProgress, StoredEvent } from './store.ts';
import { createWakeup } from './wakeup.ts';

/**
 * One who listens to a saga. `onEvent` gets each event once, in order; `onEnd`, or `onFailure`, is the last call. `onFailure`
 * is told of an error that is no outage of Postgres; a listener without it waits on.
 */
export type Listener = Readonly<{ onEvent(event: StoredEvent): void; onEnd(status: SagaStatus | 'gone'): void; onFailure?(error: unknown): void }>;

/** Reads how far sagas are, by their ids; those that are not there are left out. */
export type ReadProgress = (wanted: readonly { sagaId: string; afterSeq: number }[]) => Promise<ReadonlyMap<string, SagaProgress>>;

export type EventFeed = Readonly<{
  /** Listens to what happens after event `afterSeq`; returns what ends it. */
  listen(sagaId: string, afterSeq: number, listener: Listener): () => void;
}>;

const POLL_EVERY_MS = 500;
const AFTER_FAILURE_MS = 2_000;

// One statement asks for so many sagas at most.
const BATCH = 500;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

// Postgres' largest integer.
const MAX_SEQ = 2_147_483_647;

/** One listener, and the last event that it was given. */
type Seat = { readonly sagaId: string; lastSeq: number; readonly listener: Listener };

/** Makes a feed. It polls only while somebody listens; whoever comes is served at once. */
export function createEventFeed(read: ReadProgress, log: Log, pollEveryMs = POLL_EVERY_MS): EventFeed {
  const seats = new Set<Seat>();
  const wakeup = createWakeup();
  const never = new AbortController().signal;
  let isRunning = false;

  const run = async (): Promise<void> => {
    isRunning = true;
    while (seats.size > 0) {
      let pauseMs = pollEveryMs;
      try {
        await poll([...seats]);
      } catch (error) {
        pauseMs = AFTER_FAILURE_MS;
        if (!isDatabaseOutage(error)) failAll(error);
        if (seats.size > 0) log.warn({ err: error }, 'events could not be read: trying again');
      }
      if (seats.size > 0) await wakeup.wait(pauseMs, never);
    }
    isRunning = false;
  };

  const poll = async (present: readonly Seat[]): Promise<void> => {
    const bySaga = Map.groupBy(present, ({ sagaId }) => sagaId);
    const wanted = [...bySaga].map(([sagaId, group]) => ({ sagaId, afterSeq: Math.min(...group.map(({ lastSeq }) => lastSeq)) }));
    for (let start = 0; start < wanted.length; start += BATCH) {
      const batch = wanted.slice(start, start + BATCH);
      const progress = await read(batch);
      for (const { sagaId } of batch) {
        for (const seat of bySaga.get(sagaId) ?? []) if (seats.has(seat)) serve(seat, progress.get(sagaId));
      }
    }
  };

  const failAll = (error: unknown): void => {
    for (const seat of seats) {
      if (seat.listener.onFailure === undefined) continue;
      seats.delete(seat);
      seat.listener.onFailure(error);
    }
  };

  const serve = (seat: Seat, progress: SagaProgress | undefined): void => {
    for (const event of progress?.events ?? []) {
      if (event.seq <= seat.lastSeq) continue;
      seat.lastSeq = event.seq;
      seat.listener.onEvent(event);
    }
    if (progress !== undefined && !isAtRest(progress.status)) return;
    seats.delete(seat);
    seat.listener.onEnd(progress?.status ?? 'gone');
  };

  return {
    listen: (sagaId, afterSeq, listener) => {
      // One statement asks for all: what Postgres would refuse must not be in it.
      if (!UUID.test(sagaId)) {
        queueMicrotask(() => listener.onEnd('gone'));
        return () => undefined;
      }
      const seat: Seat = { sagaId: sagaId.toLowerCase(), lastSeq: Math.trunc(Math.min(Math.max(afterSeq, -1), MAX_SEQ)), listener };
      seats.add(seat);
      if (isRunning) wakeup.wake();
      else void run();
      return () => {
        seats.delete(seat);
        if (seats.size === 0) wakeup.wake();
      };
    },
  };
}
