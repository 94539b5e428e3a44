// Circuits in front of the API: once DigitalOcean refuses something for a cause that only a person can put right, what
// needs the same is not sent any more. One request at a time probes, ever later; its success lets everything go on.
//
// A 401 is about the token, whatever is asked; that is confirmed by a request for the account. A 403 (and a 401 that the
// account does not confirm) is about one kind of request: its method, its path, and the optional fields that it used. A
// request that uses these and more needs the same scopes and more, so it is held too; one that uses fewer is not.
import { withDeadline } from '../platform/deadline.ts';
import { textOf } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import type { CircuitStore, OpenCircuit } from './circuit-store.ts';
import type { Hold } from './errors.ts';
import { DigitalOceanError } from './errors.ts';
import type { OutcomeKind } from './outcome.ts';
import type { RequestKind } from './scopes.ts';
import { likelyScopes } from './scopes.ts';

/** A request that is about to be made. `subject` tells it from others of its kind: the droplet's name, or the whole path. */
export type Asked = RequestKind & Readonly<{ subject: string }>;

/** Leave to make a request. */
export type Passage = Readonly<{ circuit: OpenCircuit; lease: string } | null>;

/** How a request ended, as far as a circuit is concerned. */
export type Ending = Readonly<{ outcome: OutcomeKind; status: number | null; message: string }>;

/** Makes a request, and says how it ended. */
export async function endingOf(ask: () => Promise<unknown>): Promise<Ending> {
  try {
    await ask();
    return { outcome: 'done', status: 200, message: '' };
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    return { outcome: error.kind, status: error.status, message: error.message };
  }
}

/** By what a request is held, and how long it waits at most for somebody to wake it. */
type Held = Readonly<{ hold: Hold; forMs: number }>;

export type Circuits = Readonly<{
  /**
   * Asked before each request, and before anything is drawn from the budget for it.
   *
   * @returns a lease where the request is the probe of a circuit; to be handed to `settle` or `giveBack`
   * @throws {DigitalOceanError} `unauthorized`, with the code `circuit_open`, where a circuit holds the request
   */
  admit(asked: Asked): Promise<Passage>;
  /**
   * Told how each request ended; returns what holds it from now on, where it was refused. Never throws.
   *
   * @param askAccount asks for the account, past all circuits; resolves with how that ended
   */
  settle(asked: Asked, passage: Passage, ending: Ending, askAccount: () => Promise<Ending>): Promise<Held | null>;
  /** The request was not made after all. Never throws. */
  giveBack(passage: Passage): Promise<void>;
}>;

/** Circuits as a worker keeps them, for the loop that looks after them. */
export type WatchedCircuits = Circuits &
  Readonly<{
    /** Reads what is open; needed where another process may have opened or closed something. */
    refresh(): Promise<void>;
    isAnyOpen(): boolean;
    /** Circuits whose probe is due and is for a request of their kind to make; each is handed out once in a few seconds. */
    takeDue(): Promise<readonly string[]>;
    /** Probes the token's circuit where that is due. */
    probeToken(askAccount: () => Promise<Ending>): Promise<void>;
  }>;

export type CircuitsOptions = Readonly<{
  store: CircuitStore;
  /** How long a probe may take before somebody else may probe. */
  leaseMs: number;
  /** How long what is held waits at most for somebody to wake it. */
  holdMs: number;
  log: Log;
  /** Told when this process has opened a circuit, or closed one. Must not throw. */
  onChanged?: () => void;
}>;

/** No circuits: every request is made. */
export const noCircuits: Circuits = {
  admit: () => Promise.resolve(null),
  settle: () => Promise.resolve(null),
  giveBack: () => Promise.resolve(),
};

// Without the store, what was known of it stands.
const STORE_LIMIT_MS = 5_000;
const WARN_EVERY_MS = 10_000;

const ACCOUNT = '/v2/account';

