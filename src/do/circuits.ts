// Circuit breakers in front of the API. Once DigitalOcean refuses a request for a cause that only a person can fix,
// requests that depend on the same cause are held. One request at a time probes, at growing intervals. A successful probe
// closes the circuit.
//
// A 401 concerns the token, whatever the request; a request for the account confirms it. A 403 (and a 401 that the
// account does not confirm) concerns one kind of request: its method, its path and the optional fields that it used. A
// request with at least these fields needs at least the same scopes, so it is held too. A request with fewer is not.
//
// If creates are to wait for room, a full account holds them all. There may be room for only one of them, so a successful
// create does not close this circuit: the next one goes out, until one is refused or none waits.
import { withDeadline } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import type { Asked, Ending } from './circuit-rules.ts';
import { byReach, canProbeHarmlessly, causeOf, detailOf, fullCause, heldError, holdOf, holds, isAccountFull, isProbedByAccount, saysSomething, tokenCause } from './circuit-rules.ts';
import type { CircuitStore, OpenCircuit } from './circuit-store.ts';
import type { Hold } from './errors.ts';
import { DigitalOceanError } from './errors.ts';
import { isDispensable, likelyScopes } from './scopes.ts';

/**
 * Permission to send a request. If the request probes a circuit, it names the circuit and the lease, and whether a
 * harmless request invited it.
 */
export type Passage = Readonly<{ circuit: OpenCircuit; lease: string; isInvited: boolean }> | null;

/** Sends a request and returns how it ended. */
export async function endingOf(ask: () => Promise<unknown>): Promise<Ending> {
  try {
    await ask();
    return { outcome: 'done', status: 200, message: '' };
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    return { outcome: error.kind, status: error.status, message: error.message };
  }
}

/**
 * A refused request, as its caller sees it: what holds it, the longest time until it is retried without being woken, and
 * the failure's new kind.
 */
type Held = Readonly<{ hold: Hold; forMs: number; kind: 'unauthorized' | 'throttled' }>;

/** A circuit that is due for a probe by one of the sagas that it holds. `inOrder`: they go in the order in which they came. */
export type DueCircuit = Readonly<{ id: string; inOrder: boolean }>;

/** Probes a circuit by requests that have no effect. */
export type HarmlessProbe = (circuit: Pick<OpenCircuit, 'kind' | 'request' | 'fields'>) => Promise<Ending>;

export type Circuits = Readonly<{
  /**
   * Call this before each request, and before drawing it from the budget.
   *
   * @returns a lease if the request is the probe of a circuit; pass it to `settle` or `giveBack`
   * @throws {DigitalOceanError} `unauthorized` with the code `circuit_open` if a circuit holds the request; `throttled` if
   *   the account is full
   */
  admit(asked: Asked): Promise<Passage>;
  /**
   * Call this with the ending of each request. If the request was refused, returns what holds it from now on. Never
   * throws.
   *
   * @param askAccount requests the account, bypassing all circuits, and resolves with how that ended
   */
  settle(asked: Asked, passage: Passage, ending: Ending, askAccount: () => Promise<Ending>): Promise<Held | null>;
  /** Call this if the request was not sent after all, and is to be in so many milliseconds. Never throws. */
  giveBack(passage: Passage, againInMs: number): Promise<void>;
}>;

/** The circuits of a worker, for the loop that maintains them. */
export type WatchedCircuits = Circuits &
  Readonly<{
    /** Reads the open circuits. Needed because other processes may have opened or closed some. */
    refresh(): Promise<void>;
    isAnyOpen(): boolean;
    /**
     * Returns circuits that are due for a probe by a request of their kind. Each is returned only once every few seconds.
     */
    takeDue(): Promise<readonly DueCircuit[]>;
    /**
     * Probes a due circuit without a saga, if that is possible.
     *
     * @returns whether a saga may probe now: nothing speaks against it, or only a saga can tell
     */
    maySagaProbe(id: string, harmless: HarmlessProbe): Promise<boolean>;
    /** Call this if no saga waits for a circuit that is due. `hasHeld`: it held some until now. */
    nobodyWaits(id: string, hasHeld: boolean): Promise<void>;
    /** Probes the token's circuit if that is due. */
    probeToken(askAccount: () => Promise<Ending>): Promise<void>;
  }>;

export type CircuitsOptions = Readonly<{
  store: CircuitStore;
  /** The longest duration of a probe. Then another process may probe. */
  leaseMs: number;
  /** The longest time until a held request is retried without being woken. */
  holdMs: number;
  /** Whether creates wait while the account is full; otherwise they fail. */
  waitsForRoom?: boolean;
  log: Log;
  /** Called when this process opens or closes a circuit. Must not throw. */
  onChanged?: () => void;
}>;

