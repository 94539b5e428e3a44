// The OpenAPI document, as programs of others read it: a linter, and two generators whose clients then start and read a saga
// of a running web.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'rolldown';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { defineApp, defineSaga, defineStep, done } from '../../src/engine.ts';
import type { Web } from './stage.ts';
import { credentials, droplet, openWebStage, secrets } from './stage.ts';

const run = promisify(execFile);
const tools = fileURLToPath(new URL('../third-party/node_modules/', import.meta.url));
const documentSchema = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.looseObject({ operationId: z.string(), summary: z.string(), tags: z.array(z.string()).min(1), responses: z.record(z.string(), z.looseObject({})) }))),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()) }),
});

let web: Web;
let folder = '';
let file = '';
let document: z.infer<typeof documentSchema>;

beforeAll(async () => {
  web = await openWebStage(credentials);
  folder = await mkdtemp(join(tmpdir(), 'arcadia-openapi-'));
  await symlink(tools, join(folder, 'node_modules'));
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  file = join(folder, 'openapi.json');
  document = await readDocument(web.url, file);
});
afterAll(async () => {
  await web[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function readDocument(url: string, path: string): Promise<z.infer<typeof documentSchema>> {
  const text = await (await fetch(`${url}/openapi.json`, { headers: { authorization: `Bearer ${secrets.all}` } })).text();
  await writeFile(path, text);
  return documentSchema.parse(JSON.parse(text));
}

/** Runs a tool of test/third-party; it reaches no network. Returns what it prints; throws where it fails. */
async function runTool(name: string, ...args: string[]): Promise<string> {
  const env = { ...process.env, NODE_ENV: 'production', REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', https_proxy: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1' };
  const { stdout, stderr } = await run(join(tools, '.bin', name), args, { cwd: folder, env }).catch((error: unknown) => {
    const { stdout, stderr } = z.object({ stdout: z.string(), stderr: z.string() }).parse(error);
    throw new Error(`${name} failed:\n${stdout}\n${stderr}`);
  });
  return `${stdout}${stderr}`;
}

/** References of a document that lead nowhere. */
function danglingIn(whole: unknown): string[] {
  const dangling: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, one] of Object.entries(value)) {
      if (key === '$ref' && typeof one === 'string') {
        const found = one.split('/').slice(1).reduce<unknown>((inner, part) => (typeof inner === 'object' && inner !== null ? Object.entries(inner).find(([name]) => name === part)?.[1] : undefined), whole);
        if (!one.startsWith('#/') || found === undefined) dangling.push(one);
      } else visit(one);
    }
  };
  visit(whole);
  return dangling;
}

test('passes redocly lint, with neither errors nor warnings', async () => {
  const printed = await runTool('redocly', 'lint', file, '--extends', 'recommended', '--format', 'json');
  const { totals, problems } = z.object({ totals: z.object({ errors: z.int(), warnings: z.int() }), problems: z.array(z.unknown()) }).parse(JSON.parse(printed.slice(printed.indexOf('{'), printed.lastIndexOf('}') + 1)));
  expect({ totals, problems }).toMatchObject({ totals: { errors: 0, warnings: 0 }, problems: [] });
});

test('gives every operation an id of its own, a tag, and answers with schemas, errors too', () => {
  const operations = Object.values(document.paths).flatMap((item) => Object.values(item));
  const ids = operations.map(({ operationId }) => operationId);
  expect(ids.toSorted()).toEqual([
    'acceptDrift', 'acknowledgeOrphans', 'approveLeases', 'bulkCancel', 'bulkRerun', 'bulkRetry', 'cancelSaga', 'followSaga', 'getSaga', 'listAudit', 'listDrift', 'listLeases', 'listOrphans', 'listOutcomeSubscriptions', 'listResources', 'listSagas', 'planProvision', 'renewLease', 'reportReady', 'rerunSaga', 'resumeOutcomes', 'retrySaga', 'setProtection', 'start_adopt_droplet', 'start_destroy_droplet', 'start_provision_droplet', 'unacknowledgeOrphans',
  ]);
  for (const { operationId, responses } of operations) {
    expect([operationId, Object.keys(responses).some((status) => status.startsWith('2'))]).toEqual([operationId, true]);
    for (const status of ['4XX', '5XX']) expect(responses[status]).toMatchObject({ content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } });
  }
  expect(danglingIn(document)).toEqual([]);
  expect(Object.keys(document.components.schemas)).toEqual(['Drift', 'Event', 'Orphan', 'Problem', 'Resource', 'Saga']);
});

const ran = z.object({ sagaId: z.uuid(), name: z.string(), status: z.string(), refused: z.string() });

