import { createServer, type Server, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { detailOf } from '../../src/do/circuit-rules.ts';
import type { DigitalOceanClient } from '../../src/do/client.ts';
import type { FailureKind } from '../../src/do/outcome.ts';
import { clientOf, createDroplet, dropletJson, errorOf, listen, sendJson, startServer } from './support.ts';

const request = { name: 'web-1', size: 's-1vcpu-1gb', image: 'ubuntu-24-04-x64' };
const calls = {
  GET: (client: DigitalOceanClient) => client.getDroplet(7),
  POST: (client: DigitalOceanClient) => createDroplet(client, request),
  DELETE: (client: DigitalOceanClient) => client.destroyDroplet(7),
};
const everyCall = Object.entries(calls);
const inDoubt = (method: string): FailureKind => (method === 'POST' ? 'ambiguous' : 'later');

/** A server that does as it likes with the socket once the request's head has come; counts the connections it saw. */
function rawServer(answer: (socket: Socket) => void): { server: Server; connections: () => number } {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.on('error', () => {});
    socket.once('data', () => answer(socket));
  });
  return { server, connections: () => connections };
}

const dropletWithId = (id: string) => JSON.stringify({ droplet: dropletJson(0) }).replace('"id":0', `"id":${id}`);

describe('a success that cannot be used', () => {
  test.each([
    ['is a page', '<!doctype html><html>It works!</html>', 'text/html'],
    ['is a page said to be JSON', '<html></html>', 'application/json'],
    ['is JSON said to be text', dropletWithId('7'), 'text/plain'],
    ['is not JSON', '{"droplet": {"id": 7', 'application/json'],
    ['is empty', '', 'application/json'],
    ['is null', 'null', 'application/json'],
    ['has no droplet', '{}', 'application/json'],
    ['has a droplet without an id', JSON.stringify({ droplet: dropletJson(undefined) }), 'application/json'],
    ['has a string for an id', dropletWithId('"7"'), 'application/json'],
    ['has the id 0', dropletWithId('0'), 'application/json'],
    ['has a negative id', dropletWithId('-7'), 'application/json'],
    ['has an id above 2^53', dropletWithId('9007199254740993'), 'application/json'],
    ['has a fraction for an id', dropletWithId('7.5'), 'application/json'],
  ])('is in doubt when its body %s', async (_title, body, contentType) => {
    const server = await startServer((_, response) => response.writeHead(202, { 'content-type': contentType }).end(body));
    const client = clientOf(server);
    expect(await errorOf(createDroplet(client, request))).toMatchObject({ kind: 'ambiguous', code: 'invalid_answer', status: 202 });
    expect(await errorOf(client.getDroplet(7))).toMatchObject({ kind: 'later', code: 'invalid_answer', status: 202 });
    expect(await errorOf(client.destroyDroplet(7))).toMatchObject({ kind: 'later', code: 'invalid_answer', status: 202 });
    expect(server.received).toHaveLength(3);
  });

  test('is in doubt when its body breaks off', async () => {
    const { server, connections } = rawServer((socket) => {
      socket.end('HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"droplet":');
    });
    const client = clientOf({ url: await listen(server) });
    expect(await errorOf(createDroplet(client, request))).toMatchObject({ kind: 'ambiguous', status: 202 });
    expect(await errorOf(client.getDroplet(7))).toMatchObject({ kind: 'later', status: 202 });
    expect(connections()).toBe(2);
  });

  test('is in doubt when its body is larger than anything the API sends', async () => {
    const server = await startServer((_, response) => {
      const chunk = Buffer.alloc(1024 * 1024, ' ');
      const pour = () => {
        while (!response.destroyed && response.write(chunk));
      };
      response.writeHead(200, { 'content-type': 'application/json' }).on('drain', pour);
      pour();
    });
    const error = await errorOf(clientOf(server, { timeoutMs: 20_000 }).getDroplet(7));
    expect(error).toMatchObject({ kind: 'later', status: 200 });
    expect(error.message).toContain('too large');
  });

  test('counts as destroyed when a 204 has a body, against the rules of HTTP', async () => {
    const { server } = rawServer((socket) => socket.end('HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}'));
    expect(await clientOf({ url: await listen(server) }).destroyDroplet(7)).toBe('destroyed');
  });
});

