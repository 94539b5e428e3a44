// One call of the DigitalOcean API: reserves a request, sends it, reads and classifies the response, and returns the
// result or throws a DigitalOceanError. It knows the API's conventions (JSON, error bodies, headers) but no single
// endpoint.

import type { z } from 'zod';
import type { Io } from '../platform/io.ts';
import { parseJson, textOf, type JsonObject } from '../platform/json.ts';
import type { Priority, Waiter } from './budget.ts';
import type { Asked } from './circuit-rules.ts';
import { cleanId, cleanMessage, DigitalOceanError, returned, type Secrets } from './errors.ts';
import type { Answered, Exchange, Exchanger } from './exchange.ts';
import type { ObservedAnswer } from './observed-answer.ts';
import { classify, type Answer, type FailureKind, type Method, type OutcomeKind, type Reply } from './outcome.ts';
import { computeThrottleMs, readRateLimit, readRetryAfterMs } from './rate-limit.ts';
import type { Reservation, Reservations } from './reservations.ts';
import { errorBody } from './schemas.ts';
import { likelyScopes, usedFields } from './scopes.ts';

export type Call<T> = {
  readonly method: Method;
  readonly path: string;
  readonly params?: Readonly<Record<string, string | number>>;
  /** The request body. Its `user_data` is secret and appears in no error. */
  readonly json?: JsonObject;
  /** The priority with which the request is drawn from the fleet's budget. */
  readonly priority: Priority;
  /** The circuits do not learn from it: it differs from the requests that they hold, and its caller tells them. */
  readonly isTrial?: true;
  /** Who waits for it, if it takes turns; null: the request itself. */
  readonly waiter?: Waiter | null;
  /** The schema of a successful response body; `null` for a 204. */
  readonly schema: z.ZodType<T>;
};

export type CallResult<T> = { readonly kind: 'done'; readonly value: T } | { readonly kind: 'absent' };

export type CallerOptions = {
  /** Without a trailing slash. */
  readonly baseUrl: string;
  readonly token: string;
  readonly timeoutMs: number;
  readonly exchange: Exchanger;
  readonly io: Io;
  readonly onAnswer: (answer: ObservedAnswer) => void;
};

export type Caller = Readonly<{
  /** Reserves a request to send later. Rejects if the request must not be sent now. */
  reserve(call: Call<unknown>): Promise<Reservation>;
  /** Gives up the turn of a waiter. Never throws. */
  withdraw(waiter: Waiter): Promise<void>;
  /**
   * Sends a request, as one I/O operation named like `GET /v2/droplets/{id}`.
   *
   * @param reservation the reservation that {@link Caller.reserve} returned for this call; if omitted, the request is
   *   reserved first
   */
  send<T>(call: Call<T>, reservation?: Reservation): Promise<CallResult<T>>;
}>;

/** Creates the caller. Every call goes through it. */
export function createCaller(options: CallerOptions, reservations: Reservations): Caller {
  const reserve = (call: Call<unknown>) => reservations.reserve(askedOf(call), call.priority, call.waiter);
  return {
    reserve,
    withdraw: reservations.withdraw,
    send: async (call, reserved) => {
      const reservation = reserved ?? (await reserve(call));
      try {
        const result = await options.io('http', `${call.method} ${withoutIds(call.path)}`, () => perform(options, call));
        if (call.isTrial !== true) await reservations.done(askedOf(call), reservation, { outcome: result.kind, status: null, message: '' });
        return result;
      } catch (error) {
        throw error instanceof DigitalOceanError && call.isTrial !== true ? await reservations.failed(askedOf(call), reservation, error) : error;
      } finally {
        reservation.over();
      }
    },
  };
}

/** Describes a request to the circuits. */
function askedOf({ method, path, json }: Call<unknown>): Asked {
  return { method, path: withoutIds(path), fields: usedFields(json), subject: textOf(json?.['name'], path) };
}

async function perform<T>(options: CallerOptions, call: Call<T>): Promise<CallResult<T>> {
  const startedMs = performance.now();
  const exchange = await options.exchange({
    method: call.method,
    url: buildUrl(options.baseUrl, call),
    ...(call.json !== undefined && { json: call.json }),
  });
  const serverTimeMs = readClock(exchange);
  const nowMs = serverTimeMs ?? Date.now();
  const durationMs = performance.now() - startedMs;
  const body = readBody(exchange, call.schema);
  const kind = classify(call.method, toReply(exchange, body));
  tellObserver(options, call, exchange, { outcome: kind, nowMs, durationMs, serverTimeMs });
  if (kind === 'done' && body.verdict === 'valid') return { kind, value: body.value };
  if (kind === 'absent') return { kind };
  throw toError(options, call, exchange, body, kind, nowMs);
}

/**
 * Returns the server's clock at the time of the response. The response's headers use that clock, and the local clock may
 * be wrong.
 */
function readClock(exchange: Exchange): number | null {
  const atMs = exchange.status === null ? Number.NaN : Date.parse(exchange.headers.date ?? '');
  return Number.isNaN(atMs) ? null : atMs;
}

function buildUrl(baseUrl: string, call: Call<unknown>): URL {
  const url = new URL(baseUrl + call.path);
  for (const [name, value] of Object.entries(call.params ?? {})) url.searchParams.set(name, String(value));
  return url;
}

