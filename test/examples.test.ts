// The examples, each as its reader runs it: from the packed package, in a folder outside the project, against real processes.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { findPort } from '../src/dev/free-port.ts';
import type { Sandbox } from '../src/sandbox/server.ts';
import { startSandbox } from '../src/sandbox/server.ts';
import { spawnBound } from './support/child-process.ts';
import { compileCache } from './support/compile-cache.ts';
import { installPackage, packPackage } from './support/packed.ts';
import { createTestDatabase } from './support/services-postgres.ts';
import type { TestDatabase } from './support/services-postgres.ts';
import { waitFor } from './support/wait-for.ts';

const run = promisify(execFile);
const examples = fileURLToPath(new URL('../examples/', import.meta.url));
const ownSagas = fileURLToPath(new URL('../docs/how-to/own-sagas.md', import.meta.url));

let folder = '';
let main = '';
let database: TestDatabase;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-examples-'));
  await cp(examples, folder, { recursive: true });
  const { tarball } = await packPackage();
  // One installation above all examples: what one of them needs is among it.
  await installPackage(tarball, folder, ({ dependencies, peerDependencies }) => Object.keys({ ...dependencies, ...peerDependencies }));
  main = join(folder, 'node_modules/arcadia-cloud/dist/main.js');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A program of an example; ends with the test that started it. */
function start(example: string, args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const child = spawnBound(process.execPath, args, { cwd: join(folder, example), env: { ...environment, ...more } });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const exited = once(child, 'exit');
  return {
    says: (text: RegExp) => waitFor(() => text.exec(output) ?? false, { what: `${args.join(' ')} to say ${text}; it said: ${output}` }),
    kill: async (signal: NodeJS.Signals = 'SIGTERM') => {
      child.kill(signal);
      await exited;
      return { code: child.exitCode, output };
    },
  };
}

const startWorker = async (example: string) => {
  const worker = start(example, [main, 'worker']);
  await worker.says(/worker ready/);
  return worker;
};

const arcadia = async (example: string, ...args: string[]) =>
  run(process.execPath, [main, ...args], { cwd: join(folder, example), env: environment }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: unknown) => z.object({ code: z.number(), stdout: z.string(), stderr: z.string() }).parse(error),
  );

/** The Python that has the driver, as script/setup looks for it. */
async function pythonWithPsycopg(): Promise<string> {
  for (const python of ['python3', '/usr/bin/python3']) {
    if (await run(python, ['-c', 'import psycopg']).then(() => true, () => false)) return python;
  }
  throw new Error('psycopg 3 is not installed: run script/setup');
}

/** A database of the example's own, with its sagas. */
async function prepare(example: string, more: NodeJS.ProcessEnv = {}): Promise<void> {
  database = await createTestDatabase();
  environment = { PATH: process.env['PATH'], HOME: process.env['HOME'], ...compileCache, ARCADIA_ENV: 'test', DATABASE_URL: database.directUrl, LOCK_DURATION_MS: '2000', RECONCILE_INTERVAL_MS: '2000', ...more };
  const { code, stderr } = await arcadia(example, 'migrate');
  if (code !== 0) throw new Error(stderr);
}

