// A worker in a separate process, for the demo and the smoke test.
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { builtBeside } from '../platform/built-beside.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { heapLimits } from '../processes/heap-limits.ts';

export type WorkerProcess = Readonly<{
  pid: number;
  isRunning(): boolean;
  /** Ends it at once, like a power failure. */
  kill(): Promise<void>;
  /** Stops it gracefully; resolves when it has ended. */
  stop(): Promise<void>;
}>;

const READY_WITHIN_MS = 20_000;

const mainFile = (): string => fileURLToPath(builtBeside('../main', import.meta.url));

/**
 * Starts a worker process and resolves when it is ready. It ends with this process, however this process ends.
 *
 * @param options.stop cancels the start, with its reason
 * @param options.program the command line; default: the one next to this module
 * @throws {Error} with its output, if it ended before it was ready or was not ready in time; it is then no longer running
 */
export async function startWorkerProcess(environment: NodeJS.ProcessEnv, options: { stop?: AbortSignal | undefined; program?: string | undefined; readyWithinMs?: number } = {}): Promise<WorkerProcess> {
  const { stop = new AbortController().signal, program = mainFile(), readyWithinMs = READY_WITHIN_MS } = options;
  const child = fork(program, ['worker'], { env: environment, execArgv: [...process.execArgv, ...heapLimits], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  const end = async (signal: NodeJS.Signals) => {
    if (!isRunning()) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  };
  try {
    await unlessAborted(stop, untilReady(child, readyWithinMs));
  } catch (error) {
    await end('SIGTERM');
    throw error;
  }
  const { pid } = child;
  if (pid === undefined) throw new Error('the worker process has no pid');
  return { pid, isRunning, kill: () => end('SIGKILL'), stop: () => end('SIGTERM') };
}

async function untilReady(child: ChildProcess, withinMs: number): Promise<void> {
  let output = '';
  const ready = Promise.withResolvers<void>();
  const read = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-20_000);
    if (output.includes('worker ready')) ready.resolve();
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  child.once('exit', (code) => ready.reject(new Error(`a worker ended before it was ready (exit code ${code}):\n${output}`)));
  const timer = setTimeout(() => ready.reject(new Error(`a worker was not ready within ${withinMs} ms:\n${output}`)), withinMs);
  try {
    await ready.promise;
  } finally {
    clearTimeout(timer);
  }
}
