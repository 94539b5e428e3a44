// Follows a saga: polls it until it is at rest and reports each change.
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import type { Saga } from '../saga/saga.ts';
import { currentStep, isAtRest } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/events.ts';
import type { Surface } from '../saga/words.ts';

/** The result of one poll of a saga. */
export type Snapshot = Readonly<{
  saga: Saga;
  /** All its events so far. */
  events: readonly StoredEvent[];
  /** Number of polls in the current wait; null if it is not waiting. */
  polls: number | null;
}>;

const LOOK_EVERY_MS = 250;

/**
 * Yields a snapshot whenever something may have changed. The last one shows the saga at rest.
 *
 * @param stop stops following, with its reason
 * @param surface the app's texts for its sagas and steps
 * @throws {Error} if the saga does not exist
 */
export async function* followSaga(client: Client, sagaId: string, stop: AbortSignal, surface: Surface): AsyncGenerator<Snapshot, void> {
  const events: StoredEvent[] = [];
  for (;;) {
    const saga = await unlessAborted(stop, client.get(sagaId));
    if (saga === null) throw new Error(`saga ${sagaId} not found`);
    events.push(...(await unlessAborted(stop, client.events(sagaId, events.at(-1)?.seq ?? -1))));
    const atRest = isAtRest(saga.status);
    const isWaiting = !atRest && saga.status === 'running' && surface.step(currentStep(saga))?.notYet !== undefined;
    const polls = isWaiting ? ((await unlessAborted(stop, client.peek(saga)))?.memo['polls'] ?? 0) : null;
    yield { saga, events: [...events], polls };
    if (atRest) return;
    await unlessAborted(stop, delay(LOOK_EVERY_MS));
  }
}