describe('own-saga', () => {
  const stateSchema = z.object({ names: z.array(z.string()), accounts: z.array(z.object({ name: z.string() })), pages: z.array(z.string()) });
  let serviceUrl = '';
  let service: ReturnType<typeof start>;
  const state = async () => stateSchema.parse(await (await fetch(`${serviceUrl}/state`)).json());

  beforeAll(async () => {
    environment = { PATH: process.env['PATH'] };
    service = start('own-saga', ['service.js'], { PORT: '0' });
    const [, found] = await service.says(/service: (\S+)/);
    serviceUrl = found ?? '';
    await prepare('own-saga', { ARCADIA_APP: './app.js', SITES_URL: serviceUrl });
    return async () => {
      await service.kill();
      await database.drop();
    };
  });

  test('needs no token, runs, and is rolled back in reverse', async () => {
    const worker = await startWorker('own-saga');
    const opened = await arcadia('own-saga', 'start', 'open_site', '--input', '{"name": "my-site"}');
    expect(opened).toMatchObject({ code: 0, stdout: expect.stringContaining('my-site is open') });
    const refused = await arcadia('own-saga', 'start', 'open_site', '--input', '{"name": "forbidden-site"}');
    expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('this page cannot be published') });
    expect(await state()).toMatchObject({ names: ['my-site'], accounts: [{ name: 'my-site' }], pages: ['my-site'] });
    await worker.kill();
  });

  /**
   * A service in front of the example's, at which a worker's next requests arrive. `meanwhile` runs before a request is passed
   * on; if it returns false, the request is passed on but not answered.
   */
  async function openInFront(meanwhile: (request: IncomingMessage) => Promise<boolean>) {
    const inFront = createServer((request, response) => {
      void (async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer); // oxlint-disable-line typescript/no-unsafe-type-assertion
        const body = chunks.length === 0 ? {} : { body: Buffer.concat(chunks) };
        const isAnswered = await meanwhile(request);
        const answer = await fetch(`${serviceUrl}${request.url}`, { method: request.method ?? 'GET', headers: { 'content-type': 'application/json' }, ...body });
        const text = await answer.text();
        if (isAnswered) response.writeHead(answer.status).end(text);
      })();
    }).listen(0, '127.0.0.1');
    await once(inFront, 'listening');
    const address = inFront.address();
    environment['SITES_URL'] = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
    return () => {
      inFront.close();
      inFront.closeAllConnections();
    };
  }

  test('opens one account although its worker is killed while it asks for it', async () => {
    const asked = Promise.withResolvers<undefined>();
    let requests = 0;
    const close = await openInFront(async ({ method }) => {
      if (method !== 'POST') return true;
      requests += 1;
      asked.resolve(undefined);
      return Promise.resolve(requests > 1);
    });
    const victim = await startWorker('own-saga');
    const opening = arcadia('own-saga', 'start', 'open_site', '--input', '{"name": "second-site"}');
    await asked.promise;
    await victim.kill('SIGKILL');
    const rescuer = await startWorker('own-saga');
    expect(await opening).toMatchObject({ code: 0 });
    await rescuer.kill();
    expect((await state()).accounts.filter(({ name }) => name === 'second-site')).toHaveLength(1);
    expect(requests).toBe(1);
    close();
  });

  test.each(['names', 'accounts', 'pages'] as const)('leaves nothing of a saga that is cancelled while its request for %s is on its way', async (kind) => {
    const name = `cancelled-${kind}`;
    const asked = Promise.withResolvers<undefined>();
    let landed = false;
    const close = await openInFront(async ({ method, url }) => {
      if ((method !== 'PUT' && method !== 'POST') || url?.startsWith(`/${kind}`) !== true) return true;
      asked.resolve(undefined);
      await delay(3_000);
      landed = true;
      return true;
    });
    const worker = await startWorker('own-saga');
    const started = await arcadia('own-saga', 'start', 'open_site', '--input', JSON.stringify({ name }), '--detach');
    const id = started.stdout.trim();
    await asked.promise;
    expect(await arcadia('own-saga', 'cancel', id)).toMatchObject({ code: 0 });
    const status = async () => z.object({ status: z.string() }).parse(JSON.parse((await arcadia('own-saga', 'saga', id, '--json')).stdout)).status;
    await waitFor(async () => landed && (await status()) === 'compensated', { what: 'the rollback', everyMs: 500 });
    await worker.kill();
    close();
    const left = await state();
    expect([left.names, left.pages, left.accounts.map((account) => account.name)].flat()).not.toContain(name);
  });

  test('the program of the page runs the app, and ends with 0 when it is stopped', async () => {
    const program = await programOfPage('startWorker(app');
    expect(program).toContain('postgres://…');
    await writeFile(join(folder, 'own-saga/program.js'), program.replace('postgres://…', database.directUrl));
    const port = String(await findPort({ host: '127.0.0.1', port: 0 }));
    const running = start('own-saga', ['program.js'], { PORT: port, SITES_URL: serviceUrl });
    await waitFor(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).ok, { what: 'the web of the program' });
    expect(await arcadia('own-saga', 'start', 'open_site', '--input', '{"name": "from-a-program"}')).toMatchObject({ code: 0 });
    const ended = await running.kill();
    expect(ended.output).not.toContain('Warning');
    expect(ended.code).toBe(0);
  });
});

