// A live feed of saga events. One poll of Postgres serves all listeners, whatever the number of sagas. Polling, unlike
// LISTEN/NOTIFY, works through connection poolers and loses nothing when a connection is lost.
import { isDatabaseOutage } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { isUuid } from '../platform/uuid.ts';
import type { SagaStatus } from './saga.ts';
import { isAtRest } from './saga.ts';
import type { SagaProgress, StoredEvent } from './events.ts';
import { createWakeup } from './wakeup.ts';

/**
 * A listener to a saga. `onEvent` receives each event once, in order. `onEnd` or `onFailure` is the last call.
 * `onFailure` receives an error that is not an outage of Postgres; a listener without it keeps waiting.
 */
export type Listener = Readonly<{ onEvent(event: StoredEvent): void; onEnd(status: SagaStatus | 'gone'): void; onFailure?(error: unknown): void }>;

/** Reads the progress of sagas by id. Omits missing sagas. */
export type ReadProgress = (wanted: readonly { sagaId: string; afterSeq: number }[]) => Promise<ReadonlyMap<string, SagaProgress>>;

export type EventFeed = Readonly<{
  /** Listens to events after `afterSeq`. Returns a function that stops listening. */
  listen(sagaId: string, afterSeq: number, listener: Listener): () => void;
}>;

const POLL_EVERY_MS = 500;
const AFTER_FAILURE_MS = 2_000;

// Maximum number of sagas per statement.
const BATCH = 500;

// Postgres' largest integer.
const MAX_SEQ = 2_147_483_647;

/** A listener and the last event it received. */
type Seat = { readonly sagaId: string; lastSeq: number; readonly listener: Listener };

/** Creates a feed. It polls only while it has listeners, and polls at once for a new one. */
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
        if (seats.size > 0) log.warn({ err: error }, 'could not read events: trying again');
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
      // One statement serves all listeners, so it must not contain an id that Postgres would refuse.
      if (!isUuid(sagaId)) {
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
