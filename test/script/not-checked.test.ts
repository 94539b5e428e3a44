// The scripts that run all checks say what they left out. They run here with stand-ins for the programs that they call.

import { execFile } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findProgram, programFolders } from '../support/services-guarded.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-script-'));
  await mkdir(join(folder, 'bin'));
  for (const name of ['bash', 'cat', 'dirname', 'env', 'grep', 'head', 'mktemp', 'rm', 'sed', 'sh', 'tail']) {
    await symlink(findProgram([name], programFolders) ?? name, join(folder, 'bin', name));
  }
});
afterEach(async () => rm(folder, { recursive: true, force: true }));

async function addProgram(path: string, body: string): Promise<void> {
  const file = join(folder, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `#!/bin/sh\n${body}\n`);
  await chmod(file, 0o755);
}

async function linesOf(script: string, args: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<string[]> {
  await mkdir(join(folder, 'script'), { recursive: true });
  await copyFile(`${root}script/${script}`, join(folder, 'script', script));
  const { stdout } = await run('bash', [join(folder, 'script', script), ...args], { env: { PATH: join(folder, 'bin'), ...environment } });
  return stdout.trim().split('\n');
}

async function addCheckers(): Promise<void> {
  await addProgram('script/setup', 'exit 0');
  for (const name of ['tsc', 'oxlint']) await addProgram(`node_modules/.bin/${name}`, 'exit 0');
  await symlink(process.execPath, join(folder, 'node_modules/.bin/node'));
  const report = JSON.stringify({ testResults: [], numPassedTests: 3, numFailedTests: 0 });
  await addProgram('node_modules/.bin/vitest', `for argument in "$@"; do case $argument in --outputFile.json=*) echo '${report}' >"\${argument#*=}" ;; esac; done`);
}

test('script/test names the checks that this machine cannot make, near its end', async () => {
  await addCheckers();
  const lines = await linesOf('test', [], { DIGITALOCEAN_OPENAPI: '/nowhere.json' });
  expect(lines.filter((line) => line.startsWith('NOT CHECKED'))).toEqual([
    "NOT CHECKED: the sandbox against DigitalOcean's API description, as /nowhere.json does not exist (DIGITALOCEAN_OPENAPI names another file)",
    'NOT CHECKED: the systemd units, as systemd-analyze is not installed',
  ]);
  expect(lines.indexOf('== tests')).toBeLessThan(lines.findIndex((line) => line.startsWith('NOT CHECKED')));
  expect(lines.at(-1)).toBe('3 passed, 0 failed');
});

test('script/test leaves nothing out where everything is there', async () => {
  await addCheckers();
  await addProgram('bin/systemd-analyze', 'exit 0');
  await writeFile(join(folder, 'script/check-sandbox-against-openapi.ts'), '');
  await writeFile(join(folder, 'description.json'), '{}');
  const lines = await linesOf('test', [], { DIGITALOCEAN_OPENAPI: join(folder, 'description.json') });
  expect(lines).toContain('== sandbox against the API description');
  expect(lines).toContain('== systemd units');
  expect(lines.join('\n')).not.toContain('NOT CHECKED');
});

test('script/test-containers does not count as held what it left out', async () => {
  await addProgram('bin/docker', '[ "$1" = --version ] && echo "Docker version 1"\nexit 0');
  const without = await linesOf('test-containers', ['kubernetes'], { CONTAINER_ENGINE: 'docker' });
  expect(without.at(-1)).toBe("0 held, 0 failed; NOT CHECKED: kustomize's own build, as kubectl is not installed; NOT CHECKED: running the manifests, as the engine is not podman");
  await addProgram('bin/kubectl', 'exit 0');
  const half = await linesOf('test-containers', ['kubernetes'], { CONTAINER_ENGINE: 'docker' });
  expect(half.at(-1)).toBe('2 held, 0 failed; NOT CHECKED: running the manifests, as the engine is not podman');
});