/** A program of the page about own sagas: the first that contains the text. */
async function programOfPage(containing: string): Promise<string> {
  const blocks = [...(await readFile(ownSagas, 'utf8')).matchAll(/^```js\n([^]*?)^```$/gm)].map(([, text = '']) => text);
  return blocks.find((text) => text.includes(containing)) ?? '';
}

const onboard = async (name: string) => arcadia('deployment-onboarding', 'start', 'onboard_deployment', '--input', JSON.stringify({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' }));

describe('with droplets', () => {
  let sandbox: Sandbox;
  beforeAll(async () => {
    sandbox = await startSandbox({ activateAfterMs: 200 });
    return async () => sandbox.close();
  });
  const alive = () => sandbox.state({ alive: true }).map(({ name }) => name);

  test('deployment-onboarding enters a droplet into billing, and destroys it where billing refuses', async () => {
    const subscriptions: string[] = [];
    let refuses = false;
    const billing = createServer((request, response) => {
      if (refuses || request.method !== 'POST') {
        response.writeHead(request.method === 'POST' ? 503 : 404).end();
        return;
      }
      request.on('data', (chunk: Buffer) => subscriptions.push(z.object({ address: z.string() }).parse(JSON.parse(chunk.toString())).address));
      request.on('end', () => response.end(JSON.stringify({ id: `sub-${subscriptions.length}` })));
    }).listen(0, '127.0.0.1');
    await once(billing, 'listening');
    const address = billing.address();
    await prepare('deployment-onboarding', {
      ARCADIA_APP: './app.js', DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, WAIT_POLL_INTERVAL_MS: '200', STEP_BACKOFF_MS: '10',
      BILLING_URL: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    });
    const worker = await startWorker('deployment-onboarding');
    expect(await onboard('paid')).toMatchObject({ code: 0, stdout: expect.stringMatching(/subscribed as sub-1[\s\S]*the deployment runs on droplet \d+/i) });
    expect(subscriptions).toHaveLength(1);
    refuses = true;
    expect(await onboard('unpaid')).toMatchObject({ code: 1, stdout: expect.stringContaining('rolled back') });
    expect(alive()).toEqual(['paid']);
    await worker.kill();
    billing.close();
    await database.drop();
  });

  test('backend-in-a-transaction commits an order with its droplet, or neither', async () => {
    await prepare('backend-in-a-transaction', { DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, WAIT_POLL_INTERVAL_MS: '200' });
    const worker = await startWorker('backend-in-a-transaction');
    const shop = start('backend-in-a-transaction', ['server.js'], { PORT: '0' });
    const [, url] = await shop.says(/shop: (\S+)/);
    const order = async (customer: string) => fetch(`${url}/orders`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ customer }) });
    const { id } = z.object({ id: z.string() }).parse(await (await order('ada')).json());
    const read = async () => z.object({ status: z.string(), address: z.string().nullable() }).parse(await (await fetch(`${url}/orders/${id}`)).json());
    expect(await waitFor(async () => { const found = await read(); return found.status === 'completed' && found; }, { what: 'the order to be filled' })).toMatchObject({ address: expect.any(String) });
    expect((await order('nobody')).status).toBe(403);
    expect(alive()).toContain(`order-${id}`);
    const listed = await arcadia('backend-in-a-transaction', 'sagas', '--json');
    expect(JSON.parse(listed.stdout)).toHaveLength(1);
    await shop.kill();
    await worker.kill();
    await database.drop();
  });

  test('python-sql starts a saga from Python, in a transaction with the order', async () => {
    await prepare('python-sql', { DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, WAIT_POLL_INTERVAL_MS: '200' });
    const worker = await startWorker('python-sql');
    const { stdout } = await run(await pythonWithPsycopg(), ['order.py', 'ada'], { cwd: join(folder, 'python-sql'), env: environment });
    expect(stdout).toMatch(/^saga \S+: completed, \d+\.\d+\.\d+\.\d+\n$/);
    await worker.kill();
    await database.drop();
  });
});
