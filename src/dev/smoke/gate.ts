// The gate: a local HTTP proxy between the smoke test's workers and DigitalOcean. It reports each exchange before the
// worker sees the response, refuses requests that do not belong to the smoke test, and can lose a response. Workers get a
// token that only the gate accepts. The real token stays in this process.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request as plainRequest } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { request as tlsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { parseJson } from '../../platform/json.ts';
import type { SmokeIo } from './io.ts';

export type GateRequest = Readonly<{ method: string; path: string; body: unknown }>;
export type GateAnswer = Readonly<{ status: number; body: unknown }>;

export type GateWatch = Readonly<{
  /** Called before a request is forwarded. A returned string refuses the request with that text; null: forward it. */
  onRequest(request: GateRequest): Promise<string | null>;
  /** Called before the response is passed on. `lose`: the worker never gets it. */
  onAnswer(request: GateRequest, answer: GateAnswer): Promise<'pass' | 'lose'>;
}>;

export type Gate = Readonly<{
  /** For DIGITALOCEAN_API_URL. */
  url: string;
  /** For DIGITALOCEAN_TOKEN. */
  token: string;
  close(): Promise<void>;
}>;

const MOST_BYTES = 64 * 1024 * 1024;
// Longer than a worker waits for a response.
const UPSTREAM_LIMIT_MS = 60_000;

// Headers about a single connection, or about a body that is not forwarded unchanged.
const HOP_HEADERS = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length', 'host', 'accept-encoding', 'upgrade', 'authorization']);

type Answered = Readonly<{ status: number; headers: IncomingHttpHeaders; body: Buffer }>;

/** Opens a gate on a free port of 127.0.0.1, in front of `apiUrl`. */
export async function openGate({ apiUrl, token: realToken, watch, io }: { apiUrl: string; token: string; watch: GateWatch; io: SmokeIo }): Promise<Gate> {
  const token = `gate_${randomBytes(24).toString('hex')}`;
  const base = apiUrl.replace(/\/+$/, '');

  const pass = async (asked: IncomingMessage, reply: ServerResponse): Promise<void> => {
    const bytes = await readAll(asked);
    if (asked.headers.authorization !== `Bearer ${token}`) return answer(reply, 401, { id: 'Unauthorized', message: 'Unable to authenticate you' });
    const method = asked.method ?? 'GET';
    const target = asked.url ?? '/';
    const [path = ''] = target.split('?');
    const request: GateRequest = { method, path, body: parseJson(bytes.toString()) };
    const refusal = await watch.onRequest(request);
    if (refusal !== null) return answer(reply, 422, { id: 'unprocessable_entity', message: refusal });
    const passOn = () => send(new URL(base + target), { method, headers: { ...passable(asked.headers), authorization: `Bearer ${realToken}` }, body: bytes });
    const answered = await io(`passed on ${method} ${classOf(path)}`, passOn);
    const verdict = await watch.onAnswer(request, { status: answered.status, body: parseJson(answered.body.toString()) });
    if (verdict === 'lose') {
      reply.destroy();
      return undefined;
    }
    reply.writeHead(answered.status, passable(answered.headers));
    reply.end(answered.body);
    return undefined;
  };
  // To the worker, a failure here is a lost response: it knows no more than that either.
  const server = createServer((asked, reply) => void pass(asked, reply).catch(() => reply.destroy()));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on a port
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Replaces the parts of a path that differ between droplets. */
function classOf(path: string): string {
  return path.replaceAll(/\/\d+/g, '/{id}').replace(/^\/v2\/tags\/.+$/, '/v2/tags/{name}');
}

function passable(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_HEADERS.has(name)));
}

function answer(reply: ServerResponse, status: number, body: object): void {
  reply.writeHead(status, { 'content-type': 'application/json' });
  reply.end(JSON.stringify(body));
}

/** Sends one request on a new connection: the server may close an idle one at that moment. */
async function send(url: URL, { method, headers, body }: { method: string; headers: IncomingHttpHeaders; body: Buffer }): Promise<Answered> {
  const start = url.protocol === 'https:' ? tlsRequest : plainRequest;
  const length = body.length === 0 ? {} : { 'content-length': body.length };
  const outgoing = start(url, { method, headers: { ...headers, ...length }, agent: false, signal: AbortSignal.timeout(UPSTREAM_LIMIT_MS) });
  const responded = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.once('error', reject);
  });
  outgoing.end(body);
  const response = await responded;
  return { status: response.statusCode ?? 502, headers: response.headers, body: await readAll(response) };
}

async function readAll(stream: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of stream as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > MOST_BYTES) throw new Error('the body is too large');
    parts.push(part);
  }
  return Buffer.concat(parts);
}
