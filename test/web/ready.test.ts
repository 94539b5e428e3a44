// POST /v1/ready/:token over HTTP, with a worker and a sandbox, on either queue store.
import { pino } from 'pino';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Log } from '../../src/platform/log.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { silentLog } from '../../src/platform/log.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { web as droplet } from '../support/fleet.ts';
import { waitFor } from '../support/wait-for.ts';
import { backends, bearer, credentials, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Backend, Web } from './stage.ts';

const PUBLIC_URL = 'http://arcadia.example.com';

async function openStage(backend: Backend, log: Log = silentLog) {
  const sandbox = await startSandbox({ activateAfterMs: 0, ratePerMinute: null, ratePerHour: null });
  onTestFinished(() => sandbox.close());
  const web = await openWebStage({ ...credentials, PUBLIC_URL, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, WAIT_POLL_INTERVAL_MS: '60000' }, backend, log);
  onTestFinished(() => web[Symbol.asyncDispose]());
  const worker = await startWorker(web.config, silentLog);
  onTestFinished(worker.close);
  return { web, sandbox };
}

/** Starts a saga over HTTP, and resolves with the path that its droplet is to call. */
async function start({ web, sandbox }: Awaited<ReturnType<typeof openStage>>, name: string) {
  const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name, ready: { callback: true }, user_data: '#!/bin/sh\n' }, headers: bearer(secrets.all) });
  const sagaId = sagaIdOf(answer);
  await waitFor(async () => (await loadSaga(web.db, sagaId))?.saga.cursor === 2, { what: 'the wait for the report' });
  const [line] = sandbox.state({ name });
  const [, path = ''] = /http:\/\/arcadia\.example\.com(\/v1\/ready\/[\w.-]+)'/.exec(sandbox.userData(line?.id ?? 0) ?? '') ?? [];
  return { sagaId, path };
}

const atRest = (web: Web, sagaId: string) =>
  waitFor(
    async () => {
      const saga = (await loadSaga(web.db, sagaId))?.saga;
      return saga !== undefined && isAtRest(saga.status) && saga;
    },
    { what: 'the end of the saga' },
  );

