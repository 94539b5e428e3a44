// Answers what is no HTTP request, such as one with headers that are too large. No route and no hook ever sees it.
import { STATUS_CODES, maxHeaderSize } from 'node:http';
import type { Socket } from 'node:net';
import type { Log } from '../platform/log.ts';
import { Problem, documentOf } from './problems.ts';

/** Answers with a problem document and closes the connection. */
export function answerClientError(error: Error & { code?: string }, socket: Pick<Socket, 'destroyed' | 'writable' | 'write' | 'destroy'>, log: Pick<Log, 'trace'>): void {
  // The client has gone.
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  log.trace({ err: error }, 'a connection brought no HTTP request');
  if (socket.writable) socket.write(responseTo(error.code));
  socket.destroy(error);
}

function responseTo(code: string | undefined): string {
  const problem = documentOf(problemOf(code));
  const body = JSON.stringify(problem);
  return [`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`, 'content-type: application/problem+json', `content-length: ${Buffer.byteLength(body)}`, 'cache-control: no-store', 'connection: close', '', body].join('\r\n');
}

function problemOf(code: string | undefined): Problem {
  if (code === 'HPE_HEADER_OVERFLOW') return new Problem('headers_too_large', `expected headers, with the path, of at most ${maxHeaderSize / 1024} KiB`);
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Problem('request_timeout', 'the request did not arrive in time');
  return new Problem('invalid_request', 'expected an HTTP request');
}
