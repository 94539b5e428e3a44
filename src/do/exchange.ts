// One HTTP request and what came of it, as a value: an answer, half an answer, or none. It never throws, because an
// error of got carries the token and the body of the request. What the answer means is not decided here.

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
  /** Null when the body broke off, took too long or was too large. */
  readonly text: string | null;
};

export type Unanswered = {
  readonly status: null;
  /** `timeout`, or what the network said, such as `ECONNRESET`. */
  readonly code: string;
  /** False only where no connection was ever ready for the request. */
  readonly requestSent: boolean;
};

export type Exchanger = (request: HttpRequest) => Promise<Exchange>;

// 200 droplets are about 1 MiB.
const MAX_BODY_BYTES = 32 * 1024 * 1024;

const networkError = z.object({ code: z.string().regex(/^[A-Z0-9_]{1,64}$/) });

/** Makes the function that sends requests with this token: once each, no redirects, `timeoutMs` from first to last byte. */
export function createExchanger(options: { token: string; timeoutMs: number; userAgent: string }): Exchanger {
  const http = got.extend({
    headers: {
      authorization: `Bearer ${options.token}`,
      'user-agent': options.userAgent,
      accept: 'application/json',
    },
    timeout: { request: options.timeoutMs },
    // Whether to repeat a request is decided by those who know what it was for.
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
      // An idle connection may have been closed by the other end a moment ago, and then nobody could say whether a POST
      // arrived. A GET or DELETE can be repeated; a POST gets a connection of its own.
      ...(request.method === 'POST' && { agent: { http: false, https: false } }),
      signal: oversized.signal,
    });
    // got's promise also has events, which is what `on` returns it for; the promise itself is awaited below.
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

// Node hands the request to the network once the socket is connected and, with TLS, the other end has proved who it is.
// Until then nothing can have been done. What cannot be seen counts as sent.
function watch(request: ClientRequest, progress: Progress): void {
  request.once('response', ({ statusCode, headers }) => {
    if (statusCode !== undefined) progress.head = { status: statusCode, headers };
  });
  const markSent = () => {
    progress.requestSent = true;
  };
  const watchSocket = (socket: NonNullable<ClientRequest['socket']>) => {
    // One that could not even be opened (out of file descriptors, say) is destroyed by now.
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
