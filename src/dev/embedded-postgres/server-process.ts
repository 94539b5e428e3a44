// Runs one Postgres server as child processes of the guard: creates the cluster, starts it, stops it. Does not depend on
// temporary folders or on why it is guarded.

import { once } from 'node:events';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ShutdownMode } from './guard-messages.ts';
import type { NativeBinaries } from './native-binaries.ts';
import { giveTo, runProgram, spawnProgram } from './run-as.ts';
import type { Program, RunAs } from './run-as.ts';

/** The superuser's name and the name of the database for clients. */
export const userName = 'arcadia';

export type ClusterArgs = {
  readonly binaries: NativeBinaries;
  readonly runAs: RunAs;
  /** The folder that contains the cluster, in its subfolder `data`. */
  readonly home: string;
  readonly password: string;
  /** Whether a power failure right after creation may lose the cluster: acceptable for temporary data. */
  readonly durability: 'durable' | 'disposable';
  readonly signal: AbortSignal;
};

/**
 * Creates the cluster in `home/data` or uses the existing one, and sets the superuser's password. Returns the cluster's
 * folder. Throws with the output of initdb or Postgres.
 */
export async function ensureCluster(args: ClusterArgs): Promise<string> {
  const { binaries, runAs, home, password, signal } = args;
  const dataDir = join(home, 'data');
  if (await exists(join(dataDir, 'PG_VERSION'))) {
    // The password of an earlier run was never stored. Postgres's single-user mode requires none.
    const input = `alter role ${userName} password '${password}'\n`;
    await runProgram(binaries.postgres, ['--single', '-D', dataDir, 'postgres'], { runAs, cwd: home, signal, input });
    return dataDir;
  }
  const passwordFile = join(home, 'initdb-password');
  // Renamed into place when complete: an initdb that was killed halfway must not look like a cluster.
  const unfinished = join(home, 'data.unfinished');
  await rm(unfinished, { recursive: true, force: true });
  try {
    await writeFile(passwordFile, password, { mode: 0o600 });
    await giveTo(runAs, passwordFile);
    const flags = [
      `--pgdata=${unfinished}`, `--username=${userName}`, `--pwfile=${passwordFile}`, '--auth=scram-sha-256',
      // Sorts by code point, the same on every machine.
      '--encoding=UTF8', '--locale=C',
      // From version 17 on, also handles Unicode letters.
      ...((await majorVersionOf(binaries.initdb, { runAs, cwd: home, signal })) >= 17 ? ['--locale-provider=builtin', '--builtin-locale=C.UTF-8'] : []),
      ...(args.durability === 'disposable' ? ['--no-sync'] : []),
    ];
    await runProgram(binaries.initdb, flags, { runAs, cwd: home, signal });
    await rename(unfinished, dataDir);
  } finally {
    await rm(passwordFile, { force: true });
  }
  return dataDir;
}

/** Parses the version output: `initdb (PostgreSQL) 15.4 (Debian 15.4-1)` gives 15. */
async function majorVersionOf(program: string, options: Parameters<typeof runProgram>[2]): Promise<number> {
  const printed = await runProgram(program, ['--version'], options);
  return Number(/\) (\d{1,3})/.exec(printed)?.[1] ?? Number.NaN);
}

export type StartArgs = {
  readonly binaries: NativeBinaries;
  readonly runAs: RunAs;
  readonly dataDir: string;
  readonly port: number;
  readonly settings: Readonly<Record<string, string>>;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
};

export type PostgresServer = { readonly pid: number; readonly program: Program; readonly exited: Promise<void> };

/** Thrown if another process already listens on the port. */
export class PortTakenError extends Error {
  override readonly name = 'PortTakenError';
}

const startDeadlineMs = 60_000;
const readyPollMs = 20;
/** Time for the processes of a killed server to notice and release its memory. */
const leftoverDeadlineMs = 10_000;

/**
 * Starts Postgres on 127.0.0.1 and returns when it accepts connections. Throws `PortTakenError`, or an error with the
 * last lines of the server's log.
 */
export async function startServer(args: StartArgs): Promise<PostgresServer> {
  const giveUpAt = performance.now() + leftoverDeadlineMs;
  for (;;) {
    const outcome = await tryStart(args);
    if ('server' in outcome) return outcome.server;
    const { lines } = outcome;
    const leftover = lines.some((line) => line.includes('pre-existing shared memory block'));
    if (leftover && performance.now() < giveUpAt && !args.signal.aborted) {
      await sleep(100);
      continue;
    }
    const message = `Postgres did not start on port ${args.port}:\n${lines.join('\n')}`;
    if (lines.some((line) => line.includes('Address already in use'))) throw new PortTakenError(message);
    throw new Error(message);
  }
}

async function tryStart(args: StartArgs): Promise<{ server: PostgresServer } | { lines: string[] }> {
  const { binaries, runAs, dataDir, port, log, signal } = args;
  const settings = {
    ...args.settings,
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const program = spawnProgram(binaries.postgres, ['-D', dataDir, ...flags], { runAs, cwd: dataDir });
  const lines: string[] = [];
  for (const output of [program.stdout, program.stderr]) {
    createInterface({ input: output }).on('line', (line) => {
      lines.push(line);
      if (lines.length > 40) lines.shift();
      log(line);
    });
  }
  program.stdin.on('error', () => undefined);
  program.stdin.end();
  // 'exit', not 'close': the orphans of a killed server may hold its outputs open.
  const exited = new Promise<void>((resolve) => {
    program.once('exit', () => resolve());
    program.once('error', (error) => {
      lines.push(error.message);
      resolve();
    });
  });
  const state = { ended: false };
  void exited.then(() => (state.ended = true));

  const deadline = performance.now() + startDeadlineMs;
  while (!state.ended) {
    if (program.pid !== undefined && (await isReady(dataDir, program.pid))) return { server: { pid: program.pid, program, exited } };
    if (signal.aborted || performance.now() > deadline) {
      lines.push(signal.aborted ? 'the start was called off' : `not ready after ${startDeadlineMs} ms`);
      program.kill('SIGQUIT');
      await Promise.race([exited, sleep(5000)]);
      program.kill('SIGKILL');
    }
    await Promise.race([exited, sleep(readyPollMs)]);
  }
  // The lines with the reason come through a pipe and may arrive after the exit event.
  await sleep(readyPollMs);
  return { lines };
}

/** pg_ctl checks the same: the last line of the server's lock file. */
async function isReady(dataDir: string, pid: number): Promise<boolean> {
  try {
    const lines = (await readFile(join(dataDir, 'postmaster.pid'), 'utf8')).split('\n');
    return lines[0] === String(pid) && lines[7]?.trim() === 'ready';
  } catch {
    return false;
  }
}

/** Stops a server with increasing force and returns when its process is gone, within about 15 seconds. */
export async function endServer(server: PostgresServer, mode: ShutdownMode): Promise<void> {
  const escalation: [NodeJS.Signals, number][] = [['SIGQUIT', 6000], ['SIGKILL', 4000]];
  if (mode === 'fast') escalation.unshift(['SIGINT', 8000]);
  for (const [signal, patienceMs] of escalation) {
    if (server.program.exitCode !== null || server.program.signalCode !== null) return;
    server.program.kill(signal);
    const timer = new AbortController();
    await Promise.race([server.exited, sleep(patienceMs, undefined, { signal: timer.signal }).catch(() => undefined)]);
    timer.abort();
  }
}

/** Finds a port of 127.0.0.1 that is free at this moment. */
export async function findFreePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
