// What the tests of the DigitalOcean client share: real local servers, one per behaviour, and bodies as the API gives them.

import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { createDigitalOceanClient, type DigitalOceanClient, type DigitalOceanClientOptions } from '../../src/do/client.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { CreateDropletRequest } from '../../src/do/schemas.ts';

export const TOKEN = 'dop_v1_canary0123456789abcdef';

export type Received = { method: string; url: URL; headers: IncomingMessage['headers']; body: string };
export type TestServer = { url: string; received: Received[] };

/** Starts an HTTP server that notes each request and then answers it; it ends with the test. */
export async function startServer(answer: (request: Received, response: ServerResponse) => void): Promise<TestServer> {
  const received: Received[] = [];
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '/', headers } = request;
      const note = { method, url: new URL(url, 'http://server'), headers, body: Buffer.concat(chunks).toString() };
      received.push(note);
      answer(note, response);
    });
  };
  const server = createServer(listener);
  return { url: await listen(server), received };
}

/** Makes any server listen until the test ends, and returns its URL. */
export async function listen(server: Server): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  });
  // oxlint-disable-next-line no-unsafe-type-assertion -- of a TCP server it is always an AddressInfo
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export function sendJson(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers }).end(JSON.stringify(body));
}

export function clientOf(server: { url: string }, options: Partial<DigitalOceanClientOptions> = {}) {
  return createDigitalOceanClient({ apiUrl: server.url, token: TOKEN, timeoutMs: 2_000, budget: null, ...options });
}

/** Creates a droplet as its step does: the request is reserved, then sent. */
export async function createDroplet(client: DigitalOceanClient, request: CreateDropletRequest) {
  return client.createDroplet(request, await client.reserveCreate(request));
}

/** Waits for a rejection and returns the error, which must be the client's own. */
export async function errorOf(promise: Promise<unknown>): Promise<DigitalOceanError> {
  const reason: unknown = await promise.then(
    (value: unknown) => new Error(`was done: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (reason instanceof DigitalOceanError) return reason;
  throw reason;
}

/** A droplet as the API gives it, with fields that nobody reads. */
export function dropletJson(id: unknown, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id,
    name: `web-${String(id)}`,
    memory: 1024,
    vcpus: 1,
    disk: 25,
    locked: false,
    status: 'active',
    kernel: null,
    created_at: '2020-07-21T18:37:44Z',
    features: ['ipv6'],
    image: { id: 63663980, name: '20.04 (LTS) x64', slug: 'ubuntu-20-04-x64', public: true },
    size_slug: 's-1vcpu-1gb',
    networks: {
      v4: [
        { ip_address: '10.128.192.124', netmask: '255.255.0.0', gateway: 'nil', type: 'private' },
        { ip_address: '192.241.165.154', netmask: '255.255.255.0', gateway: '192.241.165.1', type: 'public' },
      ],
      v6: [{ ip_address: '2604:a880:0:1010::18a:a001', netmask: 64, gateway: '2604:a880:0:1010::1', type: 'public' }],
    },
    region: { name: 'New York 3', slug: 'nyc3', available: true },
    tags: ['web', 'env:prod'],
    vpc_uuid: '760e09ef-dc84-11e8-981e-3cfdfeaae000',
    ...changes,
  };
}