/** No circuits: every request is sent. */
export const noCircuits: Circuits = {
  admit: () => Promise.resolve(null),
  settle: () => Promise.resolve(null),
  giveBack: () => Promise.resolve(),
};

// While the store is unreachable, the last known state applies.
const STORE_LIMIT_MS = 5_000;
const WARN_EVERY_MS = 10_000;

// Retry interval of a create that is to wait for room, while the store is unreachable.
const UNRECORDED_MS = 15_000;

// The next saga of those that wait for room is woken within a second.
const GOES_ON_MS = 10_000;

const ACCOUNT = '/v2/account';

/** Creates the circuits of one process on the store that the fleet shares. */
export function createCircuits({ store, leaseMs, holdMs, waitsForRoom = false, log, onChanged = () => undefined }: CircuitsOptions): WatchedCircuits {
  let open: readonly OpenCircuit[] = [];
  let readAt = 0;
  let confirming: Promise<Ending> | null = null;
  // Circuits whose next probe needs no harmless request before it, because a create has just succeeded, and until when.
  const goingOn = new Map<string, number>();
  const warn = onceInAWhile(WARN_EVERY_MS, (error: unknown) => log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'the circuits could not be read or written'));

  const ask = async <T>(operation: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await withDeadline(STORE_LIMIT_MS, operation(), () => new Error(`no answer within ${STORE_LIMIT_MS} ms`));
    } catch (error) {
      warn(error);
      return otherwise;
    }
  };
  const refresh = async () => {
    const read = await ask(() => store.listOpen(), null);
    if (read === null) return;
    open = read.toSorted(byReach);
    readAt = performance.now();
  };
  const isDue = (circuit: OpenCircuit) => circuit.probeInMs <= performance.now() - readAt;
  const take = (circuit: OpenCircuit, invitedOnly = false) => ask(() => store.lease(circuit.id, leaseMs, invitedOnly), null);
  const giveBack = async (passage: Passage, how: { isAsked: true } | { againInMs: number }) => {
    if (passage === null) return;
    const invitedForMs = passage.isInvited && 'againInMs' in how ? how.againInMs : null;
    await ask(() => store.giveBack(passage.circuit.id, passage.lease, { isAsked: 'isAsked' in how, invitedForMs }), undefined);
    await refresh();
  };
  const takeGoingOn = (id: string): boolean => {
    const until = goingOn.get(id) ?? 0;
    goingOn.delete(id);
    return performance.now() < until;
  };
  const close = async (circuit: OpenCircuit, why = 'circuit closed: what it held goes on') => {
    await ask(() => store.close(circuit.id), undefined);
    await refresh();
    log.info({ cause: circuit.cause, openedAt: circuit.openedAt }, why);
    onChanged();
  };
  const record = async (refusal: Parameters<CircuitStore['refuse']>[0]): Promise<OpenCircuit | null> => {
    const circuit = await ask(() => store.refuse(refusal), null);
    if (circuit === null) return null;
    const isNew = !open.some(({ id }) => id === circuit.id);
    open = [...open.filter(({ cause: other }) => other !== circuit.cause), { ...circuit, probeInMs: circuit.probeInMs + performance.now() - readAt }].toSorted(byReach);
    if (isNew) {
      log.error({ cause: circuit.cause, ...refusal.detail }, 'circuit open: DigitalOcean refuses this, and what needs it waits');
      onChanged();
    }
    return circuit;
  };
  const refuse = async (asked: Asked, passage: Passage, ending: Ending, isTokenRefused: boolean): Promise<OpenCircuit | null> => {
    const cause = isTokenRefused ? tokenCause : causeOf(asked, ending.status);
    const scopes = !isTokenRefused && ending.status === 403 ? likelyScopes(asked) : [];
    return record({ ...cause, subject: isTokenRefused ? null : asked.subject, detail: detailOf(ending, scopes), lease: passage?.lease ?? null });
  };
  /** A probe succeeded. */
  const admitted = async (passage: NonNullable<Passage>) => {
    if (passage.circuit.kind !== 'account_full') return close(passage.circuit);
    goingOn.set(passage.circuit.id, performance.now() + GOES_ON_MS);
    await ask(() => store.goOn(passage.circuit.id, passage.lease), undefined);
    await refresh();
    return onChanged();
  };
  /** A droplet is gone, so there may be room for another. */
  const expectRoom = async () => {
    const full = open.find(({ kind }) => kind === 'account_full');
    if (full === undefined) return;
    await ask(() => store.hasten(full.id), undefined);
    await refresh();
  };
  /** The first of several refusals requests the account. The others wait for its response. */
  const isTokenRefused = async (asked: Asked, status: number | null, askAccount: () => Promise<Ending>): Promise<boolean> => {
    if (status !== 401) return false;
    if (asked.path === ACCOUNT || open.some(({ kind }) => kind === 'token_refused')) return true;
    confirming ??= askAccount().finally(() => (confirming = null));
    return (await confirming).status === 401;
  };

  return {
    refresh,
    isAnyOpen: () => open.length > 0,
    giveBack: (passage, againInMs) => giveBack(passage, { againInMs }),

    admit: async (asked) => {
      const holding = open.filter((circuit) => holds(circuit, asked));
      const [first] = holding;
      if (first === undefined) return null;
      const blocking = holding.find((circuit) => isProbedByAccount(circuit) || !(isDue(circuit) || circuit.isInvited));
      if (blocking !== undefined) throw heldError(asked, blocking, holdMs);
      // Who comes while a harmless request can probe leaves that to it: a real one would have to be announced.
      const isInvited = canProbeHarmlessly(first);
      const lease = await take(first, isInvited);
      if (lease === null) throw heldError(asked, first, holdMs);
      return { circuit: first, lease, isInvited };
    },

    settle: async (asked, passage, ending, askAccount) => {
      // The sagas that a full account holds were to wait, whatever this worker would have done with its own.
      if ((waitsForRoom || passage?.circuit.kind === 'account_full') && isAccountFull(asked, ending)) {
        const circuit = await record({ ...fullCause, subject: null, detail: detailOf(ending, []), lease: passage?.lease ?? null });
        return { hold: circuit === null ? { circuit: null, isTokenRefused: false, scopes: [], isAccountFull: true } : holdOf(circuit), forMs: circuit === null ? UNRECORDED_MS : holdMs, kind: 'throttled' };
      }
      // A token may lack only the account scope, which nothing but the startup check needs. The same goes for the scopes
      // of tidying up.
      if (ending.outcome === 'unauthorized' && !(ending.status === 403 && (asked.path === ACCOUNT || isDispensable(asked)))) {
        const circuit = await refuse(asked, passage, ending, await isTokenRefused(asked, ending.status, askAccount));
        return circuit === null ? null : { hold: holdOf(circuit), forMs: holdMs, kind: 'unauthorized' };
      }
      if (ending.outcome === 'done' && asked.method === 'DELETE' && asked.path === '/v2/droplets/{id}') await expectRoom();
      if (passage === null) return null;
      if (saysSomething(ending)) await admitted(passage);
      else await giveBack(passage, { isAsked: true });
      return null;
    },

    takeDue: async () => {
      const due: DueCircuit[] = [];
      for (const { id, kind } of open.filter((candidate) => isDue(candidate) && !isProbedByAccount(candidate))) {
        if (await ask(() => store.takeWaking(id), false)) due.push({ id, inOrder: kind === 'account_full' });
      }
      return due;
    },

    maySagaProbe: async (id, harmless) => {
      const circuit = open.find((one) => one.id === id);
      if (circuit === undefined) return false;
      if (!canProbeHarmlessly(circuit)) return true;
      const lease = await take(circuit);
      if (lease === null) return false;
      const ending: Ending = takeGoingOn(id) ? { outcome: 'done', status: null, message: '' } : await harmless(circuit);
      if (ending.outcome === 'unauthorized' || (circuit.kind === 'account_full' && ending.outcome === 'rejected')) {
        const { cause, kind, request, fields, subject, detail } = circuit;
        await record({ cause, kind, request, fields, subject, detail, lease });
        return false;
      }
      if (!saysSomething(ending)) {
        await giveBack({ circuit, lease, isInvited: false }, { isAsked: true });
        return false;
      }
      await ask(() => store.invite(circuit.id, lease), undefined);
      await refresh();
      return true;
    },

    nobodyWaits: async (id, hasHeld) => {
      const circuit = open.find((one) => one.id === id);
      // What no saga asked for, such as a list for the inventory, is probed when it is asked for again. Until then, people see
      // that it is refused.
      if (circuit !== undefined && (hasHeld || circuit.kind === 'account_full')) await close(circuit, 'circuit closed: nobody waits for it any more');
    },

    probeToken: async (askAccount) => {
      const circuit = open.find((candidate) => isProbedByAccount(candidate) && isDue(candidate));
      const lease = circuit === undefined ? null : await take(circuit);
      if (circuit === undefined || lease === null) return;
      const passage = { circuit, lease, isInvited: false };
      const ending = await askAccount();
      if (ending.status === 401) await refuse({ method: 'GET', path: ACCOUNT, fields: [], subject: ACCOUNT }, passage, ending, true);
      else if (saysSomething(ending)) await close(circuit);
      else await giveBack(passage, { isAsked: true });
    },
  };
}
