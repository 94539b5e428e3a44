// The sandbox's own routes, over HTTP as another process uses them.
import { request as httpRequest } from 'node:http';
import { expect, test } from 'vitest';
import type { DropletLine, LedgerEntry, Sandbox } from '../../src/sandbox/server.ts';
import { call, create, listNames, openSandbox, read } from './support.ts';

type Control = {
  status: number;
  body: { message: string; droplet: DropletLine; droplets: DropletLine[]; alive: number; requests: LedgerEntry[]; total: number; byRoute: Record<string, number>; byStatus: Record<string, number>; listLagMs: number; rules: { seen: number; fired: number }[] };
};

// Without a token, and so that nothing of it may be in the ledger.
async function control(sandbox: Sandbox, method: string, path: string, body?: unknown): Promise<Control> {
  const response = await fetch(`${sandbox.url}/sandbox${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await response.text();
  return { status: response.status, body: JSON.parse(text === '' ? '{}' : text) };
}

test('the state tells of all droplets, also of deleted ones', async () => {
  const sandbox = await openSandbox();
  const first = await create(sandbox, { name: 'first', tags: ['t'] });
  await create(sandbox, { name: 'second' });
  await call(sandbox, 'DELETE', `/v2/droplets/${first.id}`);
  const { body } = await control(sandbox, 'GET', '/state');
  expect(body.alive).toBe(1);
  expect(body.droplets).toMatchObject([
    { name: 'first', alive: false, tags: ['t'], created_at: first.created_at },
    { name: 'second', alive: true, deletedAt: null },
  ]);
  expect(Date.parse(body.droplets[0]?.deletedAt ?? '')).toBeGreaterThanOrEqual(Date.parse(first.created_at));
  expect((await control(sandbox, 'GET', '/state?alive=1')).body.droplets.map((line) => line.name)).toEqual(['second']);
  expect((await control(sandbox, 'GET', '/state?tag=t')).body.droplets.map((line) => line.name)).toEqual(['first']);
});

test('the ledger has every API request in order, with what it made and deleted', async () => {
  const sandbox = await openSandbox();
  const { id } = await create(sandbox);
  await listNames(sandbox, '?tag_name=t&per_page=5');
  await call(sandbox, 'DELETE', `/v2/droplets/${id}/`);
  await call(sandbox, 'GET', '/v2/account', { token: '' });
  const { requests } = (await control(sandbox, 'GET', '/ledger')).body;
  expect(requests).toMatchObject([
    { seq: 0, method: 'POST', path: '/v2/droplets', status: 202, made: [id], userAgent: 'node' },
    { seq: 1, method: 'GET', path: '/v2/droplets', query: { tag_name: 't', per_page: '5' }, status: 200 },
    { seq: 2, method: 'DELETE', path: `/v2/droplets/${id}`, status: 204, deleted: [id] },
    { seq: 3, method: 'GET', status: 401 },
  ]);
  expect((await control(sandbox, 'GET', '/ledger?since=2')).body.requests).toHaveLength(2);
});

test('the summary counts by route and status until the ledger is cleared', async () => {
  const sandbox = await openSandbox();
  const { id } = await create(sandbox);
  await read(sandbox, id);
  await read(sandbox, 1);
  await listNames(sandbox, '?tag_name=t');
  const { body } = await control(sandbox, 'GET', '/ledger?summary=1');
  expect(body.total).toBe(4);
  expect(body.byRoute).toEqual({ 'POST /v2/droplets': 1, 'GET /v2/droplets/:id': 2, 'GET /v2/droplets?tag_name': 1 });
  expect(body.byStatus).toEqual({ '200': 2, '202': 1, '404': 1 });
  expect((await control(sandbox, 'DELETE', '/ledger')).status).toBe(204);
  expect((await control(sandbox, 'GET', '/ledger')).body).toEqual({ total: 0, requests: [] });
});

test('faults are merged, shown and reset', async () => {
  const sandbox = await openSandbox();
  await control(sandbox, 'POST', '/faults', { listLagMs: 5, dropletLimit: 1 });
  await control(sandbox, 'POST', '/faults', { tagLagMs: 6, rules: [{ match: { path: '/v2/account' }, effect: { status: 500 } }] });
  await call(sandbox, 'GET', '/v2/account');
  await control(sandbox, 'POST', '/faults', { dropletLimit: null });
  const { body } = await control(sandbox, 'GET', '/faults');
  expect(body).toMatchObject({ listLagMs: 5, tagLagMs: 6, rules: [{ seen: 1, fired: 1 }] });
  expect(body).not.toHaveProperty('dropletLimit');
  expect((await control(sandbox, 'DELETE', '/faults')).status).toBe(204);
  expect((await control(sandbox, 'GET', '/faults')).body).toMatchObject({ listLagMs: 0, rules: [] });
});

test.each([
  ['an unknown field', { lisstLagMs: 5 }, 'lisstLagMs'],
  ['a value of the wrong type', { listLagMs: 'long' }, 'listLagMs'],
  ['an unknown effect', { rules: [{ match: {}, effect: { explode: true } }] }, 'explode'],
  ['a rule without an effect', { rules: [{ match: {}, effect: {} }] }, 'rules.0.effect: names no effect'],
  ['a broken regular expression', { neverActive: '^(' }, 'neverActive'],
  ['a list', [], 'JSON object'],
])('faults with %s are refused with a 422 that names it, and change nothing', async (_what, faults, named) => {
  const sandbox = await openSandbox();
  const { status, body } = await control(sandbox, 'POST', '/faults', faults);
  expect(status).toBe(422);
  expect(body.message).toContain(named);
  expect(sandbox.faults().listLagMs).toBe(0);
});

test('droplets can be made out of band, of any age, size and status', async () => {
  const sandbox = await openSandbox({ faults: { listLagMs: 60_000, tagLagMs: 60_000 } });
  const foreign = { name: 'foreign', tags: ['managed'], created_at: '2020-01-02T03:04:05Z', status: 'off', size_slug: 'c-2', region: 'fra1' };
  const made = await control(sandbox, 'POST', '/droplets', foreign);
  expect(made.status).toBe(201);
  expect((await read(sandbox, made.body.droplet.id)).body.droplet).toMatchObject({ status: 'off', size_slug: 'c-2', tags: ['managed'], created_at: '2020-01-02T03:04:05Z' });
  await control(sandbox, 'POST', '/droplets', { name: 'gpu', size_slug: 'gpu-h100x1-80gb' });
  expect(await listNames(sandbox, '?tag_name=managed')).toEqual(['foreign']);
  expect(await listNames(sandbox, '?type=gpus')).toEqual(['gpu']);
  expect((await control(sandbox, 'POST', '/droplets', { name: 'x', size_slug: 'nope' })).body.message).toContain('size_slug');
});

test('droplets can be changed out of band', async () => {
  const sandbox = await openSandbox();
  const { id } = await create(sandbox, { tags: ['old'] });
  const networks = { v4: [{ ip_address: '192.0.2.9', netmask: '255.255.255.0', gateway: '192.0.2.1', type: 'public' }] };
  await control(sandbox, 'PATCH', `/droplets/${id}`, { size_slug: 's-2vcpu-4gb', status: 'off', tags: ['new'], networks, name: 'renamed' });
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ name: 'renamed', size_slug: 's-2vcpu-4gb', status: 'off', tags: ['new'], networks: { ...networks, v6: [] } });
  expect(await listNames(sandbox, '?tag_name=old')).toEqual([]);
  expect(await listNames(sandbox, '?tag_name=new')).toEqual(['renamed']);
  expect(await listNames(sandbox, '?name=renamed')).toEqual(['renamed']);
  await control(sandbox, 'PATCH', `/droplets/${id}`, { vanish: true });
  expect((await read(sandbox, id)).status).toBe(404);
  expect((await control(sandbox, 'PATCH', '/droplets/1', {})).status).toBe(404);
  expect((await control(sandbox, 'PATCH', `/droplets/${id}`, { colour: 'red' })).body.message).toContain('colour');
});

test('the clock can be moved on, and everything be forgotten', async () => {
  const sandbox = await openSandbox({ ratePerMinute: 2 });
  const { id } = await create(sandbox);
  await control(sandbox, 'POST', '/clock', { advanceMs: 5000 });
  expect((await read(sandbox, id)).body.droplet.status).toBe('active');
  expect((await read(sandbox, id)).status).toBe(429);
  expect((await control(sandbox, 'POST', '/reset')).status).toBe(204);
  expect((await control(sandbox, 'GET', '/state')).body.droplets).toEqual([]);
  expect((await control(sandbox, 'GET', '/ledger')).body.total).toBe(0);
  expect((await create(sandbox)).id).toBeGreaterThan(id);
});

test('the control routes are not for pages of other sites, nor for a name that was led here; the API itself is', async () => {
  const sandbox = await openSandbox();
  const { host } = new URL(sandbox.url);
  const ask = (path: string, headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      httpRequest(`${sandbox.url}${path}`, { method: path.startsWith('/v2') ? 'GET' : 'POST', headers }, (response) => resolve(response.resume().statusCode)).on('error', reject).end(path.startsWith('/v2') ? undefined : '{}');
    });
  const foreign: Record<string, string>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: `http://${host}`, 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { host: 'evil.example', origin: 'http://evil.example', 'sec-fetch-site': 'same-origin' },
  ];
  for (const headers of foreign) expect([headers, await ask('/sandbox/faults', headers)]).toEqual([headers, 403]);
  for (const headers of [{}, { origin: `http://${host}` }, { 'sec-fetch-site': 'same-origin' }, { host: 'sandbox:4000' }]) expect(await ask('/sandbox/faults', headers)).toBe(200);
  expect(await ask('/v2/account', { origin: 'https://evil.example' })).toBe(401);
});