describe.each(backends)('on %s', (backend) => {
  test('a report needs no other credentials, and wakes its saga at once; used again, guessed or late it is refused', async () => {
    const stage = await openStage(backend);
    const { web } = stage;
    const one = await start(stage, 'web-1');
    const wrong = await web.call('POST', `${one.path.slice(0, -3)}xyz`, { body: { status: 'ok' } });
    expect([wrong.status, wrong.json()]).toMatchObject([404, { code: 'callback_unknown', instance: '/v1/ready/…' }]);
    const answer = await web.call('POST', one.path, { body: { status: 'ok' } });
    expect([answer.status, answer.json()]).toEqual([200, { result: 'accepted' }]);
    // Its next check would be due in a minute.
    expect((await atRest(web, one.sagaId)).status).toBe('completed');
    const again = await web.call('POST', one.path, { body: { status: 'ok' } });
    expect([again.status, again.json()]).toMatchObject([410, { code: 'callback_spent' }]);

    const other = await start(stage, 'web-2');
    await web.call('POST', `/v1/sagas/${other.sagaId}/cancel`, { headers: bearer(secrets.all) });
    expect((await web.call('POST', other.path, { body: { status: 'ok' } })).status).toBe(410);
  });

  test('a failure rolls back with the droplet\'s words, which the page shows as text', async () => {
    const stage = await openStage(backend);
    const { web } = stage;
    const { sagaId, path } = await start(stage, 'web-1');
    const answer = await web.call('POST', path, { body: 'failed\n<script>alert(1)</script>\nE: broken\n', headers: { 'content-type': 'text/plain' } });
    expect(answer.status).toBe(200);
    expect(await atRest(web, sagaId)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ready', message: expect.stringContaining('<script>alert(1)</script> | E: broken') } });
    const page = await web.call('GET', `/sagas/${sagaId}`, { headers: bearer(secrets.all) });
    expect([page.text.includes('<script>alert(1)'), page.text.includes('E: broken')]).toEqual([false, true]);
    expect(stage.sandbox.state({ alive: true })).toEqual([]);
  });
});

describe('what a report may be', () => {
  test.each<[string, unknown, string, number]>([
    ['JSON', { status: 'failed', log: 'x' }, 'application/json', 404],
    ['text', 'failed\nx', 'text/plain', 404],
    ['a form, as curl sends it', 'status=failed&log=x', 'application/x-www-form-urlencoded', 404],
    ['a word, as curl -d sends it', 'ok', 'application/x-www-form-urlencoded', 404],
    ['another status', { status: 'fine' }, 'application/json', 400],
    ['no status', 'x', 'text/plain', 400],
    ['another field', { status: 'ok', more: 1 }, 'application/json', 400],
    ['a log of more than 64 KiB', `failed\n${'x'.repeat(64 * 1024)}`, 'text/plain', 413],
    ['another type', 'ok', 'image/png', 415],
  ])('%s', async (_what, body, type, status) => {
    await using web = await openWebStage({ ...credentials, PUBLIC_URL });
    const answer = await web.call('POST', '/v1/ready/x', { body, headers: { 'content-type': type } });
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/problem+json']);
  });

  test.each(['text/plain', 'application/json'])('of %s is told the limit of its route', async (type) => {
    await using web = await openWebStage({ ...credentials, PUBLIC_URL });
    const answer = await web.call('POST', '/v1/ready/x', { body: { status: 'ok', log: 'x'.repeat(64 * 1024) }, headers: { 'content-type': type } });
    expect(answer.json()).toMatchObject({ status: 413, code: 'body_too_large', detail: 'expected a body of at most 64 KiB' });
  });
});

test('no log line has the token, not even where Postgres is away', async () => {
  const lines: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) });
  const stage = await openStage('redis', log);
  const { path } = await start(stage, 'web-1');
  const token = path.split('/').at(-1) ?? 'none';
  await stage.web.call('GET', path, { headers: bearer(secrets.all) });
  await stage.web.db.sql`alter table arcadia.ready_callbacks rename to elsewhere`;
  expect((await stage.web.call('POST', path, { body: { status: 'ok' } })).status).toBe(500);
  await stage.web.db.sql`alter table arcadia.elsewhere rename to ready_callbacks`;
  await stage.web.call('POST', path, { body: { status: 'ok' } });
  expect(lines.some((line) => line.includes('/v1/ready/'))).toBe(true);
  expect(lines.filter((line) => line.includes(token))).toEqual([]);
});

test('a callback without PUBLIC_URL is refused, and says what to set', async () => {
  await using web = await openWebStage(credentials);
  const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, ready: { callback: true } }, headers: bearer(secrets.all) });
  expect([answer.status, answer.json()]).toMatchObject([409, { code: 'start_refused', detail: expect.stringContaining('PUBLIC_URL') }]);
});

test.each(['arcadia.example.com', 'ftp://x', 'https://user:pass@x', "https://x/'; rm -rf /", 'https://x?y', 'https://x#y', 'https://x/ y', 'https://$(id)'])('PUBLIC_URL=%s is refused at the start', (url) => {
  expect(() => loadConfig({ PUBLIC_URL: url })).toThrow('PUBLIC_URL: expected the address by which others reach the web');
});

test.each(['10.0.0.0/33', 'localhost', '10.0.0.0/8;127.0.0.1', '0.0.0.0/0', ''])('READY_PROBE_ALLOW=%j is refused at the start, but for nothing', (value) => {
  const load = () => loadConfig({ READY_PROBE_ALLOW: value }).readyProbeAllow;
  if (value === '') expect(load()).toEqual([]); // oxlint-disable-line vitest/no-conditional-expect -- an empty variable is an unset one
  else expect(load).toThrow('READY_PROBE_ALLOW: expected addresses or CIDRs separated by commas, such as 10.0.0.0/8,fd00::/8'); // oxlint-disable-line vitest/no-conditional-expect -- as above
});
