// Behind a proxy: whose word counts for who asks, and under which path everything is found.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { basic, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const ask = (web: Web, from: string, headers: Record<string, string>) => web.call('GET', '/v1/sagas', { headers: { 'x-forwarded-for': from, ...headers } });
const wrong = (user = 'eve') => basic(user, 'wrong');

async function fail(web: Web, from: string, times: number, user?: string): Promise<number[]> {
  const statuses: number[] = [];
  for (let index = 0; index < times; index += 1) statuses.push((await ask(web, from, wrong(user))).status);
  return statuses;
}

describe('wrong passwords by way of a trusted proxy', () => {
  let web: Web;
  beforeAll(async () => {
    web = await openWebStage({ ...credentials, TRUSTED_PROXIES: '127.0.0.0/8, 10.0.0.1' });
  });
  afterAll(() => web[Symbol.asyncDispose]());

  test('are counted for the client that sent them', async () => {
    expect(await fail(web, '198.51.100.1', 12)).toEqual([...Array<number>(10).fill(401), 429, 429]);
    expect((await ask(web, '198.51.100.2', wrong())).status).toBe(401);
    // What the client itself wrote into the header stands left of what the proxies wrote.
    expect((await ask(web, '203.0.113.7, 198.51.100.1', wrong())).status).toBe(429);
    expect((await ask(web, '198.51.100.1, 10.0.0.1', wrong())).status).toBe(429);
  });

  test('keep out nobody who has the right one, not even from the same address', async () => {
    await fail(web, '198.51.100.3', 11);
    expect((await ask(web, '198.51.100.3', basic())).status).toBe(200);
    expect((await ask(web, '198.51.100.3', bearer(secrets.read))).status).toBe(200);
  });

  test('for one user are counted over all addresses, known user or not, and keep nobody out', async () => {
    for (const user of ['ada', 'nobody']) {
      const statuses: number[] = [];
      for (let index = 0; index < 102; index += 1) statuses.push(...(await fail(web, `192.0.2.${index}`, 1, user)));
      expect({ user, statuses }).toEqual({ user, statuses: [...Array<number>(100).fill(401), 429, 429] });
    }
    expect((await ask(web, '192.0.2.1', basic())).status).toBe(200);
    expect((await ask(web, '192.0.2.200', wrong('somebody'))).status).toBe(401);
  });
});

