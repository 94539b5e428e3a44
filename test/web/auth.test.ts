// Who may do what: every route against no credentials, wrong ones, each scope, a person, and a page of another site.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import type { RequestOptions } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireClosedWeb } from '../../src/platform/closed-ports.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { basic, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';
import { programFile } from '../support/programs.ts';

const nobody = 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001';

type Route = Readonly<{ method: string; path: string; needs: 'read' | 'start' | 'operate' | 'read+start' | 'read+operate'; body?: unknown }>;

const open = [
  { method: 'GET', path: '/healthz' },
  { method: 'GET', path: '/readyz' },
  { method: 'GET', path: '/statusz' },
];

const closed: readonly Route[] = [
  { method: 'GET', path: '/', needs: 'read' },
  { method: 'GET', path: '/metrics', needs: 'read' },
  { method: 'GET', path: '/openapi.json', needs: 'read' },
  { method: 'GET', path: '/docs', needs: 'read' },
  { method: 'GET', path: '/assets/pages.css', needs: 'read' },
  { method: 'GET', path: '/assets/pages.js', needs: 'read' },
  { method: 'GET', path: '/sagas', needs: 'read' },
  { method: 'GET', path: `/sagas/${nobody}`, needs: 'read' },
  { method: 'GET', path: '/sagas/bulk?action=retry', needs: 'read+operate' },
  { method: 'GET', path: '/start', needs: 'read+start' },
  { method: 'POST', path: '/start', needs: 'read+start' },
  { method: 'POST', path: '/start/edit', needs: 'read+start' },
  { method: 'POST', path: '/start/confirm', needs: 'read+start' },
  { method: 'POST', path: '/sagas/bulk', needs: 'operate', body: { action: 'retry' } },
  { method: 'POST', path: `/sagas/${nobody}/cancel`, needs: 'operate' },
  { method: 'POST', path: `/sagas/${nobody}/retry`, needs: 'operate' },
  { method: 'GET', path: '/v1/sagas', needs: 'read' },
  { method: 'HEAD', path: '/v1/sagas', needs: 'read' },
  { method: 'GET', path: `/v1/sagas/${nobody}`, needs: 'read' },
  { method: 'GET', path: `/v1/sagas/${nobody}/events`, needs: 'read' },
  { method: 'GET', path: '/v1/resources', needs: 'read' },
  { method: 'GET', path: '/v1/audit', needs: 'read' },
  { method: 'GET', path: '/audit', needs: 'read' },
  { method: 'GET', path: '/queues', needs: 'read' },
  { method: 'GET', path: '/queues/queue/saga-steps', needs: 'read' },
  { method: 'GET', path: '/queues/static/favicon-32x32.png', needs: 'read' },
  { method: 'GET', path: '/queues/api/queues', needs: 'read' },
  { method: 'GET', path: '/queues/api/redis/stats', needs: 'read' },
  { method: 'GET', path: '/nowhere', needs: 'read' },
  { method: 'POST', path: '/v1/sagas/provision_droplet', needs: 'start', body: {} },
  { method: 'POST', path: '/v1/sagas/destroy_droplet', needs: 'start', body: {} },
  { method: 'POST', path: '/v1/sagas/nope', needs: 'start', body: {} },
  { method: 'POST', path: '/v1/droplets/7/lease', needs: 'start', body: { ttl_s: 60 } },
  { method: 'POST', path: `/sagas/${nobody}/lease`, needs: 'start' },
  { method: 'POST', path: `/v1/sagas/${nobody}/cancel`, needs: 'operate' },
  { method: 'POST', path: `/v1/sagas/${nobody}/retry`, needs: 'operate' },
  { method: 'POST', path: '/v1/bulk/cancel', needs: 'operate', body: { filter: { text: 'x' } } },
  { method: 'POST', path: '/v1/bulk/retry', needs: 'operate', body: { filter: { text: 'x' } } },
  { method: 'PUT', path: '/queues/api/queues/saga-steps/resume', needs: 'operate' },
  { method: 'PUT', path: '/queues/api/queues/resume', needs: 'operate' },
  { method: 'POST', path: '/nowhere', needs: 'operate' },
];

// Anything else means that the guard let it through.
const refusals = new Set([401, 403, 421, 429, 500, 503]);

