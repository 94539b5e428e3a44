// Starts processes that must not outlive the test. The IPC channel tells a child that its parent is gone, but a frozen child, or
// one that is shutting down, does not react. So the kernel kills it (PR_SET_PDEATHSIG, set by util-linux's setpriv, which then
// executes the program). Without setpriv (not Linux), only the channel is used.
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { ChildProcess, ChildProcessByStdio, ForkOptions, SpawnOptionsWithStdioTuple, StdioNull, StdioPipe } from 'node:child_process';
import type { Readable } from 'node:stream';
import { findProgram, programFolders } from './services-guarded.ts';

const setpriv = findProgram(['setpriv'], programFolders);
const flags = ['--pdeathsig', 'KILL', '--'];

/** As `fork`, of a process that ends when this one does, however that ends. */
export function forkBound(module: string, args: readonly string[], options: ForkOptions): ChildProcess {
  if (setpriv === undefined) return fork(module, args, options);
  return fork(module, args, { ...options, execPath: setpriv, execArgv: [...flags, process.execPath, ...(options.execArgv ?? [])] });
}

type Output = SpawnOptionsWithStdioTuple<StdioNull, StdioPipe, StdioPipe>;

/** As `spawn` with both outputs piped, of a process that ends when this one does. */
export function spawnBound(program: string, args: readonly string[], options: Omit<Output, 'stdio'> = {}): ChildProcessByStdio<null, Readable, Readable> {
  const [file, all] = setpriv === undefined ? [program, args] : [setpriv, [...flags, program, ...args]];
  return spawn(file, all, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Resolves when the process has ended, at once if it already has: `once(child, 'exit')` would wait for ever then. */
export async function endOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
