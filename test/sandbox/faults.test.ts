// Faults of the way, not of the droplets: errors, lost and broken answers, by rule and by chance.
import { expect, test } from 'vitest';
import { aDroplet, call, create, listNames, openSandbox, until } from './support.ts';
import type { Effect } from '../../src/sandbox/server.ts';

const onCreate = (effect: Effect): { match: { method: 'POST'; path: string }; effect: Effect }[] => [{ match: { method: 'POST', path: '^/v2/droplets$' }, effect }];

test('a status rule answers before any work', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ status: 503, body: { id: 'x', message: 'later' }, headers: { 'Retry-After': '7' } }) } });
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect([reply.status, reply.body.message, reply.headers.get('retry-after')]).toEqual([503, 'later', '7']);
  expect(sandbox.state()).toEqual([]);
  expect(await listNames(sandbox)).toEqual([]);
});

test('a status rule may send any text or no droplet at all', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ status: 202, body: '{"droplet":null}' }) } });
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect([reply.status, reply.text]).toEqual([202, '{"droplet":null}']);
});

test('a lost answer breaks the connection after the work was done', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ lostAnswer: true }) } });
  await expect(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).rejects.toThrow('fetch failed');
  expect(sandbox.state()).toHaveLength(1);
  expect(sandbox.ledger()[0]).toMatchObject({ status: 'lost', made: [sandbox.state()[0]?.id], fault: 'rule 0' });
});

test('a reset breaks the connection before any work', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ reset: true }) } });
  await expect(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).rejects.toThrow('fetch failed');
  expect(sandbox.state()).toEqual([]);
  expect(sandbox.ledger()[0]).toMatchObject({ status: 'reset', made: [] });
});

test('a hanging request is never answered, does no work and does not keep the sandbox from closing', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ hang: true }) } });
  await expect(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet, timeoutMs: 200 })).rejects.toThrow('timeout');
  const left = failureOf(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet }));
  await until('the second request has arrived', () => Promise.resolve(sandbox.ledger()[1]?.status === 'hung' ? true : undefined));
  expect(sandbox.state()).toEqual([]);
  await sandbox.close();
  expect(await left).toContain('fetch failed');
});

test('holdAnswerMs does the work at once and answers late', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ holdAnswerMs: 30_000 }) } });
  const held = failureOf(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet, timeoutMs: 500 }));
  await until('the droplet is there', async () => ((await listNames(sandbox)).length === 1 ? true : undefined));
  expect(await held).toContain('timeout');
});

test('delayMs does the work late, even when the caller has gone', async () => {
  const sandbox = await openSandbox({ ratePerMinute: null, faults: { rules: onCreate({ delayMs: 400 }) } });
  await expect(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet, timeoutMs: 100 })).rejects.toThrow('timeout');
  expect(sandbox.state()).toEqual([]);
  await until('the droplet is there', async () => ((await listNames(sandbox)).length === 1 ? true : undefined));
  await until('the answer found nobody', () => Promise.resolve(sandbox.ledger()[0]?.status === 'lost' ? true : undefined));
});

test('a truncated answer is JSON cut in the middle, with the work done', async () => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ truncate: true }) } });
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect(reply.status).toBe(202);
  expect(() => JSON.parse(reply.text) as unknown).toThrow(SyntaxError);
  expect(reply.text.startsWith('{"droplet":')).toBe(true);
  expect(sandbox.state()).toHaveLength(1);
});

test('an HTML answer comes from the gateway, before or after the work', async () => {
  const sandbox = await openSandbox({ faults: { rules: [...onCreate({ html: 502 }).map((rule) => ({ ...rule, times: 1 })), ...onCreate({ htmlAfterWork: 504 })] } });
  const before = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect([before.status, before.headers.get('content-type'), sandbox.state().length]).toEqual([502, 'text/html', 0]);
  const after = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect([after.status, after.text.includes('<html>'), sandbox.state().length]).toEqual([504, true, 1]);
});

test.each([
  ['string', (id: number) => ({ id: String(id) })],
  ['zero', () => ({ id: 0 })],
  ['missing', () => ({})],
  ['huge', () => ({ id: 1e21 })],
  ['negative', (id: number) => ({ id: -id })],
] as const)('mangleId %s breaks the id of an answer whose work was done', async (how, expected) => {
  const sandbox = await openSandbox({ faults: { rules: onCreate({ mangleId: how }) } });
  const { droplet } = (await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).body;
  const [line] = sandbox.state();
  const { id } = droplet as { id?: unknown };
  expect(id === undefined ? {} : { id }).toEqual(expected(line?.id ?? 0));
  expect(droplet.name).toBe('web-1');
});