describe('with credentials configured', () => {
  let web: Web;
  beforeAll(async () => {
    web = await openWebStage(credentials);
  });
  afterAll(() => web[Symbol.asyncDispose]());

  const answerTo = async ({ method, path, body }: Route, headers: Record<string, string>) => {
    const answer = await web.call(method, path, { headers, ...(body === undefined ? {} : { body }) });
    for (const secret of Object.values(secrets)) expect(answer.text).not.toContain(secret);
    const mayBeKept = path.startsWith('/assets/') && answer.status === 200;
    expect(answer.headers.get('cache-control')).toBe(mayBeKept ? 'private, max-age=31536000, immutable' : 'no-store');
    expect(answer.headers.get('content-security-policy')).toContain("default-src 'none'");
    return refusals.has(answer.status) ? answer.status : 'in';
  };

  test.each(open)('$method $path: anybody may', async (route) => {
    expect((await web.call(route.method, route.path)).status).toBe(200);
  });

  test.each(closed)('$method $path needs: $needs', async (route) => {
    const asked = {
      nobody: await answerTo(route, {}),
      read: await answerTo(route, bearer(secrets.read)),
      start: await answerTo(route, bearer(secrets.start)),
      operate: await answerTo(route, bearer(secrets.operate)),
      all: await answerTo(route, bearer(secrets.all)),
      person: await answerTo(route, basic()),
    };
    expect(asked).toEqual({ nobody: 401, read: 403, start: 403, operate: 403, ...(route.needs.includes('+') ? {} : { [route.needs]: 'in' }), all: 'in', person: 'in' });
  });

  test.each(closed)('$method $path is closed to wrong credentials', async (route) => {
    // From an address of its own: each is listened to only so often.
    const localAddress = `127.0.1.${closed.indexOf(route) + 1}`;
    const asked = [bearer('wrong'), bearer(secrets.password), basic('ada', 'wrong'), basic('reader', secrets.read), { authorization: secrets.read }];
    for (const headers of asked) {
      expect(await statusOf(`${web.url}${route.path}`, { method: route.method, headers, localAddress })).toBe(401);
    }
  });

  test.each(closed.filter(({ method }) => method !== 'GET' && method !== 'HEAD'))('$method $path is closed to pages of other sites', async (route) => {
    const asked = {
      otherOrigin: await answerTo(route, { ...basic(), origin: 'https://evil.example' }),
      noOrigin: await answerTo(route, { ...basic(), origin: 'null' }),
      otherSite: await answerTo(route, { ...basic(), 'sec-fetch-site': 'cross-site' }),
      sisterSite: await answerTo(route, { ...basic(), 'sec-fetch-site': 'same-site', origin: web.url }),
      sameOrigin: await answerTo(route, { ...basic(), origin: web.url }),
      behindProxy: await answerTo(route, { ...basic(), 'sec-fetch-site': 'same-origin', origin: 'https://behind-a-proxy.example' }),
      // No page can make a browser send a program's token.
      program: await answerTo(route, { ...bearer(secrets.all), origin: 'https://other.example' }),
    };
    expect(asked).toEqual({ otherOrigin: 403, noOrigin: 403, otherSite: 403, sisterSite: 403, sameOrigin: 'in', behindProxy: 'in', program: 'in' });
  });

  test('says who asked, in the saga and in the audit', async () => {
    const started = await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: bearer(secrets.start) });
    const sagaId = sagaIdOf(started);
    await web.call('POST', `/v1/sagas/${sagaId}/cancel`, { headers: basic() });
    const rows = await web.db.sql`select actor, action from arcadia.audit where saga_id = ${sagaId} order by id`;
    expect([...rows]).toEqual([
      { actor: 'http:starter', action: 'saga_created' },
      { actor: 'http:ada', action: 'cancel_requested' },
    ]);
  });

  test('tells a stranger what to do, and nothing else', async () => {
    const answer = await web.call('GET', '/v1/sagas');
    expect(answer.headers.get('www-authenticate')).toContain('Basic');
    expect(answer.json()).toMatchObject({ status: 401, code: 'unauthorized' });
  });

  // Last: wrong credentials from this address are answered otherwise for a minute.
  test('answers 429 to more wrong credentials from one address, for people and programs apart; correct ones still pass', async () => {
    const wrong = [basic('ada', 'wrong'), basic('eve'), { authorization: 'Basic' }, { authorization: 'Digest x' }, basic('ada', '')];
    const statuses: number[] = [];
    for (let round = 0; round < 3; round += 1) for (const headers of wrong) statuses.push((await web.call('GET', '/v1/sagas', { headers })).status);
    expect(statuses).toEqual([...Array<number>(10).fill(401), ...Array<number>(5).fill(429)]);
    const blocked = await web.call('GET', '/v1/sagas', { headers: basic('ada', 'wrong') });
    expect(blocked.status).toBe(429);
    expect(Number(blocked.headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await web.call('GET', '/v1/sagas', { headers: basic() })).status).toBe(200);
    expect((await web.call('GET', '/v1/sagas', { headers: bearer(secrets.read) })).status).toBe(200);
    for (const secret of ['x', '', `${secrets.read} `, secrets.password, secrets.read.slice(0, -1)]) {
      const { status } = await web.call('GET', '/v1/sagas', { headers: bearer(secret) });
      // HTTP itself cuts off the blank at the end.
      expect(status).toBe(secret.trim() === secrets.read ? 200 : 401);
    }
    expect((await web.call('GET', '/healthz')).status).toBe(200);
  });
});

