// Reserves each request to DigitalOcean before it is sent: checks that no circuit holds it, then draws it from the
// fleet's request budget by its priority. Nothing is sent without a reservation.

import type { Drawn, Priority, RequestBudget, Waiter } from './budget.ts';
import type { Asked, Ending } from './circuit-rules.ts';
import type { Circuits, Passage } from './circuits.ts';
import { DigitalOceanError, type DigitalOceanFailure } from './errors.ts';

/**
 * Permission to send one request, which is already drawn from the budget. `passage` is set if the request probes a
 * circuit.
 */
export type Reservation = Drawn & Readonly<{ passage: Passage }>;

export type Reservations = Readonly<{
  /**
   * Asks the circuits, then draws the request from the budget, for whoever waits for it. A request with the priority `now` bypasses the circuits.
   *
   * @throws {DigitalOceanError} `unauthorized` if a circuit holds the request, `throttled` if the budget has no room
   */
  reserve(asked: Asked, priority: Priority, waiter?: Waiter | null): Promise<Reservation>;
  /** Gives up the turn of a waiter in the budget. Never throws. */
  withdraw(waiter: Waiter): Promise<void>;
  /** Tells the circuits how a reserved request ended. */
  done(asked: Asked, reservation: Reservation, ending: Ending): Promise<void>;
  /**
   * Tells the circuits that a reserved request failed. Returns the error to throw, which names the circuit that now holds
   * the request, if any.
   */
  failed(asked: Asked, reservation: Reservation, error: DigitalOceanError): Promise<DigitalOceanError>;
}>;

/**
 * Creates the reservations of one client.
 *
 * @param options.askAccount requests the account, bypassing all circuits, and resolves with how that ended
 */
export function createReservations(options: { budget: RequestBudget; circuits: Circuits; askAccount: () => Promise<Ending> }): Reservations {
  const { budget, circuits, askAccount } = options;
  const admit = async (asked: Asked, waiter: Waiter | null = null): Promise<Passage> => {
    try {
      return await circuits.admit(asked);
    } catch (error) {
      // Who is held does not ask again for long. Its turn would keep room from others.
      if (waiter !== null) await budget.withdraw(waiter);
      throw error;
    }
  };
  return {
    reserve: async (asked, priority, waiter) => {
      const passage = priority === 'now' ? null : await admit(asked, waiter);
      try {
        return { ...(await budget.draw(priority, { method: asked.method, path: asked.path }, waiter)), passage };
      } catch (error) {
        await circuits.giveBack(passage, error instanceof DigitalOceanError ? (error.retryAfterMs ?? 0) : 0);
        throw error;
      }
    },
    withdraw: budget.withdraw,
    done: async (asked, { passage }, ending) => {
      await circuits.settle(asked, passage, ending, askAccount);
    },
    failed: async (asked, { passage }, error) => {
      const held = await circuits.settle(asked, passage, { outcome: error.kind, status: error.status, message: error.message }, askAccount);
      return held === null ? error : new DigitalOceanError(error.message, { ...fieldsOf(error), kind: held.kind, retryAfterMs: held.forMs, hold: held.hold });
    },
  };
}

function fieldsOf({ kind, code, status, requestId, retryAfterMs, method, path, hold }: DigitalOceanError): DigitalOceanFailure {
  return { kind, code, status, requestId, retryAfterMs, method, path, hold };
}
