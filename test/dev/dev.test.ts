// `dev` and `demo --keep`: they name their pages, which answer, and droplets of the sandbox can call back.
import { fileURLToPath } from 'node:url';
import { once } from 'node:events';
import { describe, expect, inject, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { withCallback } from '../../src/platform/cloud-init.ts';
import { findPort } from '../../src/dev/free-port.ts';
import { describePages, localUrlOf } from '../../src/dev/local-web.ts';
import { callbackIn, reportReady } from '../../src/dev/report-ready.ts';
import { spawnBound } from '../support/child-process.ts';
import { runCommand } from '../support/fleet.ts';
import { waitFor } from '../support/wait-for.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const { PATH, HOME, TMPDIR } = process.env;
const base = { PATH, HOME, TMPDIR, LOG_LEVEL: 'warn' };

function start(args: readonly string[], environment: NodeJS.ProcessEnv) {
  const child = spawnBound(process.execPath, [main, ...args], { env: { ...base, ...environment } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = once(child, 'exit').then(([code]: unknown[]) => code);
  return { output: () => output, end: async () => (child.kill('SIGINT'), ended) };
}

const pagesIn = (output: string) => [...output.matchAll(/^ {2}(\w+(?: \w+)*) {2,}(http\S+)$/gm)].map(([, name = '', url = '']) => ({ name, url }));
const names = ['Sagas', 'Droplets', 'Leases', 'New droplet', 'Fleet', 'Queues', 'Audit', 'API'];

/** The variables that another terminal gets from the printed lines. */
const exportedBy = (output: string): Record<string, string> =>
  Object.fromEntries([...output.matchAll(/(\w+)='([^']*)'|(\w+)=(sandbox)\b/g)].map(([, name = '', value = '', other = '', plain = '']) => [name || other, value || plain]));

async function expectAnswers(pages: readonly { name: string; url: string }[]): Promise<void> {
  const statuses = await Promise.all(pages.map(async ({ url }) => (await fetch(url)).status));
  expect(pages.map(({ name }, index) => [name, statuses[index]])).toEqual(names.map((name) => [name, 200]));
}

test('dev names every page, and a saga that waits for the callback of its droplet completes', { timeout: 120_000 }, async () => {
  const dev = start(['dev'], { PORT: '0' });
  await waitFor(() => dev.output().includes('Ctrl-C stops it.'), { what: 'dev', deadlineMs: 60_000 });
  expect(dev.output()).toMatch(/^The web: http:\/\/127\.0\.0\.1:\d+ \(no login\)$/m);
  await expectAnswers(pagesIn(dev.output()));
  const exported = exportedBy(dev.output());
  expect(Object.keys(exported)).toEqual(['DATABASE_URL', 'ARCADIA_ENCRYPTION_KEYS', 'DIGITALOCEAN_API_URL', 'DIGITALOCEAN_TOKEN', 'PUBLIC_URL']);
  const provision = ['provision', '--name', 'x', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64', '--ready', 'callback'];
  const [plan, made] = await Promise.all([runCommand([...provision, '--dry-run'], { ...base, ...exported }), runCommand(provision, { ...base, ...exported })]);
  expect([plan.code, made.code, made.stderr]).toEqual([0, 0, '']);
  expect(made.stdout).toContain('it reported that its user data ran');
  expect(await dev.end()).toBe(0);
});

test('dev with queues in Redis prints what another terminal needs to reach them', { timeout: 120_000 }, async () => {
  const dev = start(['dev'], { PORT: '0', REDIS_URL: inject('services').redisUrl });
  await waitFor(() => dev.output().includes('Ctrl-C stops it.'), { what: 'dev', deadlineMs: 60_000 });
  const status = await runCommand(['status'], { ...base, ...exportedBy(dev.output()) });
  expect([status.code, status.stdout]).toEqual([0, expect.not.stringContaining('does not answer')]);
  expect(await dev.end()).toBe(0);
});

test('demo --keep names every page from the start', { timeout: 120_000 }, async () => {
  const demo = start(['demo', '--keep'], {});
  await waitFor(() => demo.output().includes('1. Three droplets'), { what: 'the demo', deadlineMs: 60_000 });
  await expectAnswers(pagesIn(demo.output()));
  expect(await demo.end()).toBe(130);
});

describe('the lines that name the pages', () => {
  const pages = [{ text: 'Sagas', path: '/sagas' }, { text: 'API', path: '/docs' }];
  const lines = (environment: NodeJS.ProcessEnv) => describePages('http://127.0.0.1:3000', pages, loadConfig(environment).web).split('\n');

  test('are aligned, and say when nobody has to log in', () => {
    expect(lines({})).toEqual(['The web: http://127.0.0.1:3000 (no login)', '  Sagas  http://127.0.0.1:3000/sagas', '  API    http://127.0.0.1:3000/docs']);
  });

  test('name who may log in, and no secret', () => {
    const [first = '', ...rest] = lines({ DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: 'canary-of-sixteen', API_TOKENS: 'ci:read:canary-of-seventeen' });
    expect(first).toBe('The web: http://127.0.0.1:3000 (log in as ada with DASHBOARD_PASSWORD; API token: ci)');
    expect([first, ...rest].join('')).not.toContain('canary');
  });

  test.each([
    ['127.0.0.1', '', 'http://127.0.0.1:3000'],
    ['0.0.0.0', '/arcadia', 'http://127.0.0.1:3000/arcadia'],
    ['::', '', 'http://[::1]:3000'],
    ['localhost', '', 'http://localhost:3000'],
  ])('on %s%s lead to this machine: %s', (host, basePath, expected) => {
    expect(localUrlOf({ host, basePath }, 3_000)).toBe(expected);
  });
});

test('a port that is in use is none, and 0 is any', async () => {
  const port = (await findPort({ host: '127.0.0.1', port: 0 })) ?? 0;
  expect(port).toBeGreaterThan(0);
  expect(await findPort({ host: '127.0.0.1', port })).toBe(port);
  const { createServer } = await import('node:net');
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  expect(await findPort({ host: '127.0.0.1', port })).toBeNull();
  server.close();
});

describe('the report of a droplet', () => {
  const publicUrl = 'http://127.0.0.1:3000';
  const userData = withCallback('#!/bin/sh\necho ü\n', `${publicUrl}/v1/ready/token-1`);

  test('goes to the callback that stands in its user data, and to no other address', () => {
    expect(callbackIn(userData, publicUrl)).toBe(`${publicUrl}/v1/ready/token-1`);
    expect(callbackIn(userData, 'http://127.0.0.1:3001')).toBeNull();
    expect(callbackIn('#!/bin/sh\n', publicUrl)).toBeNull();
  });

  test('is sent once the droplet is active, again after a failure of the web, and then no more', async () => {
    const { createServer } = await import('node:http');
    const seen: string[] = [];
    const server = createServer((request, response) => {
      seen.push(`${request.method} ${request.url}`);
      response.statusCode = seen.length === 1 ? 503 : 200;
      response.end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const address = server.address();
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
    let status = 'new';
    let looks = 0;
    const line = () => ((looks += 1), [{ id: 7, status }]);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of a droplet it reads no more
    const sandbox = { state: line, userData: () => withCallback(null, `${url}/v1/ready/t`) } as unknown as Parameters<typeof reportReady>[0];
    const end = reportReady(sandbox, url);
    onTestFinished(() => void end());
    await waitFor(() => looks > 1, { what: 'two looks' });
    expect(seen).toEqual([]);
    status = 'active';
    await waitFor(() => seen.length === 2, { what: 'the second try' });
    const after = looks;
    await waitFor(() => looks > after + 1, { what: 'more looks' });
    expect(seen).toEqual(['POST /v1/ready/t', 'POST /v1/ready/t']);
  });
});