/** Makes the circuits of one process on the store that its fleet shares. */
export function createCircuits({ store, leaseMs, holdMs, log, onChanged = () => undefined }: CircuitsOptions): WatchedCircuits {
  let open: readonly OpenCircuit[] = [];
  let readAt = 0;
  let confirming: Promise<Ending> | null = null;
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
  const take = (circuit: OpenCircuit) => ask(() => store.lease(circuit.id, leaseMs), null);
  const giveBack = async (passage: Passage, isAsked = false) => {
    if (passage === null) return;
    await ask(() => store.giveBack(passage.circuit.id, passage.lease, isAsked), undefined);
    await refresh();
  };
  const close = async (circuit: OpenCircuit) => {
    await ask(() => store.close(circuit.id), undefined);
    await refresh();
    log.info({ cause: circuit.cause, openedAt: circuit.openedAt }, 'circuit closed: what it held goes on');
    onChanged();
  };
  const refuse = async (asked: Asked, passage: Passage, ending: Ending, isTokenRefused: boolean): Promise<OpenCircuit | null> => {
    const cause = isTokenRefused ? tokenCause : causeOf(asked, ending.status);
    const scopes = !isTokenRefused && ending.status === 403 ? likelyScopes(asked) : [];
    // Without the request: what is held for it asks for something else.
    const detail = { status: ending.status, message: ending.message.replace(/^.* was answered /, ''), scopes };
    const circuit = await ask(() => store.refuse({ ...cause, subject: isTokenRefused ? null : asked.subject, detail, lease: passage?.lease ?? null }), null);
    if (circuit === null) return null;
    const isNew = !open.some(({ id }) => id === circuit.id);
    open = [...open.filter(({ cause: other }) => other !== circuit.cause), { ...circuit, probeInMs: circuit.probeInMs + performance.now() - readAt }].toSorted(byReach);
    if (isNew) {
      log.error({ cause: circuit.cause, ...detail }, 'circuit open: DigitalOcean refuses this, and what needs it waits');
      onChanged();
    }
    return circuit;
  };
  /** The first of many refusals asks for the account; the others wait for its answer. */
  const isTokenRefused = async (asked: Asked, status: number | null, askAccount: () => Promise<Ending>): Promise<boolean> => {
    if (status !== 401) return false;
    if (asked.path === ACCOUNT || open.some(({ kind }) => kind === 'token_refused')) return true;
    confirming ??= askAccount().finally(() => (confirming = null));
    return (await confirming).status === 401;
  };

  return {
    refresh,
    isAnyOpen: () => open.length > 0,
    giveBack: (passage) => giveBack(passage),

    admit: async (asked) => {
      const holding = open.filter((circuit) => holds(circuit, asked));
      const [first] = holding;
      if (first === undefined) return null;
      const blocking = holding.find((circuit) => !isDue(circuit) || isProbedByAccount(circuit));
      if (blocking !== undefined) throw heldError(asked, blocking, holdMs);
      const lease = await take(first);
      if (lease === null) throw heldError(asked, first, holdMs);
      return { circuit: first, lease };
    },

    settle: async (asked, passage, ending, askAccount) => {
      // A token may lack the scope of the account alone: nothing but a check at the start needs it.
      if (ending.outcome === 'unauthorized' && !(asked.path === ACCOUNT && ending.status === 403)) {
        const circuit = await refuse(asked, passage, ending, await isTokenRefused(asked, ending.status, askAccount));
        return circuit === null ? null : { hold: holdOf(circuit), forMs: holdMs };
      }
      if (passage === null) return null;
      if (saysSomething(ending)) await close(passage.circuit);
      else await giveBack(passage, true);
      return null;
    },

    takeDue: async () => {
      const due: string[] = [];
      for (const circuit of open.filter((candidate) => isDue(candidate) && !isProbedByAccount(candidate))) {
        if (await ask(() => store.takeWaking(circuit.id), false)) due.push(circuit.id);
      }
      return due;
    },

    probeToken: async (askAccount) => {
      const circuit = open.find((candidate) => isProbedByAccount(candidate) && isDue(candidate));
      const lease = circuit === undefined ? null : await take(circuit);
      if (circuit === undefined || lease === null) return;
      const passage = { circuit, lease };
      const ending = await askAccount();
      if (ending.status === 401) await refuse({ method: 'GET', path: ACCOUNT, fields: [], subject: ACCOUNT }, passage, ending, true);
      else if (saysSomething(ending)) await close(circuit);
      else await giveBack(passage, true);
    },
  };
}

const tokenCause = { cause: '401', kind: 'token_refused', request: null, fields: [] } as const;

function causeOf({ method, path, fields }: Asked, status: number | null) {
  const request = `${method} ${path}`;
  return { cause: [status, request, ...fields].join(' '), kind: 'request_refused', request, fields } as const;
}

function holds(circuit: OpenCircuit, asked: Asked): boolean {
  if (circuit.request === null) return true;
  if (circuit.request !== `${asked.method} ${asked.path}`) return false;
  if (circuit.subject !== null) return circuit.subject === asked.subject;
  return circuit.fields.every((field) => asked.fields.includes(field));
}

/** Those that hold most come first. */
function byReach(one: OpenCircuit, other: OpenCircuit): number {
  return Number(other.request === null) - Number(one.request === null) || one.fields.length - other.fields.length;
}

/** The account tells whether the token is refused; but where that was not the whole truth once, a real request must. */
function isProbedByAccount({ kind, relapses }: OpenCircuit): boolean {
  return kind === 'token_refused' && relapses === 0;
}

/** An answer that DigitalOcean gave after it had let the request in. */
function saysSomething({ status, outcome }: Ending): boolean {
  return outcome === 'done' || outcome === 'absent' || outcome === 'rejected' || outcome === 'unauthorized' || (outcome === 'later' && status === 422);
}

function heldError({ method, path }: Asked, circuit: OpenCircuit, holdMs: number): DigitalOceanError {
  const what = circuit.request === null ? 'every request' : [circuit.request, ...(circuit.fields.length === 0 ? [] : ['with', circuit.fields.join(', ')])].join(' ');
  return new DigitalOceanError(`${what} is answered ${textOf(circuit.detail['message'])}`, {
    kind: 'unauthorized',
    code: 'circuit_open',
    status: null,
    requestId: null,
    // Not all at once, where nobody wakes them.
    retryAfterMs: Math.round(holdMs * (0.8 + Math.random() * 0.4)),
    method,
    path,
    hold: holdOf(circuit),
  });
}

function holdOf({ id, kind, detail }: OpenCircuit): Hold {
  const { scopes } = detail;
  return { circuit: id, isTokenRefused: kind === 'token_refused', scopes: Array.isArray(scopes) ? scopes.filter((scope) => typeof scope === 'string') : [] };
}
