// An app without droplet steps, in a folder outside the project: every process and command runs it without a token, and says
// nothing of droplets.

import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { defineApp, defineSaga, defineStep, done, startWorker } from '../../src/engine.ts';
import type { AppContext } from '../../src/engine.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { forkBound } from '../support/child-process.ts';
import { compileCache } from '../support/compile-cache.ts';
import { runCommand } from '../support/fleet.ts';
import { programFile } from '../support/programs.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const engine = JSON.stringify(join(root, 'src/engine.ts'));
const { PATH, HOME } = process.env;

/** Its step `announce` refuses the customer `refused`, and waits for the customer `slow`. */
const app = `
import { appendFileSync } from 'node:fs';
import { defineApp, defineSaga, defineStep, done, failed, waiting } from ${engine};
import { z } from ${JSON.stringify(join(root, 'node_modules/zod/index.js'))};
type Deps = { ledger: (line: string) => void };
const step = (name: string) => defineStep<Deps>({
  name,
  words: { doing: 'asking for ' + name, provider: 'the service' },
  async execute({ saga }, { ledger }) {
    if (name === 'announce' && saga.input.customer === 'slow') return waiting(200, 'not announced yet');
    if (name === 'announce' && saga.input.customer === 'refused') return failed('refused', 'the service refuses it', { retryable: false });
    ledger(name + ' ' + saga.input.customer);
    return done({ [name]: true }, 'did ' + name);
  },
  async compensate({ saga }, { ledger }) {
    ledger('undo ' + name + ' ' + saga.input.customer);
    return done();
  },
});
const onboard = defineSaga({
  name: 'onboard',
  input: z.strictObject({ customer: z.string() }),
  steps: [step('reserve'), step('announce')],
  subject: ({ input }) => ({ kind: 'customer', name: String(input.customer) }),
  words: { completed: ({ input }) => input.customer + ' is on board.' },
});
export default defineApp({
  sagas: [onboard],
  deps: (context) => {
    context.onClose(() => appendFileSync(process.env.LEDGER, 'closed\\n'));
    return { ledger: (line) => appendFileSync(process.env.LEDGER, line + '\\n') };
  },
});
`;

let folder = '';
let database: TestDatabase;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-app-'));
  await writeFile(join(folder, 'app.ts'), app);
  database = await createTestDatabase();
  environment = { PATH, HOME, ARCADIA_ENV: 'test', ARCADIA_APP: join(folder, 'app.ts'), DATABASE_URL: database.directUrl, LEDGER: join(folder, 'ledger'), RECONCILE_INTERVAL_MS: '1000', WORKER_LOCK_MS: '5000' };
  const migrated = await runCommand(['migrate'], environment);
  if (migrated.code !== 0) throw new Error(migrated.stderr);
  return async () => {
    await database.drop();
    await rm(folder, { recursive: true, force: true });
  };
});

const arcadia = (...args: string[]) => runCommand(args, environment);
const ledger = async () => (await readFile(join(folder, 'ledger'), 'utf8')).trim().split('\n');