describe('without credentials, on loopback', () => {
  test('is open to this machine, but not to pages of other sites, nor to names that others point at it', async () => {
    await using web = await openWebStage();
    expect((await web.call('GET', '/v1/sagas')).status).toBe(200);
    expect((await web.call('POST', '/v1/bulk/cancel', { body: { filter: { text: 'x' } }, headers: { origin: 'https://evil.example' } })).status).toBe(403);
    expect((await web.call('PUT', '/queues/api/queues/saga-steps/pause', { headers: { 'sec-fetch-site': 'cross-site' } })).status).toBe(403);
    expect(await statusOf(`${web.url}/v1/sagas`, { headers: { host: 'evil.example:3000' } })).toBe(421);
    expect(await statusOf(`${web.url}/v1/sagas`, { headers: { host: 'localhost:3000' } })).toBe(200);
  });

  test('refuses to start where others reach it, before anything else', async () => {
    const child = spawn(process.execPath, [programFile('main'), 'web'], {
      env: { PATH: process.env['PATH'], HOST: '0.0.0.0', PORT: '0', DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    await once(child, 'close');
    expect(child.exitCode).toBe(78);
    expect(said).toContain('HOST: 0.0.0.0');
    expect(said).toContain('API_TOKENS');
  });

  const long = 'a-secret-of-16-characters-or-more';

  test.each(['0.0.0.0', '::', '10.0.0.1', 'example.com', '127.0.0.1.evil.example'])('counts %s as reachable by others', (HOST) => {
    expect(() => requireClosedWeb(loadConfig({ HOST }).web)).toThrow('credentials are needed');
    expect(() => requireClosedWeb(loadConfig({ HOST, API_TOKENS: long }).web)).not.toThrow();
    expect(() => requireClosedWeb(loadConfig({ HOST, DASHBOARD_USER: 'a', DASHBOARD_PASSWORD: long }).web)).not.toThrow();
  });

  test.each([
    ['a short token', { API_TOKENS: `billing:read:short-hidden,${long}` }, 'API_TOKENS billing: expected at least 16 characters'],
    ['a short password', { DASHBOARD_USER: 'a', DASHBOARD_PASSWORD: 'short-hidden' }, 'DASHBOARD_PASSWORD: expected at least 16 characters'],
    ['one secret for two tokens', { API_TOKENS: `one:read:${long},two:start:${long}` }, 'API_TOKENS two: expected a secret of its own, found that of API_TOKENS one'],
    ['one secret for a token and a person', { API_TOKENS: `one:read:${long}`, DASHBOARD_USER: 'a', DASHBOARD_PASSWORD: long }, 'DASHBOARD_PASSWORD: expected a secret of its own, found that of API_TOKENS one'],
  ])('refuses %s where others reach it, and not on loopback; the secret is not repeated', (_what, environment, message) => {
    const refused = () => requireClosedWeb(loadConfig({ ...environment, HOST: '0.0.0.0' }).web);
    expect(refused).toThrow(message);
    expect(refused).not.toThrow(/hidden|a-secret-of/);
    expect(() => requireClosedWeb(loadConfig(environment).web)).not.toThrow();
  });

  test.each(['127.0.0.1', '127.8.8.8', '::1', 'localhost'])('counts %s as this machine alone', (HOST) => {
    expect(() => requireClosedWeb(loadConfig({ HOST }).web)).not.toThrow();
  });
});

describe('the configuration of tokens', () => {
  test('takes bare secrets and named ones with scopes', () => {
    expect(loadConfig({ API_TOKENS: 's1, billing:read+start:a:b' }).web.tokens).toEqual([
      { name: 'token-1', scopes: ['read', 'start', 'destroy', 'operate'], secret: 's1' },
      { name: 'billing', scopes: ['read', 'start'], secret: 'a:b' },
    ]);
  });

  test('names the tokens that may destroy droplets with start alone, unless that is switched off', () => {
    const API_TOKENS = 'billing:read+start:a:b,all,metrics:read:c';
    expect(loadConfig({ API_TOKENS }).web.impliedDestroy).toEqual(['billing']);
    expect(loadConfig({ API_TOKENS, API_TOKENS_START_MAY_DESTROY: 'false' }).web.impliedDestroy).toEqual([]);
  });

  test.each(['hidden1,', 'x:nope:hidden1', 'x::hidden1', 'x:read:', ':read:hidden1', 'x:read:hidden1,x:read:hidden2', 'hid den1', 'x:read+read:hidden1', 'X:read:hidden1'])(
    'refuses %s without repeating it',
    (API_TOKENS) => {
      expect(() => loadConfig({ API_TOKENS })).toThrow(/API_TOKENS: expected bearer tokens/);
      expect(() => loadConfig({ API_TOKENS })).not.toThrow(/hidden1|hid den1/);
    },
  );

  test('wants the user and the password of the dashboard together', () => {
    expect(() => loadConfig({ DASHBOARD_USER: 'ada' })).toThrow('DASHBOARD_PASSWORD: not set');
    expect(() => loadConfig({ DASHBOARD_PASSWORD: 'hidden1' })).toThrow(/DASHBOARD_USER: not set(?![^]*hidden1)/);
  });
});

/** fetch lets its users choose neither the host nor the address that they come from. */
function statusOf(url: string, options: RequestOptions): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(url, options, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.once('error', reject);
    sent.end();
  });
}