test('retryAfterS answers 429 with that header, or without it', async () => {
  const sandbox = await openSandbox({ faults: { rules: [{ match: {}, times: 1, effect: { retryAfterS: 9 } }, { match: {}, effect: { retryAfterS: null } }] } });
  expect((await call(sandbox, 'GET', '/v2/account')).headers.get('retry-after')).toBe('9');
  const second = await call(sandbox, 'GET', '/v2/account');
  expect([second.status, second.headers.get('retry-after')]).toEqual([429, null]);
});

test('a rule skips and fires exactly as often as it says', async () => {
  const sandbox = await openSandbox({ faults: { rules: [{ match: { method: 'GET', path: '/v2/account' }, skip: 2, times: 3, effect: { status: 500 } }] } });
  const statuses: number[] = [];
  for (let index = 0; index < 8; index += 1) {
    statuses.push((await call(sandbox, 'GET', '/v2/account')).status);
    await call(sandbox, 'GET', '/v2/sizes');
  }
  expect(statuses).toEqual([200, 200, 500, 500, 500, 200, 200, 200]);
  expect(sandbox.faults().rules[0]).toMatchObject({ seen: 8, fired: 3 });
});

test('a rule counts exactly when requests come at once', async () => {
  const sandbox = await openSandbox({ faults: { rules: [{ match: {}, skip: 5, times: 7, effect: { status: 500 } }] } });
  const replies = await Promise.all(Array.from({ length: 50 }, () => call(sandbox, 'GET', '/v2/account')));
  expect(replies.filter((reply) => reply.status === 500)).toHaveLength(7);
});

test('rules pick by name and tag, of creates and of lists', async () => {
  const sandbox = await openSandbox({ faults: { rules: [{ match: { name: 'bad-*' }, effect: { status: 500 } }, { match: { tag: '^secret' }, effect: { status: 502 } }] } });
  const post = async (fields: Record<string, unknown>): Promise<number> => (await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, ...fields } })).status;
  expect(await post({ name: 'bad-1' })).toBe(500);
  expect(await post({ name: 'not-bad-1' })).toBe(202);
  expect(await post({ name: undefined, names: ['a', 'bad-2'] })).toBe(500);
  expect(await post({ tags: ['a', 'secret-x'] })).toBe(502);
  expect((await call(sandbox, 'GET', '/v2/droplets?tag_name=secret-x')).status).toBe(502);
  expect((await call(sandbox, 'GET', '/v2/droplets?tag_name=other')).status).toBe(200);
});

test('latencyMs makes every answer late', async () => {
  const sandbox = await openSandbox({ faults: { latencyMs: { minMs: 80, maxMs: 120 } } });
  const begunAt = performance.now();
  await call(sandbox, 'GET', '/v2/account');
  expect(performance.now() - begunAt).toBeGreaterThanOrEqual(79);
});

async function faultsOfTwoHundred(): Promise<string[]> {
  const sandbox = await openSandbox({ ratePerMinute: null, faults: { errorRate: 0.5, seed: 3 } });
  for (let index = 0; index < 200; index += 1) await call(sandbox, 'GET', '/v2/account').catch(() => undefined);
  return sandbox.ledger().map((entry) => entry.fault ?? 'none');
}

test('errorRate breaks that share of requests in every way there is, the same ones for the same seed', async () => {
  const first = await faultsOfTwoHundred();
  expect(new Set(first).size).toBe(10);
  expect(first.filter((fault) => fault === 'none').length).toBeGreaterThan(60);
  expect(first.filter((fault) => fault === 'none').length).toBeLessThan(140);
  expect(await faultsOfTwoHundred()).toEqual(first);
});

test('errorKinds narrows errorRate down', async () => {
  const sandbox = await openSandbox({ faults: { errorRate: 1, errorKinds: ['lost'] } });
  await expect(call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).rejects.toThrow('fetch failed');
  expect(sandbox.state()).toHaveLength(1);
});

test('unauthorized answers every request 401, down every request 503', async () => {
  const sandbox = await openSandbox({ faults: { unauthorized: true } });
  expect((await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).status).toBe(401);
  sandbox.setFaults({ unauthorized: false, down: true });
  expect((await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet })).status).toBe(503);
  sandbox.setFaults({ down: false });
  await create(sandbox);
  expect(sandbox.state()).toHaveLength(1);
});

test('nextHost sends the next page to another host', async () => {
  const sandbox = await openSandbox({ faults: { nextHost: 'elsewhere.example' } });
  const { pages } = (await call(sandbox, 'GET', '/v2/sizes?per_page=2')).body.links;
  expect(pages?.next).toBe('http://elsewhere.example/v2/sizes?per_page=2&page=2');
  expect(pages?.last?.startsWith(sandbox.url)).toBe(true);
});

async function failureOf(request: Promise<unknown>): Promise<string> {
  return await request.then(
    () => 'none: it was answered',
    (error: unknown) => String(error),
  );
}