test('a client that is no trusted proxy is not believed: neither its address nor its host', async () => {
  await using web = await openWebStage({ ...credentials, TRUSTED_PROXIES: '10.0.0.1' });
  const statuses = await Promise.all(Array.from({ length: 11 }, (_, index) => ask(web, `198.51.100.${index}`, wrong())));
  expect(statuses.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([...Array<number>(10).fill(401), 429]);
  const forged = { ...basic(), origin: 'https://arcadia.example', 'x-forwarded-host': 'arcadia.example', 'x-forwarded-proto': 'https' };
  expect((await web.call('POST', '/v1/bulk/retry', { body: { filter: { text: 'x' } }, headers: forged })).status).toBe(403);
});

const change = (web: Web, headers: Record<string, string>) => web.call('POST', '/v1/bulk/retry', { body: { filter: { text: 'x' } }, headers: { ...basic(), ...headers } });

describe('a change from a page', () => {
  test('whose host the proxy did not pass on is refused, and the answer says what to set', async () => {
    await using web = await openWebStage({ ...credentials, TRUSTED_PROXIES: '127.0.0.1' });
    const refused = await change(web, { origin: 'http://arcadia.example' });
    expect([refused.status, refused.text]).toEqual([403, expect.stringContaining('proxy_set_header Host $host;')]);
    expect(refused.text).toContain('WEB_ALLOWED_HOSTS');
    expect((await change(web, { origin: 'http://arcadia.example', 'x-forwarded-host': 'arcadia.example' })).status).toBe(200);
    expect((await change(web, { origin: 'http://evil.example', 'x-forwarded-host': 'arcadia.example' })).status).toBe(403);
  });

  test('on an allowed host is taken', async () => {
    await using web = await openWebStage({ ...credentials, WEB_ALLOWED_HOSTS: 'other.example, Arcadia.Example:8443' });
    const statuses = await Promise.all(['https://arcadia.example:8443', 'http://other.example', 'https://arcadia.example', 'null'].map(async (origin) => (await change(web, { origin })).status));
    expect(statuses).toEqual([200, 200, 403, 403]);
    expect((await change(web, { origin: 'http://other.example', 'sec-fetch-site': 'cross-site' })).status).toBe(403);
  });

  test('without credentials configured, reaches the web by an allowed host, and by no host that only a header claims', async () => {
    await using web = await openWebStage({ WEB_ALLOWED_HOSTS: 'arcadia.example', TRUSTED_PROXIES: '127.0.0.1' });
    const hosts = [{ host: 'arcadia.example' }, { host: 'localhost' }, { host: 'evil.example' }, { host: 'evil.example', 'x-forwarded-host': 'localhost' }, { host: 'localhost', 'x-forwarded-host': 'evil.example' }];
    const answers = await Promise.all(hosts.map((headers) => send(`${web.url}/v1/sagas`, headers)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 421, 421, 421]);
    expect(answers[2]?.text).toContain('proxy_set_header Host $host;');
    expect(answers[2]?.text).toContain('WEB_ALLOWED_HOSTS');
  });

  test('without credentials configured, reaches by the host of PUBLIC_URL only what droplets report', async () => {
    await using web = await openWebStage({ PUBLIC_URL: 'https://public.example' });
    const at = async (method: string, path: string, headers: Record<string, string> = { host: 'public.example' }) => (await send(`${web.url}${path}`, headers, method)).status;
    // 400: it has no body.
    expect([await at('POST', '/v1/ready/x'), await at('POST', '/v1/ready/x', { host: 'evil.example' })]).toEqual([400, 421]);
    for (const path of ['/v1/sagas', '/sagas', '/metrics', '/statusz', '/v1/ready/x', '/healthz']) expect([path, await at('GET', path)]).toEqual([path, 421]);
    expect(await at('POST', '/v1/bulk/retry')).toBe(421);
    // Nor may its pages change anything at an address that is answered.
    expect(await at('POST', '/v1/bulk/retry', { host: 'localhost', origin: 'https://public.example' })).toBe(403);
  });

  test('with credentials configured, is taken on the host of PUBLIC_URL', async () => {
    await using web = await openWebStage({ ...credentials, PUBLIC_URL: 'https://public.example' });
    expect((await change(web, { origin: 'https://public.example' })).status).toBe(200);
    expect((await send(`${web.url}/v1/sagas`, { ...basic(), host: 'public.example' })).status).toBe(200);
  });
});

describe.each([
  { how: 'passes the path on', strips: false },
  { how: 'takes the base path off', strips: true },
])('under a base path, behind a proxy that $how', ({ strips }) => {
  let web: Web;
  let url: string;
  let closeProxy: () => void;
  beforeAll(async () => {
    web = await openWebStage({ ...credentials, WEB_BASE_PATH: '/ops/arcadia', TRUSTED_PROXIES: '127.0.0.1' });
    // Takes what is under the base path alone, as a proxy that serves others too.
    const proxy = createServer((incoming, outgoing) => {
      const path = incoming.url ?? '';
      if (!/^\/ops\/arcadia(?:[/?]|$)/.test(path)) {
        outgoing.writeHead(418).end(`outside of the base path: ${path}`);
        return;
      }
      const passed = strips ? path.slice('/ops/arcadia'.length).replace(/^(?!\/)/, '/') : path;
      const onward = request(`${web.url}${passed}`, { method: incoming.method, headers: { ...incoming.headers, 'x-forwarded-for': '198.51.100.9' } }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      incoming.pipe(onward);
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`; // oxlint-disable-line typescript/no-unsafe-type-assertion
    closeProxy = () => {
      proxy.close();
      proxy.closeAllConnections();
    };
  });
  afterAll(async () => {
    closeProxy();
    await web[Symbol.asyncDispose]();
  });

  const through = (path: string, init: { method?: string; headers?: Record<string, string>; body?: string } = {}) => fetch(`${url}${path}`, { redirect: 'manual', ...init, headers: { ...basic(), accept: 'text/html', ...init.headers } });
  const start = async () => sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: basic() }));

  test('every address on every page leads to where it says', async () => {
    const id = await start();
    await web.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null where id = ${await start()}`;
    const pages = ['/ops/arcadia/sagas', '/ops/arcadia/sagas?q=web', '/ops/arcadia/sagas?q=nothing-like-it', `/ops/arcadia/sagas/${id}`, '/ops/arcadia/docs', '/ops/arcadia/sagas/bulk?action=retry', '/ops/arcadia/sagas/bulk?action=cancel&q=web', `/ops/arcadia/sagas/00000000-0000-4000-8000-000000000000`];
    const addresses = new Set<string>();
    for (const page of pages) {
      const text = await (await through(page)).text();
      for (const [, name = '', value = ''] of text.matchAll(/\s(href|src|action|data-events)="([^"#]*)"/g)) {
        expect({ page, name, value }).toEqual({ page, name, value: expect.stringMatching(/^(?:\/ops\/arcadia\/|data:,)/) });
        if (name !== 'action' && name !== 'data-events' && value.startsWith('/')) addresses.add(value.replaceAll('&amp;', '&'));
      }
    }
    expect(addresses.size).toBeGreaterThan(15);
    for (const address of addresses) expect({ address, status: (await through(address)).status }).toEqual({ address, status: 200 });
  });

  test('redirects, forms, the stream and the API stay under it', async () => {
    const id = await start();
    const form = { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded', origin: url, 'sec-fetch-site': 'same-origin' } };
    const locations = [
      await through('/ops/arcadia'), await through('/ops/arcadia/'), await through('/ops/arcadia/sagas?q='), await through(`/ops/arcadia/sagas/${id.slice(0, 8)}`),
      await through(`/ops/arcadia/sagas/${id}/cancel`, { ...form, body: 'reason=x' }), await through('/ops/arcadia/sagas/bulk', { ...form, body: 'action=retry' }),
    ].map((answer) => answer.headers.get('location'));
    expect(locations).toEqual([
      '/ops/arcadia/sagas', '/ops/arcadia/sagas', '/ops/arcadia/sagas', `/ops/arcadia/sagas?q=${id.slice(0, 8)}`, `/ops/arcadia/sagas/${id}?told=cancelled`, '/ops/arcadia/sagas/bulk?action=retry',
    ]);
    const json = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(droplet) };
    const started = await through('/ops/arcadia/v1/sagas/provision_droplet', json);
    expect([started.status, started.headers.get('location')]).toEqual([202, expect.stringMatching(/^\/ops\/arcadia\/v1\/sagas\/[0-9a-f-]{36}$/)]);
    expect(await (await through(`/ops/arcadia/v1/sagas/${id}/events`)).text()).toContain('event: end');
    expect(z.object({ servers: z.unknown() }).parse(await (await through('/ops/arcadia/openapi.json')).json()).servers).toEqual([{ url: '/ops/arcadia' }]);
    // Probes and scrapers come past the proxy.
    for (const path of ['/healthz', '/ops/arcadia/healthz']) expect((await web.call('GET', path)).status).toBe(200);
    expect((await web.call('GET', '/ops/arcadiax/healthz', { headers: basic() })).status).toBe(404);
  });

  test("the queues' page finds its files, its API and the way back", async () => {
    const id = await start();
    const index = await (await through('/ops/arcadia/queues')).text();
    expect(index).toContain('<base href="/ops/arcadia/queues/"');
    const files = [...index.matchAll(/(?:src|href)="(static\/[^"]+)"/g)].map(([, file]) => file ?? '');
    expect(files.length).toBeGreaterThan(3);
    for (const file of files) expect({ file, status: (await through(`/ops/arcadia/queues/${file}`)).status }).toEqual({ file, status: 200 });
    expect(index).toContain('/ops/arcadia/docs');
    const jobs = await (await through('/ops/arcadia/queues/api/queues?activeQueue=saga-steps&status=latest&page=1&jobsPerPage=10')).text();
    expect(jobs).toContain(`"/ops/arcadia/sagas/${id}"`);
  });
});

test('a base path changes nothing that a caller wrote', async () => {
  await using web = await openWebStage({ ...credentials, WEB_BASE_PATH: '/arcadia' });
  const text = (await web.call('GET', `/sagas?q=${encodeURIComponent('/x href="/y" action="/z"')}`, { headers: { ...basic(), accept: 'text/html' } })).text;
  expect(text).toContain('value="/x href=&quot;/y&quot; action=&quot;/z&quot;"');
});

describe('settings', () => {
  test.each([
    ['TRUSTED_PROXIES', '10.0.0.1, 10.0.0.0/8,::1,fd00::/8'],
    ['TRUSTED_PROXIES', ''],
    ['WEB_BASE_PATH', '/'],
    ['WEB_BASE_PATH', '/arcadia'],
    ['WEB_BASE_PATH', '/a/b-c_d~e.f'],
    ['WEB_ALLOWED_HOSTS', 'arcadia.example.com,localhost:8080,[::1]:3000'],
  ])('%s may be %j', (name, value) => {
    expect(() => loadConfig({ [name]: value })).not.toThrow();
  });

  test.each([
    ['TRUSTED_PROXIES', 'nginx'],
    ['TRUSTED_PROXIES', '10.0.0.0/33'],
    ['TRUSTED_PROXIES', '10.0.0.1,'],
    ['TRUSTED_PROXIES', '0.0.0.0/0'],
    ['TRUSTED_PROXIES', '::/0'],
    ['TRUSTED_PROXIES', 'true'],
    ['TRUSTED_PROXIES', '10.0.0.1/8/8'],
    ['WEB_BASE_PATH', 'arcadia'],
    ['WEB_BASE_PATH', '/arcadia/'],
    ['WEB_BASE_PATH', '//arcadia'],
    ['WEB_BASE_PATH', '/../x'],
    ['WEB_BASE_PATH', '/a b'],
    ['WEB_BASE_PATH', '/a"b'],
    ['WEB_ALLOWED_HOSTS', 'https://arcadia.example.com'],
    ['WEB_ALLOWED_HOSTS', '*'],
  ])('%s is not %j, and what is expected is said', (name, value) => {
    expect(() => loadConfig({ [name]: value })).toThrow(new RegExp(`${name}: expected `));
  });
});

/** With a host of one's own, which fetch does not let its users choose. */
function send(url: string, headers: Record<string, string>, method = 'GET'): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    onTestFinished(() => void sent.destroy());
    sent.once('error', reject);
    sent.end();
  });
}
