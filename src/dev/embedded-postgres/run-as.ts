// Whom Postgres runs as, and how its programs are started. Postgres refuses to run as root; started by root, it runs as
// `nobody`, which every Unix has, so that no user need be made.

import { execFile, spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { chown } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

/** An unprivileged user's numbers, or nothing: the user of this process. */
export type RunAs = { readonly uid: number; readonly gid: number } | undefined;

/** A program that was started: its input and outputs are pipes. */
export type Program = ChildProcessByStdio<Writable, Readable, Readable>;

export type ProgramOptions = { readonly runAs: RunAs; readonly cwd: string; readonly signal?: AbortSignal };

/** Finds whom to run Postgres as. Throws when this process is root and the system knows no `nobody`. */
export async function findRunAs(): Promise<RunAs> {
  if (process.getuid?.() !== 0) return undefined;
  try {
    return { uid: await readId('-u'), gid: await readId('-g') };
  } catch (cause) {
    throw new Error('Postgres does not run as root, and this system has no user named nobody to run it as: start this as another user', { cause });
  }
}

async function readId(flag: '-u' | '-g'): Promise<number> {
  const { stdout } = await promisify(execFile)('id', [flag, 'nobody']);
  const id = Number(stdout.trim());
  if (!Number.isSafeInteger(id)) throw new Error(`id ${flag} nobody printed ${JSON.stringify(stdout)}`);
  return id;
}

/** Makes a file or folder belong to whom Postgres runs as. Throws where the system doesn't let it (a container without that user). */
export async function giveTo(runAs: RunAs, path: string): Promise<void> {
  if (runAs === undefined) return;
  try {
    // macOS numbers nobody -2: unsigned here, signed below.
    await chown(path, runAs.uid >>> 0, runAs.gid >>> 0);
  } catch (cause) {
    throw new Error(`Postgres does not run as root, and ${path} could not be given to the user nobody: start this as another user`, { cause });
  }
}

/** Starts a program as the given user, with nothing of this process's environment but the PATH: tokens are none of Postgres's business. */
export function spawnProgram(file: string, args: readonly string[], options: ProgramOptions): Program {
  const { runAs, cwd, signal } = options;
  return spawn(file, args, {
    cwd,
    // LC_ALL also fixes the language of Postgres's messages, which are read below.
    env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(runAs === undefined ? {} : { uid: runAs.uid | 0, gid: runAs.gid | 0 }),
    ...(signal === undefined ? {} : { signal }),
    killSignal: 'SIGKILL',
  });
}

/** Runs a program to its end and returns what it printed, both outputs in one. Throws when it can't be started or its exit code is not 0. */
export async function runProgram(file: string, args: readonly string[], options: ProgramOptions & { readonly input?: string }): Promise<string> {
  const program = spawnProgram(file, args, options);
  const printed: Buffer[] = [];
  program.stdout.on('data', (chunk: Buffer) => printed.push(chunk));
  program.stderr.on('data', (chunk: Buffer) => printed.push(chunk));
  // A program that ends without reading its input is told apart by its exit code, not by our failed write.
  program.stdin.on('error', () => undefined);
  program.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    program.once('error', (cause) => reject(new Error(`${file} could not be started: ${cause.message}`, { cause })));
    program.once('close', (code, signal) => {
      const output = Buffer.concat(printed).toString().trim();
      if (code === 0) resolve(output);
      else reject(new Error(`${file} failed (${signal ?? `exit code ${code}`}):\n${output}`));
    });
  });
}
