// The two rolling windows, and what the headers tell of them.
import { expect, test } from 'vitest';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { call, openSandbox, type Reply } from './support.ts';

const ask = async (sandbox: Sandbox, token = 'token'): Promise<Reply> => await call(sandbox, 'GET', '/v2/account', { token });

test('the minute limit answers 429 with retry-after, and lets one request through as the oldest expires', async () => {
  const sandbox = await openSandbox({ ratePerMinute: 3 });
  expect((await ask(sandbox)).status).toBe(200);
  sandbox.advanceClock(30_000);
  expect((await ask(sandbox)).status).toBe(200);
  expect((await ask(sandbox)).headers.get('ratelimit-remaining')).toBe('0');
  const refused = await ask(sandbox);
  expect(refused.status).toBe(429);
  expect(refused.body).toMatchObject({ id: 'too_many_requests', message: 'API Rate limit exceeded.' });
  const retryAfterS = Number(refused.headers.get('retry-after'));
  expect(retryAfterS).toBeGreaterThan(25);
  expect(retryAfterS).toBeLessThanOrEqual(30);
  sandbox.advanceClock(retryAfterS * 1000);
  expect((await ask(sandbox)).status).toBe(200);
  expect((await ask(sandbox)).status).toBe(429);
});

test('the hour limit answers 429 without retry-after', async () => {
  const sandbox = await openSandbox({ ratePerHour: 2 });
  await ask(sandbox);
  sandbox.advanceClock(1_800_000);
  await ask(sandbox);
  const refused = await ask(sandbox);
  expect([refused.status, refused.headers.get('retry-after'), refused.headers.get('ratelimit-remaining')]).toEqual([429, null, '0']);
  const resetMs = Number(refused.headers.get('ratelimit-reset')) * 1000;
  expect(Math.abs(resetMs - (Date.now() + 3_600_000))).toBeLessThan(10_000);
  sandbox.advanceClock(1_800_000);
  expect((await ask(sandbox)).status).toBe(200);
  expect((await ask(sandbox)).status).toBe(429);
});

test('refused requests do not count', async () => {
  const sandbox = await openSandbox({ ratePerMinute: 1 });
  await ask(sandbox);
  for (let index = 0; index < 5; index += 1) {
    sandbox.advanceClock(10_000);
    expect((await ask(sandbox)).status).toBe(429);
  }
  sandbox.advanceClock(10_000);
  expect((await ask(sandbox)).status).toBe(200);
});

test('the headers tell of the hour while the minute has room', async () => {
  const sandbox = await openSandbox();
  const { headers } = await ask(sandbox);
  expect([headers.get('ratelimit-limit'), headers.get('ratelimit-remaining')]).toEqual(['5000', '4999']);
  expect(Math.abs(Number(headers.get('ratelimit-reset')) - (Date.now() / 1000 + 3600))).toBeLessThan(10);
  expect((await ask(sandbox)).headers.get('ratelimit-remaining')).toBe('4998');
});

test('each token has its own windows, and answers with 401 have the headers but do not count', async () => {
  const sandbox = await openSandbox({ ratePerMinute: 1 });
  expect((await ask(sandbox, 'one')).status).toBe(200);
  expect((await ask(sandbox, 'one')).status).toBe(429);
  expect((await ask(sandbox, 'two')).status).toBe(200);
  const unknown = await ask(sandbox, '');
  expect([unknown.status, unknown.headers.get('ratelimit-limit')]).toEqual([401, '5000']);
});

test('null is no limit, and limits can be changed while the sandbox runs', async () => {
  const sandbox = await openSandbox({ ratePerMinute: null, ratePerHour: null });
  for (let index = 0; index < 300; index += 1) expect((await ask(sandbox)).status).toBe(200);
  sandbox.setFaults({ ratePerMinute: 1 });
  await ask(sandbox);
  expect((await ask(sandbox)).status).toBe(429);
  sandbox.setFaults({ ratePerMinute: null });
  expect((await ask(sandbox)).status).toBe(200);
});
