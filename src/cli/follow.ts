// Following a saga: looks at it again and again until it is at rest, and says what it sees.
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import type { Saga } from '../saga/saga.ts';
import { currentStep, isAtRest } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/store.ts';
import type { Surface } from '../saga/words.ts';

/** One look at a saga. */
export type Snapshot = Readonly<{
  saga: Saga;
  /** Everything that happened to it so far. */
  events: readonly StoredEvent[];
  /** Polls of the current wait; null when nothing is being waited for. */
  polls: number | null;
}>;

const LOOK_EVERY_MS = 250;

/**
 * Yields a snapshot whenever there may be something new; the last one shows the saga at rest.
 *
 * @param stop ends the following, with its reason
 * @param surface what the app says of its sagas and steps
 * @throws {Error} when there is no such saga
 */
export async function* followSaga(client: Client, sagaId: string, stop: AbortSignal, surface: Surface): AsyncGenerator<Snapshot, void> {
  const events: StoredEvent[] = [];
  for (;;) {
    const saga = await unlessAborted(stop, client.get(sagaId));
    if (saga === null) throw new Error(`there is no saga ${sagaId}`);
    events.push(...(await unlessAborted(stop, client.events(sagaId, events.at(-1)?.seq ?? -1))));
    const atRest = isAtRest(saga.status);
    const isWaiting = !atRest && saga.status === 'running' && surface.step(currentStep(saga))?.notYet !== undefined;
    const polls = isWaiting ? ((await unlessAborted(stop, client.peek(saga)))?.memo['polls'] ?? 0) : null;
    yield { saga, events: [...events], polls };
    if (atRest) return;
    await unlessAborted(stop, delay(LOOK_EVERY_MS));
  }
}
