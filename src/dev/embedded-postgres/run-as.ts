// The user that Postgres runs as, and how its programs are started. Postgres refuses to run as root. If root starts it,
// it runs as `nobody`, which exists on every Unix, so that no user has to be created.

import { execFile, spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { chown } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

/** An unprivileged user's ids; undefined: the user of this process. */
export type RunAs = { readonly uid: number; readonly gid: number } | undefined;

/** A started program. Its input and outputs are pipes. */
export type Program = ChildProcessByStdio<Writable, Readable, Readable>;

export type ProgramOptions = { readonly runAs: RunAs; readonly cwd: string; readonly signal?: AbortSignal };

/** Finds the user to run Postgres as. Throws if this process is root and the system has no `nobody`. */
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

/**
 * Makes the user that Postgres runs as the owner of a file or folder. Throws if the system does not allow it (a container
 * without that user).
 */
export async function giveTo(runAs: RunAs, path: string): Promise<void> {
  if (runAs === undefined) return;
  try {
    // macOS gives nobody the id -2: unsigned here, signed below.
    await chown(path, runAs.uid >>> 0, runAs.gid >>> 0);
  } catch (cause) {
    throw new Error(`Postgres does not run as root, and ${path} could not be given to the user nobody: start this as another user`, { cause });
  }
}

/** Starts a program as the given user. It gets only the PATH of this process's environment, so that Postgres sees no tokens. */
export function spawnProgram(file: string, args: readonly string[], options: ProgramOptions): Program {
  const { runAs, cwd, signal } = options;
  return spawn(file, args, {
    cwd,
    // LC_ALL also fixes the language of Postgres's messages, which are parsed below.
    env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(runAs === undefined ? {} : { uid: runAs.uid | 0, gid: runAs.gid | 0 }),
    ...(signal === undefined ? {} : { signal }),
    killSignal: 'SIGKILL',
  });
}

/** Runs a program to its end and returns its combined output. Throws if it cannot be started or its exit code is not 0. */
export async function runProgram(file: string, args: readonly string[], options: ProgramOptions & { readonly input?: string }): Promise<string> {
  const program = spawnProgram(file, args, options);
  const printed: Buffer[] = [];
  program.stdout.on('data', (chunk: Buffer) => printed.push(chunk));
  program.stderr.on('data', (chunk: Buffer) => printed.push(chunk));
  // The exit code identifies a program that ends without reading its input, not our failed write.
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