describe.each(everyCall)('a %s', (method, call) => {
  test.each([500, 502, 503, 504])('answered %i is in doubt, and made once', async (status) => {
    const server = await startServer((_, response) => response.writeHead(status, { 'content-type': 'text/html' }).end('<html>Bad</html>'));
    const error = await errorOf(call(clientOf(server)));
    expect(error).toMatchObject({ kind: inDoubt(method), status, method, code: `http_${status}` });
    expect(error.message).not.toContain('<html>');
    expect(server.received).toHaveLength(1);
  });

  test.each([301, 302, 303, 307, 308])('answered %i is not sent on', async (status) => {
    const elsewhere = await startServer((_, response) => response.writeHead(204).end());
    const server = await startServer((_, response) => response.writeHead(status, { location: `${elsewhere.url}/v2/droplets/7` }).end());
    const error = await errorOf(call(clientOf(server)));
    expect(error).toMatchObject({ kind: inDoubt(method), status });
    expect(error.message).toContain('redirects are not followed');
    expect(elsewhere.received).toEqual([]);
    expect(server.received).toHaveLength(1);
  });

  test.each([401, 403])('answered %i is unauthorized', async (status) => {
    const server = await startServer((_, response) => sendJson(response, status, { id: 'unauthorized', message: 'Unable to authenticate you.' }));
    const error = await errorOf(call(clientOf(server)));
    expect(error).toMatchObject({ kind: 'unauthorized', status, code: 'unauthorized' });
    expect(error.message).toContain('Unable to authenticate you.');
  });

  test('answered 429 is throttled for as long as the answer says', async () => {
    const server = await startServer((_, response) => sendJson(response, 429, { id: 'too_many_requests' }, { 'retry-after': '42' }));
    const told: (number | null)[] = [];
    const client = clientOf(server, { onAnswer: ({ retryAfterMs }) => told.push(retryAfterMs) });
    expect(await errorOf(call(client))).toMatchObject({ kind: 'throttled', retryAfterMs: 42_000 });
    expect(told).toEqual([42_000]);
    expect(server.received).toHaveLength(1);
  });

  test('a time in an answer is compared with the date of that answer, whatever this machine takes the time for', async () => {
    const headers = { date: 'Wed, 01 Jan 2025 00:00:00 GMT', 'retry-after': 'Wed, 01 Jan 2025 00:00:30 GMT' };
    const server = await startServer((_, response) => sendJson(response, 429, { id: 'too_many_requests' }, headers));
    expect(await errorOf(call(clientOf(server)))).toMatchObject({ kind: 'throttled', retryAfterMs: 30_000 });
    const spent = { date: headers.date, 'ratelimit-limit': '250', 'ratelimit-remaining': '0', 'ratelimit-reset': String(Date.parse(headers.date) / 1_000 + 20) };
    const other = await startServer((_, response) => sendJson(response, 429, { id: 'too_many_requests' }, spent));
    expect(await errorOf(call(clientOf(other)))).toMatchObject({ kind: 'throttled', retryAfterMs: 20_000 });
  });

  test('answered 429 without a word is throttled all the same', async () => {
    const server = await startServer((_, response) => response.writeHead(429).end());
    expect(await errorOf(call(clientOf(server)))).toMatchObject({ kind: 'throttled', retryAfterMs: 10_000 });
  });

  test('that is never answered ends in time, in doubt', async () => {
    const server = await startServer(() => {});
    const error = await errorOf(call(clientOf(server, { timeoutMs: 150 })));
    expect(error).toMatchObject({ kind: inDoubt(method), status: null, code: 'timeout' });
    expect(error.message).toContain('no answer within 150 ms');
    expect(server.received).toHaveLength(1);
  });

  test('whose answer never ends is ended in time', async () => {
    const server = await startServer((_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write('{');
    });
    expect(await errorOf(call(clientOf(server, { timeoutMs: 150 })))).toMatchObject({ kind: inDoubt(method), status: 200 });
  });

  test('cut off before an answer is in doubt, and made once', async () => {
    const { server, connections } = rawServer((socket) => socket.resetAndDestroy());
    const error = await errorOf(call(clientOf({ url: await listen(server) })));
    expect(error).toMatchObject({ kind: inDoubt(method), status: null, code: 'ECONNRESET' });
    expect(connections()).toBe(1);
  });

  test('cut off after the head of an answer is in doubt', async () => {
    const { server, connections } = rawServer((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{', () => {
        setTimeout(() => socket.resetAndDestroy(), 20);
      });
    });
    expect(await errorOf(call(clientOf({ url: await listen(server) })))).toMatchObject({ kind: inDoubt(method), status: 200 });
    expect(connections()).toBe(1);
  });

  test('answered with something that is not HTTP is in doubt', async () => {
    const { server } = rawServer((socket) => socket.end('220 smtp.example.com ESMTP\r\n'));
    expect(await errorOf(call(clientOf({ url: await listen(server) })))).toMatchObject({ kind: inDoubt(method), status: null });
  });

  test('to a port where nobody listens was never sent', async () => {
    const server = createServer();
    const url = await listen(server);
    server.close();
    const error = await errorOf(call(clientOf({ url })));
    expect(error).toMatchObject({ kind: 'later', status: null, code: 'ECONNREFUSED' });
  });

  test('to a host without an address was never sent', async () => {
    const error = await errorOf(call(clientOf({ url: 'http://api.invalid' })));
    expect(error).toMatchObject({ kind: 'later', status: null });
    expect(['ENOTFOUND', 'EAI_AGAIN']).toContain(error.code);
  });

  test('was never sent when the other end does not speak TLS', async () => {
    const { server } = rawServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const url = (await listen(server)).replace('http:', 'https:');
    expect(await errorOf(call(clientOf({ url })))).toMatchObject({ kind: 'later', status: null });
  });

  test('was never sent when the other end hangs up, or hangs, before TLS is agreed', async () => {
    const reset = rawServer((socket) => socket.resetAndDestroy());
    const resetUrl = (await listen(reset.server)).replace('http:', 'https:');
    expect(await errorOf(call(clientOf({ url: resetUrl })))).toMatchObject({ kind: 'later', status: null, code: 'ECONNRESET' });

    const hung = rawServer(() => {});
    const hungUrl = (await listen(hung.server)).replace('http:', 'https:');
    expect(await errorOf(call(clientOf({ url: hungUrl }, { timeoutMs: 150 })))).toMatchObject({ kind: 'later', code: 'timeout' });
  });
});

