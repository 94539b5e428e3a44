// Checks once whether a droplet answers, by a TCP connection or one HTTP request. It connects to addresses only, never to
// names, follows no redirect, and reads only the status line and headers of an answer (at most 16 KiB).
import { request } from 'node:http';
import { connect, isIP } from 'node:net';
import { errorCodeOf } from '../platform/error-code.ts';

/** What to check: a port; for HTTP also a path and a status (null: any from 200 to 299). */
export type Target = Readonly<{ address: string; port: number; http: Readonly<{ path: string; status: number | null }> | null }>;

/** The result of a check. `why`: in words, without text from the other end. `error`: the error of this machine. */
export type Finding = Readonly<{ answered: true } | { answered: false; why: string; error?: unknown }>;

/**
 * Checks once. Nothing that the other end does makes it throw.
 *
 * @param timeoutMs of the whole check
 * @throws {TypeError} if the target is not an address
 */
export async function probe(target: Target, timeoutMs: number): Promise<Finding> {
  if (isIP(target.address) === 0) throw new TypeError('a check needs an address, not a name');
  return target.http === null ? probeTcp(target, timeoutMs) : probeHttp(target, target.http, timeoutMs);
}

function probeTcp({ address, port }: Target, timeoutMs: number): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, autoSelectFamily: false });
    const settle = (finding: Finding) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(finding);
    };
    const timer = setTimeout(() => settle(noAnswer(timeoutMs)), timeoutMs);
    socket.once('connect', () => settle({ answered: true }));
    socket.on('error', (error) => settle({ answered: false, why: wordsOf(error), error }));
  });
}

function probeHttp({ address, port }: Target, { path, status }: NonNullable<Target['http']>, timeoutMs: number): Promise<Finding> {
  return new Promise((resolve) => {
    const headers = { 'user-agent': 'arcadia-cloud', accept: '*/*', connection: 'close' };
    const sent = request({ host: address, port, path, method: 'GET', headers, agent: false });
    const settle = (finding: Finding) => {
      clearTimeout(timer);
      sent.destroy();
      resolve(finding);
    };
    const timer = setTimeout(() => settle(noAnswer(timeoutMs)), timeoutMs);
    sent.once('response', ({ statusCode = 0 }) => {
      const isWanted = status === null ? statusCode >= 200 && statusCode <= 299 : statusCode === status;
      settle(isWanted ? { answered: true } : { answered: false, why: `it answered with status ${statusCode}` });
    });
    // Nobody reads the body after a 101.
    sent.once('upgrade', ({ statusCode = 101 }) => settle({ answered: false, why: `it answered with status ${statusCode}` }));
    sent.on('error', (error) => settle({ answered: false, why: wordsOf(error), error }));
    sent.once('close', () => settle({ answered: false, why: 'it closed the connection without an answer' }));
    sent.end();
  });
}

function noAnswer(timeoutMs: number): Finding {
  return { answered: false, why: `no answer within ${timeoutMs / 1_000} s` };
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EPIPE: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'this worker has no route to it',
  ETIMEDOUT: 'no answer',
};

function wordsOf(error: Error): string {
  const code = errorCodeOf(error) ?? '';
  if (code.startsWith('HPE_')) return 'its answer is not HTTP';
  return words[code] ?? `connection failed (${code === '' ? 'unknown error' : code})`;
}
