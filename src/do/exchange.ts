// Sends one HTTP request and returns the result as a value: a response, a partial response or none. It never throws,
// because got's errors contain the token and the request body. It does not interpret the response.

import type { ClientRequest, IncomingHttpHeaders } from 'node:http';
import { TLSSocket } from 'node:tls';
import got, { TimeoutError, type Got } from 'got';
import { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Method } from './outcome.ts';

export type HttpRequest = {
  readonly method: Method;
  readonly url: URL;
  readonly json?: JsonObject;
};

export type Exchange = Answered | Unanswered;

export type Answered = {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Null if the body broke off, took too long or was too large. */
  readonly text: string | null;
};

export type Unanswered = {
  readonly status: null;
  /** `timeout`, or the network's error code, such as `ECONNRESET`. */
  readonly code: string;
  /** False only if no connection was ever ready for the request. */
  readonly requestSent: boolean;
};

export type Exchanger = (request: HttpRequest) => Promise<Exchange>;

// 200 droplets are about 1 MiB.
const MAX_BODY_BYTES = 32 * 1024 * 1024;

const networkError = z.object({ code: z.string().regex(/^[A-Z0-9_]{1,64}$/) });

/**
 * Creates the function that sends requests with this token: once each, without redirects, with `timeoutMs` as the
 * deadline from first to last byte.
 */
export function createExchanger(options: { token: string; timeoutMs: number; userAgent: string }): Exchanger {
  const http = got.extend({
    headers: {
      authorization: `Bearer ${options.token}`,
      'user-agent': options.userAgent,
      accept: 'application/json',
    },
    timeout: { request: options.timeoutMs },
    // The callers decide whether to retry, because they know what the request was for.
    retry: { limit: 0 },
    followRedirect: false,
    throwHttpErrors: false,
    responseType: 'text',
  });
  return (request) => exchange(http, request);
}

async function exchange(http: Got, request: HttpRequest): Promise<Exchange> {
  const progress: Progress = { requestSent: false, head: null };
  const oversized = new AbortController();
  try {
    const pending = http(request.url, {
      method: request.method,
      ...(request.json !== undefined && { json: request.json }),
      // The server may have closed an idle connection a moment ago. It would then be unknown whether a POST arrived. A
      // GET or DELETE can be repeated, so only a POST gets a new connection.
      ...(request.method === 'POST' && { agent: { http: false, https: false } }),
      signal: oversized.signal,
    });
    // `on` returns got's promise, which also emits events. The promise itself is awaited below.
    void pending.on('request', (sent) => watch(sent, progress));
    void pending.on('downloadProgress', ({ transferred }) => {
      if (transferred > MAX_BODY_BYTES) oversized.abort();
    });
    const { statusCode, headers, body } = await pending;
    return { status: statusCode, headers, text: body };
  } catch (error) {
    if (progress.head !== null) return { ...progress.head, text: null };
    return { status: null, code: networkCode(error), requestSent: progress.requestSent };
  }
}

type Progress = {
  requestSent: boolean;
  head: { readonly status: number; readonly headers: IncomingHttpHeaders } | null;
};

// Node sends the request once the socket is connected and, with TLS, the server has proved its identity. Until then
// nothing can have happened. If this cannot be observed, the request counts as sent.
function watch(request: ClientRequest, progress: Progress): void {
  request.once('response', ({ statusCode, headers }) => {
    if (statusCode !== undefined) progress.head = { status: statusCode, headers };
  });
  const markSent = () => {
    progress.requestSent = true;
  };
  const watchSocket = (socket: NonNullable<ClientRequest['socket']>) => {
    // A socket that could not even be opened (for example, out of file descriptors) is already destroyed here.
    if (socket.destroyed && socket.bytesWritten === 0) return;
    if (!socket.connecting) markSent();
    else socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', markSent);
  };
  if (request.socket !== null) watchSocket(request.socket);
  else request.once('socket', watchSocket);
}

function networkCode(error: unknown): string {
  if (error instanceof TimeoutError) return 'timeout';
  const parsed = networkError.safeParse(error);
  return parsed.success ? parsed.data.code : 'unknown';
}
