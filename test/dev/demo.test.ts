// The demo, as a visitor starts it on a machine that has nothing but what npm installed.

import { once } from 'node:events';
import { readFile, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { spawnBound } from '../support/child-process.ts';
import { waitFor } from '../support/wait-for.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

type Running = { readonly pid: number; readonly output: () => string; readonly exited: Promise<unknown[]> };

/** Starts the demo beside a configuration of the visitor's own, which it must leave alone. */
function startDemo(): Running {
  const { PATH, HOME, TMPDIR } = process.env;
  const child = spawnBound(process.execPath, [main, 'demo'], {
    env: { PATH, HOME, TMPDIR, DIGITALOCEAN_TOKEN: 'dop_v1_canary', DIGITALOCEAN_API_URL: 'http://127.0.0.1:9', DATABASE_URL: 'postgres://127.0.0.1:9/canary' },
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  if (child.pid === undefined) throw new Error('the demo did not start');
  return { pid: child.pid, output: () => output, exited: once(child, 'exit') };
}

type Process = { readonly pid: number; readonly parent: number; readonly startedAt: string };

/** All processes of this machine that still run. */
async function listProcesses(): Promise<Process[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid): Promise<Process | null> => {
      // The name, in parentheses, may hold anything; the fields after it are numbered from 3.
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const [state = 'X', parent = '0'] = fields;
      return 'ZX'.includes(state) ? null : { pid: Number(pid), parent: Number(parent), startedAt: fields[19] ?? '' };
    }),
  );
  return found.filter((process) => process !== null);
}

/** A process and all that it started, and they in turn. */
async function familyOf(pid: number): Promise<Process[]> {
  const all = await listProcesses();
  const family = all.filter((process) => process.pid === pid);
  for (const member of family) family.push(...all.filter((process) => process.parent === member.pid));
  return family;
}

async function stillRunning(processes: readonly Process[]): Promise<Process[]> {
  const now = await listProcesses();
  return processes.filter(({ pid, startedAt }) => now.some((process) => process.pid === pid && process.startedAt === startedAt));
}

test.skipIf(process.platform !== 'linux')('shows all that it promises, touches nothing of the visitor\'s own, and ends by itself with exit code 0', async () => {
  const demo = startDemo();
  await waitFor(() => demo.output().includes('saga started'), { what: 'the first saga', deadlineMs: 60_000 });
  const family = await familyOf(demo.pid);
  const exit = await demo.exited;
  const output = demo.output();
  // With the output, so that a failure tells what the demo said.
  expect({ exit, output }).toEqual({ exit: [0, null], output });
  for (const name of ['web-1', 'web-2', 'web-3', 'phoenix']) expect(output).toMatch(new RegExp(`^${name}: droplet \\d+ is ready at 198\\.18\\.`, 'm'));
  expect(output).toMatch(/^one-too-many: rolled back: .*exceed your droplet limit/m);
  expect(output).toMatch(/^killed worker \S+:\d+ with SIGKILL: droplet \d+ exists, and Postgres does not know it$/m);
  expect(output).toMatch(/^Worker \S+ adopted droplet \d+: one POST, one droplet\.$/m);
  expect(output).toMatch(/^\d+ +phoenix +fra1 +s-1vcpu-1gb +active +198\.18\.\S+ +saga:/m);
  expect(output).toContain('GET /v2/droplets → 0 droplets');
  expect(output).toMatch(/^All of it happened, in \d+ s\.$/m);
  expect(output).not.toContain('canary');
  await waitFor(async () => (await stillRunning(family)).length === 0, { what: 'all its processes to have ended', deadlineMs: 5_000 });
});

test.skipIf(process.platform !== 'linux')('killed with SIGKILL, it leaves no process behind: neither workers nor Postgres', async () => {
  const demo = startDemo();
  await waitFor(() => demo.output().includes('saga started'), { what: 'the first saga', deadlineMs: 60_000 });
  const family = await familyOf(demo.pid);
  // The demo, its two workers, and at least the guard of Postgres, Postgres, and what Postgres starts.
  expect(family.length).toBeGreaterThanOrEqual(6);
  process.kill(demo.pid, 'SIGKILL');
  await demo.exited;
  await waitFor(async () => (await stillRunning(family)).length === 0, { what: 'its processes to end', deadlineMs: 25_000 });
});
