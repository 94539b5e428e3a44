// What happens to sagas, as it happens: one poll of Postgres for all who listen to the same saga. Polled rather than
// notified, so that it also works through connection poolers, and loses nothing when a connection is lost.
import type { Log } from '../log.ts';
import { isAtRest } from '../saga/saga.ts';
import type { SagaStatus } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/store.ts';
import type { SagaPort } from './ports.ts';

/** One who listens to a saga. `onEvent` gets each event once, in order; `onEnd` is the last call. */
export type Listener = Readonly<{ onEvent(event: StoredEvent): void; onEnd(status: SagaStatus | 'gone'): void }>;

export type EventFeed = Readonly<{
  /** Listens to what happens after event `afterSeq`; returns what ends it. */
  listen(sagaId: string, afterSeq: number, listener: Listener): () => void;
}>;

const POLL_EVERY_MS = 500;
const AFTER_FAILURE_MS = 2_000;

/** One listener, and the last event that it was given. */
type Seat = { lastSeq: number; readonly listener: Listener };

/** Makes a feed. It polls only while somebody listens. */
export function createEventFeed(sagas: Pick<SagaPort, 'get' | 'events'>, log: Log, pollEveryMs = POLL_EVERY_MS): EventFeed {
  const rooms = new Map<string, Set<Seat>>();

  const poll = async (sagaId: string, seats: Set<Seat>): Promise<void> => {
    // The saga first: where it is at rest already, the events read after it are all there will be.
    const saga = await sagas.get(sagaId);
    const present = [...seats];
    const events = await sagas.events(sagaId, Math.min(...present.map(({ lastSeq }) => lastSeq)));
    for (const seat of present.filter((candidate) => seats.has(candidate))) {
      for (const event of events.filter(({ seq }) => seq > seat.lastSeq)) {
        seat.lastSeq = event.seq;
        seat.listener.onEvent(event);
      }
      if (saga !== null && !isAtRest(saga.status)) continue;
      seats.delete(seat);
      seat.listener.onEnd(saga?.status ?? 'gone');
    }
  };

  const run = (sagaId: string, seats: Set<Seat>): void => {
    const again = (delayMs: number): void => {
      if (seats.size > 0) setTimeout(() => run(sagaId, seats), delayMs);
      else if (rooms.get(sagaId) === seats) rooms.delete(sagaId);
    };
    if (seats.size === 0) {
      again(0);
      return;
    }
    poll(sagaId, seats).then(
      () => again(pollEveryMs),
      (error: unknown) => {
        log.warn({ sagaId, err: error }, 'events could not be read: trying again');
        again(AFTER_FAILURE_MS);
      },
    );
  };

  return {
    listen: (sagaId, afterSeq, listener) => {
      const seat: Seat = { lastSeq: afterSeq, listener };
      const seats = rooms.get(sagaId);
      if (seats !== undefined) {
        seats.add(seat);
      } else {
        const opened = new Set([seat]);
        rooms.set(sagaId, opened);
        run(sagaId, opened);
      }
      return () => rooms.get(sagaId)?.delete(seat);
    },
  };
}