/** Type-checks the program with what was generated, runs it, and gives what it prints. */
async function useClient(program: string, name: string): Promise<z.infer<typeof ran>> {
  await writeFile(join(folder, name), program);
  const options = { target: 'es2023', lib: ['es2024', 'dom', 'dom.iterable'], module: 'preserve', moduleResolution: 'bundler', strict: true, noEmit: true, types: [], skipLibCheck: false, allowImportingTsExtensions: true };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: [name] }));
  await runTool('tsc', '--project', folder);
  // What is generated leaves the endings of its imports to a bundler.
  const bundled = join(folder, `${name}.mjs`);
  await build({ input: join(folder, name), output: { file: bundled, format: 'esm' }, platform: 'node', logLevel: 'silent' });
  const { stdout } = await run(process.execPath, [bundled], { cwd: folder, env: { WEB_URL: web.url, TOKEN: secrets.all } });
  return ran.parse(JSON.parse(stdout));
}

test('makes a client by openapi-typescript, which starts a saga and reads it', async () => {
  await runTool('openapi-typescript', file, '--output', join(folder, 'typed.ts'));
  const program = `
    import createClient from 'openapi-fetch';
    import type { components, paths } from './typed.ts';
    declare const process: { env: Record<string, string> };
    declare const console: { log(text: string): void };
    const client = createClient<paths>({ baseUrl: process.env['WEB_URL']!, headers: { authorization: 'Bearer ' + process.env['TOKEN'] } });
    const started = await client.POST('/v1/sagas/provision_droplet', { body: ${JSON.stringify(droplet)}, params: { header: { 'idempotency-key': 'typed' } } });
    const sagaId: string = started.data!.sagaId;
    const saga: components['schemas']['Saga'] = (await client.GET('/v1/sagas/{id}', { params: { path: { id: sagaId } } })).data!;
    await client.POST('/v1/sagas/{id}/cancel', { params: { path: { id: sagaId } } });
    // @ts-expect-error -- a field is missing
    const refused = await client.POST('/v1/sagas/provision_droplet', { body: { name: 'x' } });
    console.log(JSON.stringify({ sagaId, name: saga.name, status: saga.status, refused: refused.error!.code }));`;
  expect(await useClient(program, 'use-typed.ts')).toMatchObject({ name: 'provision_droplet', status: 'pending', refused: 'invalid_input' });
});

test('makes a client by @hey-api/openapi-ts, which starts a saga and reads it', async () => {
  await runTool('openapi-ts', '--input', file, '--output', join(folder, 'hey'), '--client', '@hey-api/client-fetch', '--silent');
  const program = `
    import { client } from './hey/client.gen';
    import { cancelSaga, getSaga, startProvisionDroplet } from './hey';
    declare const process: { env: Record<string, string> };
    declare const console: { log(text: string): void };
    client.setConfig({ baseUrl: process.env['WEB_URL']!, auth: (scheme) => (scheme.scheme === 'bearer' ? process.env['TOKEN'] : undefined) });
    const started = await startProvisionDroplet({ body: ${JSON.stringify(droplet)} });
    const sagaId = started.data!.sagaId;
    const saga = (await getSaga({ path: { id: sagaId } })).data!;
    await cancelSaga({ path: { id: sagaId } });
    // @ts-expect-error -- a field is missing
    const refused = await startProvisionDroplet({ body: { name: 'x' } });
    console.log(JSON.stringify({ sagaId, name: saga.name, status: saga.status, refused: refused.error!.code }));`;
  expect(await useClient(program, 'use-hey.ts')).toMatchObject({ name: 'provision_droplet', status: 'pending', refused: 'invalid_input' });
});

test('describes the input of an app whose schema refers to itself', async () => {
  const tree = z.strictObject({
    label: z.string(),
    get children() {
      return z.array(tree).optional();
    },
  });
  const shared = z.strictObject({ city: z.string() }).meta({ id: 'Address' });
  const step = defineStep({ name: 'plant', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) });
  const sagas = [
    defineSaga({ name: 'grow', input: z.strictObject({ root: tree, anything: z.json(), from: shared, to: shared }), steps: [step] }),
    defineSaga({ name: 'grow_tree', input: tree, steps: [step] }),
  ];
  const own = await startWeb(loadConfig({ ...credentials, ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', PORT: '0' }), silentLog, { app: defineApp({ sagas, deps: () => ({}) }) });
  const described = await readDocument(own.url, join(folder, 'own.json'));
  await own.close();
  expect(danglingIn(described)).toEqual([]);
  await expect(runTool('redocly', 'lint', join(folder, 'own.json'), '--extends', 'recommended')).resolves.toContain('valid');
  expect(JSON.stringify(described.paths['/v1/sagas/grow_tree'])).toContain('#/components/schemas/start_grow_tree_body');
  await runTool('openapi-typescript', join(folder, 'own.json'), '--output', join(folder, 'own.ts'));
});
