// A worker as a process of its own, for the demo: started, waited for, killed.
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { builtBeside } from '../platform/built-beside.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { heapLimits } from '../processes/heap-limits.ts';

export type WorkerProcess = Readonly<{
  pid: number;
  /** Ends it at once, as a power failure would. */
  kill(): Promise<void>;
  /** Asks it to stop; resolves when it has. */
  stop(): Promise<void>;
}>;

const READY_WITHIN_MS = 20_000;

/**
 * Starts a worker process and resolves when it is ready. It ends with this process, however that ends.
 *
 * @param stop calls the start off, with its reason
 * @throws {Error} with what it printed, when it ended before it was ready or was not ready in time: it runs no more then
 */
export async function startWorkerProcess(environment: NodeJS.ProcessEnv, stop: AbortSignal = new AbortController().signal): Promise<WorkerProcess> {
  const main = fileURLToPath(builtBeside('../main', import.meta.url));
  const child = fork(main, ['worker'], { env: environment, execArgv: [...process.execArgv, ...heapLimits], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  };
  try {
    await unlessAborted(stop, untilReady(child));
  } catch (error) {
    await end('SIGTERM');
    throw error;
  }
  const { pid } = child;
  if (pid === undefined) throw new Error('the worker process has no pid');
  return { pid, kill: () => end('SIGKILL'), stop: () => end('SIGTERM') };
}

async function untilReady(child: ChildProcess): Promise<void> {
  let output = '';
  const ready = Promise.withResolvers<void>();
  const read = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-20_000);
    if (output.includes('worker ready')) ready.resolve();
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  child.once('exit', (code) => ready.reject(new Error(`a worker ended before it was ready (exit code ${code}):\n${output}`)));
  const timer = setTimeout(() => ready.reject(new Error(`a worker was not ready within ${READY_WITHIN_MS} ms:\n${output}`)), READY_WITHIN_MS);
  try {
    await ready.promise;
  } finally {
    clearTimeout(timer);
  }
}
