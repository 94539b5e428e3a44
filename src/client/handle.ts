// A caller's handle to a saga: its result and its events. All handles of a client share one poll.
import { setTimeout as delay } from 'node:timers/promises';
import type { z } from 'zod';
import { isDatabaseOutage } from '../platform/db.ts';
import { textOf } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import type { EventFeed } from '../saga/event-feed.ts';
import type { Direction, Saga } from '../saga/saga.ts';
import { isStuckForward } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/events.ts';
import { checkArguments } from './check-arguments.ts';
import { SagaNotFoundError, SagaRolledBackError, SagaStuckError } from './errors.ts';

export type WaitOptions = Readonly<{
  /** Stops waiting, with the signal's reason. The saga continues. */
  signal?: AbortSignal | undefined;
}>;

export type SagaHandle<Outputs> = Readonly<{
  sagaId: string;
  /**
   * Waits until the saga is at rest. Keeps waiting while Postgres is unreachable.
   *
   * @returns the saga's outputs
   * @throws {SagaRolledBackError} if it was rolled back, refused or cancelled, with the reason
   * @throws {SagaStuckError} if its rollback, or a step that must be done, failed permanently; call again after `retry`
   * @throws {SagaNotFoundError} {ClientClosedError}; the signal's reason, if it is aborted
   */
  result(options?: WaitOptions): Promise<Outputs>;
  /**
   * Yields the saga's past events and then its new ones, in order and without gaps, until it is at rest.
   *
   * @param options.afterSeq starts after this event; by default with the first
   * @throws {SagaNotFoundError} {ClientClosedError}; the signal's reason, if it is aborted
   */
  events(options?: WaitOptions & { afterSeq?: number | undefined }): AsyncGenerator<StoredEvent, void, void>;
}>;

/** The queries of a handle. */
export type SagaReader = Readonly<{
  get(sagaId: string): Promise<Saga | null>;
  events(sagaId: string, afterSeq?: number): Promise<StoredEvent[]>;
}>;

const AFTER_OUTAGE_MS = 1_000;

// Higher than any event's number: waiting for the end needs no events.
const NO_EVENTS = 2_147_483_647;

/**
 * Creates a handle.
 *
 * @param options.outputs selects what the caller gets of the saga's context
 * @param options.closed aborted when the client is closed
 */
export function createHandle<Outputs>(
  sagaId: string,
  options: { reader: SagaReader; feed: EventFeed; outputs: z.ZodType<Outputs>; closed: AbortSignal; log: Log },
): SagaHandle<Outputs> {
  const { reader, feed, outputs, closed, log } = options;

  const patiently = async <T>(observe: () => Promise<T>, signal: AbortSignal): Promise<T> => {
    for (;;) {
      signal.throwIfAborted();
      try {
        return await observe();
      } catch (error) {
        signal.throwIfAborted();
        if (!isDatabaseOutage(error)) throw error;
        log.warn({ sagaId, err: error }, 'Postgres is unreachable: still waiting');
        await pause(AFTER_OUTAGE_MS, signal);
      }
    }
  };

  const existing = async (): Promise<Saga> => {
    const saga = await reader.get(sagaId);
    if (saga === null) throw new SagaNotFoundError(sagaId);
    return saga;
  };

  return {
    sagaId,
    result: async ({ signal } = {}) => {
      const ending = anyOf(closed, signal);
      for (;;) {
        await eventsOf(feed, sagaId, NO_EVENTS, ending).next();
        const saga = await patiently(existing, ending);
        if (saga.status === 'completed') return outputs.parse(saga.context);
        if (saga.status === 'compensated') throw new SagaRolledBackError(sagaId, reasonOf(saga));
        if (saga.status === 'stuck') throw stuckError(saga, await patiently(() => reader.events(sagaId), ending));
        // A stuck saga was resumed between the two reads.
      }
    },
    events: ({ signal, afterSeq = -1 } = {}) => {
      // In the feed, it would fail the other handles too.
      checkArguments('afterSeq', { afterSeq });
      return eventsOf(feed, sagaId, afterSeq, anyOf(closed, signal));
    },
  };
}

/** Yields what the feed reports about a saga, until it is at rest. */
async function* eventsOf(feed: EventFeed, sagaId: string, afterSeq: number, signal: AbortSignal): AsyncGenerator<StoredEvent, void, void> {
  signal.throwIfAborted();
  const told: StoredEvent[] = [];
  const state: { end: { error: unknown } | 'over' | null } = { end: null };
  let news = Promise.withResolvers<void>();
  const tell = (): void => news.resolve();
  const leave = feed.listen(sagaId, afterSeq, {
    onEvent: (event) => {
      told.push(event);
      tell();
    },
    onEnd: (status) => {
      state.end = status === 'gone' ? { error: new SagaNotFoundError(sagaId) } : 'over';
      tell();
    },
    onFailure: (error) => {
      state.end = { error };
      tell();
    },
  });
  signal.addEventListener('abort', tell, { once: true });
  try {
    for (;;) {
      signal.throwIfAborted();
      const event = told.shift();
      if (event !== undefined) {
        yield event;
        continue;
      }
      if (state.end === 'over') return;
      if (state.end !== null) throw state.end.error;
      await news.promise;
      news = Promise.withResolvers<void>();
    }
  } finally {
    leave();
    signal.removeEventListener('abort', tell);
  }
}

function anyOf(closed: AbortSignal, signal: AbortSignal | undefined): AbortSignal {
  return signal === undefined ? closed : AbortSignal.any([closed, signal]);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

function stuckError(saga: Saga, events: readonly StoredEvent[]): SagaStuckError {
  const last = events.findLast((event) => event.kind === 'compensation_stuck' || event.kind === 'step_stuck');
  const failed = { step: last?.step ?? '', message: textOf(last?.detail['message'], 'no reason recorded') };
  return new SagaStuckError(saga.id, reasonOf(saga), failed, directionOfStuck(saga));
}

function directionOfStuck(saga: Saga): Direction {
  return isStuckForward(saga) ? 'forward' : 'backward';
}

function reasonOf(saga: Saga): NonNullable<Saga['error']> {
  return saga.error ?? { code: 'unknown', message: 'no reason recorded', step: '', retryable: false };
}
