// Streams of events: how many one caller may hold, and what it costs when a caller gives up.
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pino } from 'pino';
import { bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';
import { waitFor } from '../support/wait-for.ts';

const SHARE = 200;

let web: Web;
const lines: string[] = [];
beforeAll(async () => {
  web = await openWebStage(credentials, 'redis', pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }));
});
afterAll(() => web[Symbol.asyncDispose]());

test('one token takes no more than its share of the streams, and another one still gets its own', async () => {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: bearer(secrets.start) }));
  const aborting = new AbortController();
  const open = async (secret: string) => fetch(`${web.url}/v1/sagas/${id}/events`, { headers: bearer(secret), signal: aborting.signal });
  try {
    const taken = await Promise.all(Array.from({ length: SHARE }, async () => open(secrets.read)));
    expect(new Set(taken.map(({ status }) => status))).toEqual(new Set([200]));
    const refused = await open(secrets.read);
    expect([refused.status, refused.headers.get('retry-after'), await refused.json()]).toMatchObject([429, '10', { code: 'too_many_streams' }]);
    expect((await open(secrets.all)).status).toBe(200);
    await taken[0]?.body?.cancel();
    await waitFor(async () => (await open(secrets.read)).status === 200, { what: 'a stream in the place of the one that was closed', everyMs: 50 });
  } finally {
    aborting.abort();
  }
});

test('a caller that gives up in the middle of its body is no error of ours', async () => {
  const { port, hostname } = new URL(web.url);
  const socket = connect(Number(port), hostname);
  const head = ['POST /v1/sagas/provision_droplet HTTP/1.1', `host: ${hostname}:${port}`, `authorization: ${bearer(secrets.start).authorization}`, 'content-type: application/json', 'content-length: 500'];
  await new Promise<void>((resolve) => void socket.write(`${head.join('\r\n')}\r\n\r\n{"name": "web`, () => resolve()));
  await new Promise((resolve) => setTimeout(resolve, 100));
  socket.destroy();
  // What comes after it is answered after it.
  await web.call('GET', '/v1/sagas', { headers: bearer(secrets.read) });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(lines.filter((line) => line.includes('"level":50'))).toEqual([]);
});