describe('a refusal', () => {
  test('carries DigitalOcean\'s words, its id and its request id', async () => {
    const server = await startServer((_, response) =>
      sendJson(response, 422, { id: 'unprocessable_entity', message: 'creating this droplet will exceed your droplet limit', request_id: 'abc-1', extra: {} }));
    const error = await errorOf(createDroplet(clientOf(server), request));
    expect(error).toMatchObject({ kind: 'rejected', status: 422, code: 'unprocessable_entity', requestId: 'abc-1', method: 'POST', path: '/v2/droplets' });
    expect(error.message).toBe('DigitalOcean returned 422 for POST /v2/droplets: creating this droplet will exceed your droplet limit');
  });

  test('is told without its request where it concerns others, too', async () => {
    const server = await startServer((_, response) => sendJson(response, 403, { id: 'forbidden', message: 'POST /v2/droplets: you may not' }));
    const error = await errorOf(createDroplet(clientOf(server), request));
    expect(detailOf({ outcome: error.kind, status: error.status, message: error.message }, [])).toEqual({ status: 403, message: '403: POST /v2/droplets: you may not', scopes: [] });
    expect(detailOf({ outcome: 'later', status: null, message: 'POST /v2/droplets: no answer' }, []).message).toBe('POST /v2/droplets: no answer');
  });

  test('takes the request id from the header when the body has none', async () => {
    const server = await startServer((_, response) => sendJson(response, 400, {}, { 'x-request-id': 'abc-2' }));
    expect(await errorOf(clientOf(server).getDroplet(7))).toMatchObject({ kind: 'rejected', requestId: 'abc-2', code: 'http_400' });
  });

  test('of a destroy while the droplet is being created is worth another try', async () => {
    const server = await startServer((_, response) => sendJson(response, 422, { message: 'Droplet already has a pending event.' }));
    expect(await errorOf(clientOf(server).destroyDroplet(7))).toMatchObject({ kind: 'later', status: 422 });
  });
});

test('a POST has a connection of its own, so that no idle one breaks under it', async () => {
  const connections: (string | undefined)[] = [];
  const server = await startServer(({ headers }, response) => {
    connections.push(headers.connection);
    sendJson(response, 200, { droplet: dropletJson(7) });
  });
  const client = clientOf(server);
  await client.getDroplet(7);
  await createDroplet(client, request);
  expect(connections).toEqual(['keep-alive', 'close']);
});
