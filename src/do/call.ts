// One call of the DigitalOcean API: reserves a request, sends it, reads the answer, judges it, and returns what was asked
// for or throws a DigitalOceanError. It knows the API's manners (JSON, error bodies, headers), not its single endpoints.

import type { z } from 'zod';
import type { Io } from '../platform/io.ts';
import { parseJson, textOf, type JsonObject } from '../platform/json.ts';
import type { Priority } from './budget.ts';
import type { Asked } from './circuits.ts';
import { cleanId, cleanMessage, DigitalOceanError, type Secrets } from './errors.ts';
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
  /** The body. Its `user_data` is secret: it appears in no error. */
  readonly json?: JsonObject;
  /** The priority with which the request is drawn from the fleet's budget. */
  readonly priority: Priority;
  /** What the body of a success must be; a 204 has `null`. */
  readonly schema: z.ZodType<T>;
};

export type CallResult<T> = { readonly kind: 'done'; readonly value: T } | { readonly kind: 'absent' };

export type CallerOptions = {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly token: string;
  readonly timeoutMs: number;
  readonly exchange: Exchanger;
  readonly io: Io;
  readonly onAnswer: (answer: ObservedAnswer) => void;
};

export type Caller = Readonly<{
  /** Reserves a request that is sent later; rejects if it must not be sent now. */
  reserve(call: Call<unknown>): Promise<Reservation>;
  /**
   * Sends a request, as one I/O named like `GET /v2/droplets/{id}`.
   *
   * @param reservation what {@link Caller.reserve} returned for this call; without one, the request is reserved first
   */
  send<T>(call: Call<T>, reservation?: Reservation): Promise<CallResult<T>>;
}>;

/** Makes the functions through which every call goes. */
export function createCaller(options: CallerOptions, reservations: Reservations): Caller {
  const reserve = (call: Call<unknown>) => reservations.reserve(askedOf(call), call.priority);
  return {
    reserve,
    send: async (call, reserved) => {
      const reservation = reserved ?? (await reserve(call));
      try {
        const result = await options.io('http', `${call.method} ${withoutIds(call.path)}`, () => perform(options, call));
        await reservations.done(askedOf(call), reservation, { outcome: result.kind, status: null, message: '' });
        return result;
      } catch (error) {
        throw error instanceof DigitalOceanError ? await reservations.failed(askedOf(call), reservation, error) : error;
      } finally {
        reservation.over();
      }
    },
  };
}

/** A request as circuits see it. */
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
  const nowMs = readClock(exchange) ?? Date.now();
  const durationMs = performance.now() - startedMs;
  const body = readBody(exchange, call.schema);
  const kind = classify(call.method, toReply(exchange, body));
  tellObserver(options, call, exchange, { outcome: kind, nowMs, durationMs });
  if (kind === 'done' && body.verdict === 'valid') return { kind, value: body.value };
  if (kind === 'absent') return { kind };
  throw toError(options, call, exchange, body, kind, nowMs);
}

/** The time of an answer by the clock of who gave it: times in its headers are by that clock, and this machine's may be wrong. */
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
  { outcome, nowMs, durationMs }: { outcome: OutcomeKind; nowMs: number; durationMs: number },
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
    });
  } catch {
    // The answer may hold the id of a droplet that was just made. It is worth more than the observer's trouble.
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
  return new DigitalOceanError(`${subject} was answered ${status}: ${said.message ?? describeAnswer(status, body)}`, {
    ...request,
    code: said.code ?? (status >= 400 ? `http_${status}` : 'invalid_answer'),
    status,
    requestId: said.requestId,
    retryAfterMs: readWaitMs(exchange, nowMs),
    ...(kind === 'unauthorized' && { hold: { circuit: null, isTokenRefused: status === 401, scopes: status === 403 ? likelyScopes(askedOf(call)) : [] } }),
  });
}

// `classify` calls nothing done whose body is not valid, so 'done' does not come here; if it did, this is the safe reading.
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
  return path.replaceAll(/\/\d+(?=\/|$)/g, '/{id}');
}
