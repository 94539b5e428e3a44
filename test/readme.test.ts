// The code that readers meet first, taken out of the README and the tutorial and run as they would run it: from the packed
// package, in a folder outside the project, against real processes.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { startSandbox } from '../src/sandbox/server.ts';
import type { Sandbox } from '../src/sandbox/server.ts';
import { endOf, spawnBound } from './support/child-process.ts';
import { compileCache } from './support/compile-cache.ts';
import { installPackage, packPackage } from './support/packed.ts';
import { createTestDatabase } from './support/services-postgres.ts';
import type { TestDatabase } from './support/services-postgres.ts';
import { waitFor } from './support/wait-for.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../', import.meta.url));

/** The blocks of a page that name a file in their first line, by that name. */
function filesIn(page: string): Map<string, string> {
  const blocks = readFileSync(join(root, page), 'utf8').matchAll(/^```[jt]s\n\/\/ ([\w.-]+)[^\n]*\n([\s\S]*?)^```$/gm);
  return new Map([...blocks].map(([, name = '', code = '']) => [name, code]));
}

const readme = filesIn('README.md');
let folder = '';
let main = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-readme-'));
  const { tarball } = await packPackage();
  await installPackage(tarball, folder, ({ dependencies, peerDependencies }) => Object.keys({ ...dependencies, ...peerDependencies }));
  main = join(folder, 'node_modules/arcadia-cloud/dist/main.js');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A folder with these files, a database with the sagas of its `app.js`, and a worker for them. */
async function setUp(name: string, files: ReadonlyMap<string, string>, more: NodeJS.ProcessEnv = {}) {
  const cwd = join(folder, name);
  await mkdir(cwd);
  await writeFile(join(cwd, 'package.json'), '{ "type": "module" }');
  for (const [file, code] of files) await writeFile(join(cwd, file), code);
  const database: TestDatabase = await createTestDatabase();
  const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: process.env['HOME'], ...compileCache, ARCADIA_ENV: 'test', ARCADIA_APP: './app.js', DATABASE_URL: database.directUrl, ...more };
  const node = async (...args: string[]) =>
    run(process.execPath, args, { cwd, env }).then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error: unknown) => z.object({ code: z.number(), stdout: z.string(), stderr: z.string() }).parse(error),
    );
  expect(await node(main, 'migrate')).toMatchObject({ code: 0 });
  const worker = spawnBound(process.execPath, [main, 'worker'], { cwd, env });
  let output = '';
  for (const stream of [worker.stdout, worker.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await waitFor(() => output.includes('worker ready'), { what: 'the worker to be ready' });
  const close = async () => {
    worker.kill('SIGTERM');
    await endOf(worker);
    await database.drop();
  };
  return { cwd, node, close };
}

test('the README has some 20 lines of a client, and as many of a saga', () => {
  expect([...readme.keys()]).toEqual(['client.ts', 'app.js']);
  for (const code of readme.values()) expect(code.trimEnd().split('\n').length).toBeLessThanOrEqual(22);
});

test("the README's client type-checks in a strict program", async () => {
  const cwd = join(folder, 'typed');
  await mkdir(cwd);
  await writeFile(join(cwd, 'package.json'), '{ "type": "module" }');
  await writeFile(join(cwd, 'client.ts'), readme.get('client.ts') ?? '');
  const options = { target: 'es2024', lib: ['es2024'], module: 'nodenext', types: ['node'], strict: true, noEmit: true, skipLibCheck: true };
  await writeFile(join(cwd, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['client.ts'] }));
  const { stdout } = await run(join(root, 'node_modules/.bin/tsc'), ['--project', cwd]).catch((error: unknown) => z.object({ stdout: z.string() }).parse(error));
  expect(stdout).toBe('');
});

describe('the README', () => {
  let sandbox: Sandbox;
  let reader: Awaited<ReturnType<typeof setUp>>;
  // Refuses every customer after the first.
  const billing = `import { StepFailure } from 'arcadia-cloud/engine';
    const subscriptions = [];
    export const billing = {
      subscribe: async ({ droplet, reference }) => {
        if (subscriptions.length > 0) throw new StepFailure({ code: 'refused', message: 'no credit', retryable: false, sent: false });
        return subscriptions.push({ droplet, reference });
      },
      findByReference: async () => null,
      cancel: async () => undefined,
    };`;

  beforeAll(async () => {
    sandbox = await startSandbox({ activateAfterMs: 100 });
    const settings = { DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, WAIT_POLL_INTERVAL_MS: '100', STEP_BACKOFF_MS: '10' };
    reader = await setUp('readme', new Map([...readme, ['billing.js', billing]]), settings);
    return async () => {
      await reader.close();
      await sandbox.close();
    };
  });
  const start = async (name: string) => reader.node(main, 'start', 'onboard_customer', '--input', JSON.stringify({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' }));
  const alive = () => sandbox.state({ alive: true }).map(({ name }) => name);

  test('provisions a droplet with its client', async () => {
    const { code, stdout } = await reader.node('client.ts');
    expect(stdout).toMatch(/step_completed create_droplet[\s\S]*step_completed register_droplet[\s\S]*droplet \d+ is ready at [\d.]+\n$/);
    expect(code).toBe(0);
    expect(alive()).toEqual(['web-1']);
  });

  test('runs the droplet steps with a step of its own, and destroys the droplet if billing refuses', async () => {
    expect(await start('paid')).toMatchObject({ code: 0, stdout: expect.stringContaining('subscribe completed') });
    expect(await start('unpaid')).toMatchObject({ code: 1, stdout: expect.stringMatching(/create_droplet undone[\s\S]*no credit/) });
    expect(alive()).toEqual(['web-1', 'paid']);
  });
});

describe('the tutorial', () => {
  test('signs one customer up, and closes the account of the other', async () => {
    const files = filesIn('docs/tutorial/first-saga.md');
    expect([...files.keys()]).toEqual(['services.js', 'app.js']);
    const reader = await setUp('tutorial', files);
    const start = async (email: string) => reader.node(main, 'start', 'sign_up', '--input', JSON.stringify({ email }));
    expect(await start('ada@example.com')).toMatchObject({ code: 0, stdout: expect.stringContaining('opened account-1') });
    expect(await start('bob@example.org')).toMatchObject({ code: 1, stdout: expect.stringMatching(/send_invitation undone[\s\S]*open_account undone[\s\S]*bob@example.org does not exist/) });
    expect(JSON.parse(await readFile(join(reader.cwd, 'accounts.json'), 'utf8'))).toEqual([expect.objectContaining({ email: 'ada@example.com' })]);
    await reader.close();
  });
});
