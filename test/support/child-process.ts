// Processes that a test starts, and that must not outlive it. A channel (`ipc`) tells a process that its parent is gone, but
// one that is frozen, or busy with its own end, does not act on it. So the kernel kills it: PR_SET_PDEATHSIG, by setpriv of
// util-linux, which then becomes the program. Where there is no setpriv (not Linux), the channel has to do.
import { fork, spawn } from 'node:child_process';
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
