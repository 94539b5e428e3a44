// One POST of the webhook, against a receiver that misbehaves: what it is taken for, and that it costs no more than its time limit.
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { openWebhook } from '../../src/outcomes/webhook.ts';
import { directIo } from '../../src/platform/io.ts';
import { SECRET } from './stage.ts';

/** Starts a receiver; `paths` are those that were asked for. */
async function startServer(answer: RequestListener) {
  const paths: string[] = [];
  const closed: string[] = [];
  const server = createServer((request, response) => {
    paths.push(request.url ?? '');
    response.once('close', () => closed.push(request.url ?? ''));
    answer(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a server on a port
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url, paths, closed,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const postTo = (url: string, timeoutMs?: number) => openWebhook({ url, secrets: [SECRET] }, directIo, timeoutMs)('saga:1', '{}');

test('a redirect is not followed, and is named', async () => {
  await using elsewhere = await startServer((_request, response) => response.end());
  await using receiver = await startServer((_request, response) => response.writeHead(307, { location: `${elsewhere.url}/other` }).end());
  expect(await postTo(`${receiver.url}/hook`)).toEqual({ kind: 'failed', error: 'the receiver answered 307; redirects are not followed', retryAfterMs: null });
  expect([receiver.paths, elsewhere.paths]).toEqual([['/hook'], []]);
});

test('a receiver that does not answer in time has failed; the address is in no error', async () => {
  await using receiver = await startServer(() => undefined);
  const startedAt = performance.now();
  const result = await postTo(`${receiver.url}/hook?token=secret`, 200);
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  expect(result).toMatchObject({ kind: 'failed', error: expect.stringMatching(/^no answer \(.*Timeout.*\)$/i) });
  expect(JSON.stringify(result)).not.toContain('secret');
});

test('of an answer without an end, no more than a little is read', async () => {
  await using receiver = await startServer((_request, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write('x'.repeat(65_536)), 5);
    response.once('close', () => clearInterval(timer));
  });
  expect(await postTo(`${receiver.url}/hook`, 20_000)).toEqual({ kind: 'delivered' });
  await expect.poll(() => receiver.closed, { timeout: 30_000 }).toEqual(['/hook']);
});

test.each([
  [204, {}, { kind: 'delivered' }],
  [410, {}, { kind: 'gone', error: 'the receiver answered 410 Gone', retryAfterMs: null }],
  [503, { 'retry-after': '120' }, { kind: 'failed', error: 'the receiver answered 503', retryAfterMs: 120_000 }],
  [429, { 'retry-after': '9999999' }, { kind: 'failed', error: 'the receiver answered 429', retryAfterMs: 86_400_000 }],
  [400, { 'retry-after': 'soon' }, { kind: 'failed', error: 'the receiver answered 400', retryAfterMs: null }],
])('an answer of %i with %j means %j', async (status, headers, expected) => {
  await using receiver = await startServer((_request, response) => response.writeHead(status, headers).end());
  expect(await postTo(receiver.url)).toEqual(expected);
});
