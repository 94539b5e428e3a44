// The rules of circuits: which cause a refusal has, which requests it concerns, and what tells that it is over.
import { textOf } from '../platform/json.ts';
import type { OpenCircuit } from './circuit-store.ts';
import type { Hold } from './errors.ts';
import { DigitalOceanError, withoutRequest } from './errors.ts';
import { harmlessRequest } from './harmless-request.ts';
import type { OutcomeKind } from './outcome.ts';
import type { RequestKind } from './scopes.ts';

/** A request about to be sent. `subject` distinguishes it from others of its kind: the droplet's name or the whole path. */
export type Asked = RequestKind & Readonly<{ subject: string }>;

/** How a request ended, as far as circuits need to know. */
export type Ending = Readonly<{ outcome: OutcomeKind; status: number | null; message: string }>;

/** A refused token. */
export const tokenCause = { cause: '401', kind: 'token_refused', request: null, fields: [] } as const;

const CREATE = 'POST /v2/droplets';

/** A full account. */
export const fullCause = { cause: `422 ${CREATE}`, kind: 'account_full', request: CREATE, fields: [] } as const;

/** Whether a create failed because the account is full. Source of the message: users report "creating this/these droplet(s) will exceed your droplet limit". */
export function isAccountFull({ method, path }: Asked, { outcome, status, message }: Ending): boolean {
  return outcome === 'rejected' && status === 422 && `${method} ${path}` === CREATE && /droplet limit/i.test(message);
}

/** What is kept of a refusal, for people. The request is cut from the message: the requests that the circuit holds are different ones. */
export function detailOf({ status, message }: Ending, scopes: readonly string[]) {
  return { status, message: withoutRequest(message), scopes: [...scopes] };
}

/** The cause of a refusal that concerns one kind of request. */
export function causeOf({ method, path, fields }: Asked, status: number | null) {
  const request = `${method} ${path}`;
  return { cause: [status, request, ...fields].join(' '), kind: 'request_refused', request, fields } as const;
}

/** Whether a circuit holds a request. */
export function holds(circuit: OpenCircuit, asked: Asked): boolean {
  if (circuit.request === null) return true;
  if (circuit.request !== `${asked.method} ${asked.path}`) return false;
  if (circuit.subject !== null) return circuit.subject === asked.subject;
  return circuit.fields.every((field) => asked.fields.includes(field));
}

/** Sorts the circuits that hold most requests first. */
export function byReach(one: OpenCircuit, other: OpenCircuit): number {
  return Number(other.request === null) - Number(one.request === null) || one.fields.length - other.fields.length;
}

/** The account normally shows whether the token is refused. If that was misleading once, only a real request can tell. */
export function isProbedByAccount({ kind, relapses }: OpenCircuit): boolean {
  return kind === 'token_refused' && relapses === 0;
}

/** Whether a request without an effect shows if the refusal is over. */
export function canProbeHarmlessly({ kind, request, fields }: OpenCircuit): boolean {
  return kind === 'account_full' || (request !== null && harmlessRequest(request, fields) !== null);
}

/** Whether DigitalOcean admitted the request before it gave this response. */
export function saysSomething({ status, outcome }: Ending): boolean {
  return outcome === 'done' || outcome === 'absent' || outcome === 'rejected' || outcome === 'unauthorized' || (outcome === 'later' && status === 422);
}

/** The error of a request that a circuit holds for about `holdMs` milliseconds, unless it is woken. */
export function heldError({ method, path }: Asked, circuit: OpenCircuit, holdMs: number): DigitalOceanError {
  const what = circuit.request === null ? 'every request' : [circuit.request, ...(circuit.fields.length === 0 ? [] : ['with', circuit.fields.join(', ')])].join(' ');
  return new DigitalOceanError(`${what} is answered ${textOf(circuit.detail['message'])}`, {
    kind: circuit.kind === 'account_full' ? 'throttled' : 'unauthorized',
    code: 'circuit_open',
    status: null,
    requestId: null,
    // Jitter, so that held requests do not all retry at once if nothing wakes them.
    retryAfterMs: Math.round(holdMs * (0.8 + Math.random() * 0.4)),
    method,
    path,
    hold: holdOf(circuit),
  });
}

/** What an error tells of the circuit that holds its request. */
export function holdOf({ id, kind, detail }: OpenCircuit): Hold {
  const { scopes } = detail;
  return { circuit: id, isTokenRefused: kind === 'token_refused', ...(kind === 'account_full' ? { isAccountFull: true } : {}), scopes: Array.isArray(scopes) ? scopes.filter((scope) => typeof scope === 'string') : [] };
}
