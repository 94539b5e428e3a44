// Runs processes as a container does: as PID 1 of their own namespace, for which signals have no default action.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { compileCache } from './compile-cache.ts';
import { waitFor } from './wait-for.ts';
import { programFile } from './programs.ts';

const unshare = ['--pid', '--fork', '--mount-proc', '--kill-child'];

/** Whether this machine lets us number processes anew, which takes root. */
export const canBeProcessOne = process.platform === 'linux' && spawnSync('unshare', [...unshare, 'true']).status === 0;

export type ProcessOne = Readonly<{
  /** Everything that it printed so far, on both streams. */
  output(): string;
  /** Sends it a signal. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when it has ended. A process that is killed by a signal has its name for a code. */
  ended: Promise<number | NodeJS.Signals | null>;
  [Symbol.asyncDispose](): Promise<void>;
}>;

const mainFile = programFile('main');

/**
 * Starts the command line as PID 1, or as an ordinary process if that is not permitted. Resolves once Node itself handles signals,
 * long before it runs our code: no program could handle a signal sent earlier.
 */
export async function startAsProcessOne(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<ProcessOne> {
  const command = [process.execPath, mainFile, ...args];
  const [file = '', ...rest] = canBeProcessOne ? ['unshare', ...unshare, ...command] : command;
  const child = spawn(file, rest, { env: { ...compileCache, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const read = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout.on('data', read);
  child.stderr.on('data', read);
  const ended = once(child, 'close').then(() => child.exitCode ?? child.signalCode);
  const outerPid = child.pid ?? 0;
  const pid = canBeProcessOne ? await waitFor(() => childOf(outerPid), { what: 'a process 1', everyMs: 1 }) : outerPid;
  await waitFor(async () => process.platform !== 'linux' || listensForSigterm(pid), { what: 'Node to listen', everyMs: 1 });
  return {
    output: () => output,
    signal: (name) => void process.kill(pid, name),
    ended,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function childOf(pid: number): Promise<number | null> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return Number(children.trim()) || null;
}

async function listensForSigterm(pid: number): Promise<boolean> {
  const [, mask] = /^SigCgt:\s*([0-9a-f]+)$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8')) ?? [];
  return mask !== undefined && (BigInt(`0x${mask}`) & 0x4000n) !== 0n;
}