function tellObserver(
  options: CallerOptions,
  call: Call<unknown>,
  exchange: Exchange,
  { outcome, nowMs, durationMs, serverTimeMs }: { outcome: OutcomeKind; nowMs: number; durationMs: number; serverTimeMs: number | null },
): void {
  try {
    options.onAnswer({
      method: call.method,
      path: withoutIds(call.path),
      status: exchange.status,
      outcome,
      rateLimit: exchange.status === null ? null : readRateLimit(exchange.headers),
      retryAfterMs: exchange.status === null ? null : readWaitMs(exchange, nowMs),
      durationMs,
      serverTimeMs,
    });
  } catch {
    // The response may hold the id of a new droplet. An observer's failure must not lose it.
  }
}

function readWaitMs(answer: Answered, nowMs: number): number | null {
  return answer.status === 429 ? computeThrottleMs(answer.headers, nowMs) : readRetryAfterMs(answer.headers, nowMs);
}

type Body<T> =
  | { readonly verdict: 'valid'; readonly value: T; readonly json: unknown }
  | { readonly verdict: Exclude<Answer['body'], 'valid'>; readonly why: string; readonly json: unknown };

function readBody<T>(exchange: Exchange, schema: z.ZodType<T>): Body<T> {
  if (exchange.status === null) return { verdict: 'invalid', why: 'there is none', json: undefined };
  const { status, headers, text } = exchange;
  const contentType = headers['content-type'] ?? 'application/json';

  if (status === 204) return checkBody(null, schema);
  if (text === null) return { verdict: 'invalid', why: 'it broke off or was too large', json: undefined };
  if (/\bhtml\b/i.test(contentType) || text.trimStart().startsWith('<')) {
    return { verdict: 'html', why: 'it is a page, not JSON', json: undefined };
  }
  const json = parseJson(text);
  if (json === undefined) return { verdict: 'invalid', why: 'it is not JSON', json };
  if (!/[/+]json\b/i.test(contentType)) return { verdict: 'invalid', why: 'it is not said to be JSON', json };
  return checkBody(json, schema);
}

function checkBody<T>(json: unknown, schema: z.ZodType<T>): Body<T> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return { verdict: 'valid', value: parsed.data, json };
  const where = parsed.error.issues[0]?.path.join('.');
  return { verdict: 'invalid', why: `${where === undefined || where === '' ? 'it' : where} is not as documented`, json };
}

function toReply(exchange: Exchange, body: Body<unknown>): Reply {
  if (exchange.status === null) return { status: null, requestSent: exchange.requestSent };
  return { status: exchange.status, body: body.verdict };
}

function toError(
  options: CallerOptions,
  call: Call<unknown>,
  exchange: Exchange,
  body: Body<unknown>,
  kind: Exclude<OutcomeKind, 'absent'>,
  nowMs: number,
): DigitalOceanError {
  const secrets: Secrets = { token: options.token, userData: textOf(call.json?.['user_data']) };
  const request = { kind: toFailureKind(kind, call.method), method: call.method, path: call.path };
  const subject = `${call.method} ${call.path}`;

  if (exchange.status === null) {
    const message = `${subject}: ${describeSilence(exchange, options.timeoutMs)}`;
    return new DigitalOceanError(message, { ...request, code: exchange.code, status: null, requestId: null, retryAfterMs: null });
  }

  const { status, headers } = exchange;
  const said = readErrorBody(body, headers, secrets);
  return new DigitalOceanError(returned(status, subject, said.message ?? describeAnswer(status, body)), {
    ...request,
    code: said.code ?? (status >= 400 ? `http_${status}` : 'invalid_answer'),
    status,
    requestId: said.requestId,
    retryAfterMs: readWaitMs(exchange, nowMs),
    ...(kind === 'unauthorized' && { hold: { circuit: null, isTokenRefused: status === 401, scopes: status === 403 ? likelyScopes(askedOf(call)) : [] } }),
  });
}

// `classify` never returns `done` for an invalid body, so this case does not occur. If it did, this would be the safe
// result.
function toFailureKind(kind: Exclude<OutcomeKind, 'absent'>, method: Method): FailureKind {
  if (kind !== 'done') return kind;
  return method === 'POST' ? 'ambiguous' : 'later';
}

function describeSilence(exchange: Exchange & { readonly status: null }, timeoutMs: number): string {
  if (exchange.code === 'timeout') return `no answer within ${timeoutMs} ms`;
  if (!exchange.requestSent) return `no connection (${exchange.code})`;
  return `the connection was lost before an answer (${exchange.code})`;
}

function describeAnswer(status: number, body: Body<unknown>): string {
  if (status >= 300 && status <= 399) return 'redirects are not followed; is the API URL right?';
  if (status >= 400) return 'it does not say why';
  return body.verdict === 'valid' ? 'this is not what the API documents' : `the body cannot be used: ${body.why}`;
}

function readErrorBody(body: Body<unknown>, headers: Answered['headers'], secrets: Secrets) {
  const said = errorBody.safeParse(body.json).data;
  const headerId = headers['x-request-id'];
  const requestId = said?.request_id ?? (typeof headerId === 'string' ? headerId : undefined);
  return {
    message: said?.message === undefined ? null : cleanMessage(said.message, secrets),
    code: said?.id === undefined ? null : cleanId(said.id, secrets),
    requestId: requestId === undefined ? null : cleanId(requestId, secrets),
  };
}

function withoutIds(path: string): string {
  return path.replaceAll(/\/(?:\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=\/|$)/g, '/{id}').replace(/^\/v2\/tags\/[^/]+(?=\/resources$|$)/, '/v2/tags/{name}').replace(/^\/v2\/images\/[^/]+$/, '/v2/images/{id}');
}
