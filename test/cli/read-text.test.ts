// Files that options name: read up to a limit, and never waited for without an end.
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { readText } from '../../src/cli/read-text.ts';
import { endOf, forkBound } from '../support/child-process.ts';
import { compileCache } from '../support/compile-cache.ts';
import { programFile } from '../support/programs.ts';
import { waitFor } from '../support/wait-for.ts';

const run = promisify(execFile);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-read-'));
  await run('mkfifo', [join(folder, 'pipe'), join(folder, 'written')]);
});
afterAll(async () => rm(folder, { recursive: true, force: true }));

describe('a file', () => {
  test('is read, and a pipe while somebody writes into it', async () => {
    await writeFile(join(folder, 'init.sh'), '#!/bin/sh\necho ü\n');
    expect(await readText(join(folder, 'init.sh'))).toBe('#!/bin/sh\necho ü\n');
    const reading = readText(join(folder, 'written'));
    await writeFile(join(folder, 'written'), 'from a pipe');
    expect(await reading).toBe('from a pipe');
  });

  test.each([
    ['a directory', '.', 'it is a directory'],
    ['an endless device', '/dev/zero', 'it is neither a file nor a pipe'],
    ['one of more than a mebibyte', 'large', 'it is larger than 1048576 bytes'],
    ['none', 'none', 'ENOENT'],
  ])('that is %s is refused', async (_what, name, why) => {
    await writeFile(join(folder, 'large'), Buffer.alloc(1_048_577));
    await expect(readText(name.startsWith('/') ? name : join(folder, name))).rejects.toThrow(why);
  });
});

test('a command that waits for a pipe ends with a signal', async () => {
  const pipe = join(folder, 'pipe');
  const command = forkBound(programFile('main'), ['start', 'provision_droplet', '--input', `@${pipe}`], { env: { ...compileCache, PATH: process.env['PATH'], DATABASE_URL: 'postgres://u:p@127.0.0.1:9/db', DIGITALOCEAN_TOKEN: 'sandbox' }, stdio: 'ignore', execArgv: [] });
  onTestFinished(() => void command.kill('SIGKILL'));
  // A writer can open the pipe without waiting once somebody reads it.
  const writer = await waitFor(async () => open(pipe, constants.O_WRONLY | constants.O_NONBLOCK).catch(() => false as const), { what: 'the command to open the pipe' });
  onTestFinished(() => writer.close());
  command.kill('SIGTERM');
  await endOf(command);
  expect(command.exitCode).toBe(143);
});