/** A server of ours as a process; `ready`: what stands on the line by which it says so. */
async function startServer(args: readonly string[], changes: NodeJS.ProcessEnv, ready: RegExp) {
  const child = forkBound(programFile('main'), [...args], { env: { ...compileCache, ...environment, ...changes }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  let output = '';
  const read = (chunk: Buffer) => (output += chunk.toString());
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  let hasEnded = false;
  const ended = once(child, 'exit').then(() => (hasEnded = true));
  const found = await waitFor(() => hasEnded || ready.exec(output), { what: `${args.join(' ')} to be ready` });
  if (found === true) throw new Error(`it ended before it was ready:\n${output}`);
  return {
    found: found[1] ?? '',
    output: () => output,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
      return child.exitCode;
    },
  };
}

describe('an app without droplets, with nothing set but the database', () => {
  let worker: Awaited<ReturnType<typeof startServer>>;
  let web: Awaited<ReturnType<typeof startServer>>;
  beforeAll(async () => {
    [worker, web] = await Promise.all([
      startServer(['worker'], { WORKER_METRICS_PORT: '0' }, /"metrics":"([^"]+)"[^\n]*"msg":"worker ready"/),
      startServer(['web'], { PORT: '0' }, /"url":"([^"]+)"[^\n]*"msg":"web ready"/),
    ]);
    return async () => {
      await web.stop();
    };
  });
  const get = async (path: string) => {
    const response = await fetch(`${web.found}${path}`, { redirect: 'manual' });
    return { status: response.status, text: await response.text() };
  };

  test('its sagas run, are rolled back, cancelled, listed and shown', async () => {
    expect(await arcadia('start', 'onboard', '--input', '{"customer": "acme"}')).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('acme is on board') });
    expect(await arcadia('start', 'onboard', '--input', '{"customer": "refused"}')).toMatchObject({ code: 1, stdout: expect.stringContaining('rolled back: the service refuses it') });
    const slow = (await arcadia('start', 'onboard', '--input', '{"customer": "slow"}', '--detach')).stdout.trim();
    await waitFor(async () => (await ledger()).includes('reserve slow'), { what: 'the first step' });
    expect(await arcadia('cancel', slow)).toMatchObject({ code: 0, stdout: expect.stringContaining('is being rolled back') });
    await waitFor(async () => (await ledger()).includes('undo reserve slow'), { what: 'the rollback' });
    expect(await ledger()).toEqual(['reserve acme', 'announce acme', 'reserve refused', 'undo announce refused', 'undo reserve refused', 'reserve slow', 'undo announce slow', 'undo reserve slow']);
    expect((await arcadia('sagas')).stdout).toMatch(/onboard +rolled back +1\/2 +slow/);
    expect((await arcadia('saga', slow)).stdout).toContain('cancel');
    expect(await arcadia('retry', slow)).toMatchObject({ code: 1 });
    expect(await arcadia('status')).toMatchObject({ code: 0, stdout: 'No problems. 1 worker, 0 sagas unfinished\n' });
  });

  test('pages, status, readiness and metrics do not say droplet', async () => {
    const [sagaId] = z.object({ sagas: z.array(z.object({ id: z.string() })) }).parse(JSON.parse((await get('/v1/sagas')).text)).sagas.map(({ id }) => id);
    for (const path of ['/sagas', '/sagas?status=compensated', `/sagas/${sagaId}`, `/v1/sagas/${sagaId}`, '/statusz', '/readyz', '/metrics', '/queues/api/queues', '/docs', '/openapi.json', '/v1/nowhere']) {
      const { status, text } = await get(path);
      expect([path, status, text]).toEqual([path, path === '/v1/nowhere' ? 404 : 200, expect.not.stringMatching(/droplet|digitalocean|inventory|orphan/i)]);
    }
    for (const path of ['/v1/drift', '/v1/orphans', '/v1/resources', '/start', '/droplets', '/leases', '/droplets/4711', '/droplets/orphans']) expect((await get(path)).status).toBe(404);
    for (const path of ['/v1/plans', '/start']) expect((await fetch(`${web.found}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })).status).toBe(404);
    const metrics = await (await fetch(worker.found)).text();
    expect(metrics).toContain('arcadia_step_run_duration_seconds_count{saga="onboard",step="reserve",direction="forward",result="completed"}');
    expect(metrics).not.toMatch(/droplet|digitalocean|inventory|orphan/i);
  });

  test('commands for droplets say that it has none', async () => {
    const [sync, drift, accept, orphans, provision, destroy] = await Promise.all([
      arcadia('sync'), arcadia('drift'), arcadia('drift', 'accept', '1'), arcadia('orphans'),
      arcadia('provision', '--name', 'web-1', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64'), arcadia('destroy', '7'),
    ]);
    for (const refused of [sync, drift, accept, orphans]) expect(refused).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('needs an app with droplet steps; this app has none') });
    expect(provision).toMatchObject({ code: 2, stderr: expect.stringContaining('no saga is called "provision_droplet"; expected one of onboard') });
    expect(destroy).toMatchObject({ code: 2, stderr: expect.stringContaining('no saga is called "destroy_droplet"') });
  });

  test('the help of sagas tells what --text searches, in words for any saga', async () => {
    const { stdout } = await arcadia('sagas', '--help');
    expect(stdout.replaceAll(/\s+/g, ' ')).toContain("--text <text> only sagas whose subject's name contains this text --since");
  });

  test('the worker ends in order, and closes what deps opened', async () => {
    expect(await worker.stop()).toBe(0);
    expect((await ledger()).at(-1)).toBe('closed');
    expect(worker.output()).not.toMatch(/droplet|digitalocean/i);
  });
});

test('dev runs it in one process, without a token and without the sandbox', async () => {
  const dev = await startServer(['dev'], { PORT: '0' }, /(The web: http\S+)/);
  expect(dev.output()).toContain('arcadia-cloud runs your app.');
  expect(await arcadia('start', 'onboard', '--input', '{"customer": "dev"}')).toMatchObject({ code: 0, stdout: expect.stringContaining('dev is on board') });
  expect(await dev.stop()).toBe(0);
  expect(dev.output()).not.toMatch(/droplet|sandbox|digitalocean/i);
});

/** Runs a worker whose app's `deps` does this first. */
const failWorker = async (deps: string) => {
  const file = join(folder, 'failing.ts');
  await writeFile(file, app.replace('return { ledger:', `${deps}\n    return { ledger:`));
  await rm(join(folder, 'ledger'), { force: true });
  return { file, ended: await runCommand(['worker', '--app', relative(process.cwd(), file)], environment) };
};

test('an app that cannot be loaded is reported by the setting that names it', async () => {
  const byOption = await arcadia('sagas', '--app', './nosuch.js');
  expect(byOption).toMatchObject({ code: 78, stderr: expect.stringMatching(/--app: \.\/nosuch\.js cannot be loaded/) });
  expect(byOption.stderr).not.toContain('ARCADIA_APP');
  expect(await runCommand(['sagas'], { ...environment, ARCADIA_APP: './nosuch.js' })).toMatchObject({ code: 78, stderr: expect.stringMatching(/ARCADIA_APP: \.\/nosuch\.js cannot be loaded/) });
});

describe('deps that fail', () => {
  test('end the worker with the file of the app, and close what was opened', async () => {
    const { ended } = await failWorker("throw new Error('billing does not answer');");
    expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^arcadia: \S*failing\.ts: deps of the app failed: billing does not answer\n$/) });
    expect(await ledger()).toEqual(['closed']);
  });

  test('end it as wrong configuration where they say so, or return nothing to work with', async () => {
    const { ended } = await failWorker("throw Object.assign(new Error('BILLING_URL: not set'), { name: 'ConfigError' });");
    expect(ended).toMatchObject({ code: 78, stderr: expect.stringMatching(/failing\.ts: deps of the app failed: BILLING_URL: not set/) });
    expect((await failWorker('return;')).ended).toMatchObject({ code: 1, stderr: expect.stringContaining('expected it to return an object, found undefined') });
  });
});

describe('an app with droplet sagas beside its own', () => {
  let file = '';
  beforeAll(async () => {
    file = join(folder, 'droplets.ts');
    const source = app
      .replace('sagas: [onboard]', 'sagas: [provisionDroplet, destroyDroplet, onboard]')
      .replace('import { z }', `import { destroyDroplet, dropletDeps, provisionDroplet } from ${JSON.stringify(join(root, 'src/droplets.ts'))};\nimport { z }`)
      .replace('deps: (context) => {', 'deps: async (context) => {')
      .replace('return { ledger:', 'return { ...(await dropletDeps(context)), ledger:');
    await writeFile(file, source);
  });

  test('needs the token as ever', async () => {
    const ended = await runCommand(['worker', '--app', file], { ...environment, DATABASE_URL: undefined, WORKER_LOCK_MS: undefined });
    expect(ended).toMatchObject({ code: 78, stderr: expect.stringMatching(/\n {2}DATABASE_URL: not set, but required\n {2}DIGITALOCEAN_TOKEN: not set, but required\n$/) });
  });

  test('runs both, and syncs the inventory', async () => {
    const sandbox = await startSandbox({ activateAfterMs: 0 });
    const own = { ...environment, ARCADIA_APP: file, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_TIMEOUT_MS: '2500', WAIT_POLL_INTERVAL_MS: '200', WORKER_METRICS_PORT: '0' };
    const worker = await startServer(['worker'], own, /"metrics":"([^"]+)"[^\n]*"msg":"worker ready"/);
    const provision = runCommand(['provision', '--name', 'web-1', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64'], own);
    expect(await runCommand(['start', 'onboard', '--input', '{"customer": "both"}'], own)).toMatchObject({ code: 0, stdout: expect.stringContaining('both is on board') });
    expect(await provision).toMatchObject({ code: 0, stdout: expect.stringMatching(/droplet \d+ is ready/) });
    expect(await runCommand(['sync'], own)).toMatchObject({ code: 0, stderr: '' });
    expect(await (await fetch(worker.found)).text()).toMatch(/arcadia_digitalocean_requests_total\{outcome="done"\} [1-9]/);
    expect(await worker.stop()).toBe(0);
    await sandbox.close();
  });
});

/** What a program prints as JSON that starts processes itself; `loaded`: the files of ours that it loaded. */
const runProgram = async (body: string) => {
  const file = join(folder, 'program.ts');
  await writeFile(
    file,
    `import { registerHooks } from 'node:module';
     const loaded = [];
     registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
     const { migrate, startWeb, startWorker } = await import(${engine});
     const { default: app } = await import(process.env.ARCADIA_APP);
     const given = { databaseUrl: process.env.URL_OF_DATABASE, redisUrl: null, environment: { ARCADIA_ENV: 'test', PORT: '0', LOG_LEVEL: 'silent' } };
     const tell = (said) => console.log(JSON.stringify({ ...said, loaded: loaded.filter((url) => url.includes('/src/')).map((url) => url.slice(url.indexOf('/src/') + 5)) }));
     ${body}`,
  );
  const child = forkBound(file, [], { env: { ...compileCache, ...environment, DATABASE_URL: '', URL_OF_DATABASE: database.directUrl }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await once(child, 'exit');
  return z.looseObject({ loaded: z.array(z.string()) }).parse(JSON.parse(output));
};

describe('arcadia-cloud/engine', () => {
  test('starts a worker and the web, migrates, and loads nothing of droplets for it', async () => {
    const said = await runProgram(`
      const applied = await migrate(app, given);
      const worker = await startWorker(app, given);
      const web = await startWeb(app, given);
      const started = await fetch(web.url + '/v1/sagas/onboard', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"customer": "embedded"}' });
      const { sagaId } = await started.json();
      let saga;
      for (let looks = 0; looks < 600 && saga?.status !== 'completed'; looks++) {
        saga = await (await fetch(web.url + '/v1/sagas/' + sagaId)).json();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await web.close();
      await worker.close();
      tell({ applied, started: started.status, status: saga.status });`);
    expect(said).toMatchObject({ applied: [], started: 202, status: 'completed' });
    expect(said.loaded).toContain('processes/worker.ts');
    expect(said.loaded.filter((path) => /^(steps|droplets|inventory|do|sandbox)\//.test(path))).toEqual([]);
  });

  test('tells what is missing, and leaves no connection open where a start fails', async () => {
    const own = defineApp({ sagas: [defineSaga({ name: 'empty', input: z.strictObject({}), steps: [defineStep({ name: 'nothing', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) })] })], deps: () => ({}) });
    const given = { databaseUrl: database.directUrl, redisUrl: null, environment: { ARCADIA_ENV: 'test', LOG_LEVEL: 'silent' } };
    await expect(startWorker(own, { environment: {} })).rejects.toThrow('Invalid configuration:\n  DATABASE_URL: not set, but required');
    const closed: string[] = [];
    const failing = {
      ...own,
      openDeps: ({ onClose }: Pick<AppContext, 'onClose'>) => {
        onClose(() => closed.push('first'));
        onClose(() => Promise.reject(new Error('will not close')));
        onClose(() => closed.push('last'));
        return Promise.reject(new Error('no billing'));
      },
    };
    await expect(startWorker(failing, given)).rejects.toThrow('no billing');
    expect(closed).toEqual(['last', 'first']);
    await expect(startWorker({ ...own, openDeps: () => new Promise<never>(() => undefined) }, { ...given, signal: AbortSignal.timeout(500) })).rejects.toThrow('timeout');
    const db = openDatabase(database.directUrl, { max: 1, applicationName: 'looks' });
    const left = async () => db.sql<{ count: number }[]>`select count(*)::int from pg_stat_activity where datname = current_database() and application_name like 'arcadia%'`;
    await waitFor(async () => (await left())[0]?.count === 0, { what: 'the connections to be closed', deadlineMs: 5_000 });
    await db.close();
  });
});
