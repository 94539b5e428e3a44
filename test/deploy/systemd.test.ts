// The shell lines of the page about systemd, as an administrator types them: on the packed package, in a folder that stands
// for the root of a machine. systemd itself is not there.

import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { installPackage, packPackage } from '../support/packed.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

const [, section = ''] = /\n## systemd\n([^]+?)\n## /.exec(readFileSync(`${root}docs/how-to/deploy.md`, 'utf8')) ?? [];
const [, commands = ''] = /```sh\n([^]+?)```/.exec(section) ?? [];
const lines = commands.trim().split('\n');

let machine = '';
/** The start command of a unit, for an instance of it, without the arguments of the program. */
const startOf = (unit: string, instance: string): string[] => {
  const [, line = ''] = /^ExecStart=(.+)$/m.exec(readFileSync(join(machine, 'etc/systemd/system', unit), 'utf8')) ?? [];
  return line.replaceAll('%i', instance).replaceAll('/opt/', `${machine}/opt/`).split(' ').slice(0, -1);
};

beforeAll(async () => {
  machine = await mkdtemp(join(tmpdir(), 'arcadia-systemd-'));
  await Promise.all(['etc/systemd/system', 'bin'].map((folder) => mkdir(join(machine, folder), { recursive: true })));
  await writeFile(join(machine, 'bin/systemctl'), `#!/bin/sh\necho "$*" >>${machine}/systemctl.log\n`);
  await chmod(join(machine, 'bin/systemctl'), 0o755);
  const { tarball } = await packPackage();
  const isInstalledAfter = lines.findIndex((line) => line.includes('then install the package'));
  if (isInstalledAfter < 0) throw new Error('the page does not say when to install the package');
  const script = (part: readonly string[]) => ['set -eu', ...part].join('\n').replaceAll(/(?<![\w/])\/(opt|etc)\//g, `${machine}/$1/`);
  const shell = { env: { ...process.env, PATH: `${machine}/bin:${process.env['PATH'] ?? ''}` } };
  await run('sh', ['-c', script(lines.slice(0, isInstalledAfter + 1))], shell);
  const app = join(machine, 'opt/arcadia');
  await installPackage(tarball, app, ({ dependencies, peerDependencies }) => Object.keys({ ...dependencies, ...peerDependencies }));
  await run('sh', ['-c', script(lines.slice(isInstalledAfter + 1))], { ...shell, cwd: app });
}, 180_000);
afterAll(async () => rm(machine, { recursive: true, force: true }));

test('the commands put settings and units where systemd and the units look for them', () => {
  const units = readdirSync(join(machine, 'etc/systemd/system'));
  expect(units.toSorted()).toEqual(readdirSync(`${root}deploy/systemd`).toSorted());
  const settings = join(machine, 'etc/arcadia/arcadia.env');
  expect(statSync(settings).mode & 0o777).toBe(0o600);
  expect(readFileSync(settings, 'utf8')).toBe(readFileSync(`${root}.env.example`, 'utf8'));
  const [, enabled = ''] = readFileSync(join(machine, 'systemctl.log'), 'utf8').trim().split('\n');
  const named = enabled.split(' ').filter((word) => word.startsWith('arcadia-')).map((name) => `${name.replace(/@.*/, '@')}.service`);
  expect(new Set(named)).toEqual(new Set(units));
});

test('every unit starts a program that is installed', async () => {
  for (const unit of readdirSync(join(machine, 'etc/systemd/system'))) {
    const [file = '', ...args] = startOf(unit, '1');
    expect(existsSync(args.at(-1) ?? '')).toBe(true);
    expect((await run(file, [...args, '--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  }
});

test('workers that read the same settings have different ports', () => {
  const [one, other] = ['1', '2'].map((instance) => startOf('arcadia-worker@.service', instance).find((word) => word.startsWith('WORKER_METRICS_PORT=')));
  expect(one).toMatch(/^WORKER_METRICS_PORT=\d{4}$/);
  expect(other).toMatch(/^WORKER_METRICS_PORT=\d{4}$/);
  expect(other).not.toBe(one);
});
