// A fleet of worker processes and its supervisor, which starts a new one wherever one ended, as a process manager would.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { compileCache } from '../support/compile-cache.ts';
import { forkBound } from '../support/child-process.ts';
import { programFile } from '../support/programs.ts';

export type FleetWorker = {
  readonly pid: number;
  /** What stands in the events that it writes, and on the jobs that it holds. */
  readonly name: string;
  /** Somebody has plans with it: let nobody else choose it. */
  isTaken: boolean;
  /** Ends it with SIGKILL; resolves when it has. */
  kill(): Promise<void>;
  /** Asks it to stop; resolves with how long that took. Killed when it is not done within `limitMs`: null. */
  terminate(limitMs: number): Promise<number | null>;
};

/** A worker that ended though nobody wanted it to. */
export type Death = Readonly<{ worker: string; code: number | null; signal: string | null; output: string }>;

export type Fleet = Readonly<{
  /** Those that run and are ready. */
  workers(): readonly FleetWorker[];
  /** Deaths of workers that were ready. */
  deaths: readonly Death[];
  /** Workers that were ready, and that gave up before they were: the services may have been away. */
  starts(): { ready: number; failed: number };
  /** Secrets that some worker printed. */
  leaks: ReadonlySet<string>;
  close(): Promise<void>;
}>;

const RESTART_DELAY_MS = 200;
const KEPT_OUTPUT = 8_000;

/** Starts a fleet. `secrets` are watched for in all that the workers print. */
export function startFleet(size: number, environment: NodeJS.ProcessEnv, secrets: readonly string[]): Fleet {
  const running = new Set<FleetWorker>();
  const deaths: Death[] = [];
  const leaks = new Set<string>();
  const children = new Set<ChildProcess>();
  const starts = { ready: 0, failed: 0 };
  const closing = new AbortController();

  const runOne = async (): Promise<void> => {
    const child = forkWorker(environment);
    children.add(child);
    const output = readOutput(child, (text) => {
      for (const secret of secrets) if (text.includes(secret)) leaks.add(secret);
    });
    const exited = once(child, 'exit');
    const isReady = await Promise.race([output.ready.then(() => true), exited.then(() => false)]);
    const state = { isWantedDead: false };
    const worker = isReady ? toFleetWorker(child, exited, state) : null;
    if (worker === null) starts.failed += 1;
    else {
      starts.ready += 1;
      running.add(worker);
    }
    await exited;
    children.delete(child);
    if (worker === null) return;
    running.delete(worker);
    if (!state.isWantedDead && !closing.signal.aborted) {
      deaths.push({ worker: worker.name, code: child.exitCode, signal: child.signalCode, output: output.tail() });
    }
  };
  const supervise = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      await runOne();
      await delay(RESTART_DELAY_MS);
    }
  };
  const slots = Array.from({ length: size }, supervise);

  return {
    workers: () => [...running],
    deaths,
    starts: () => ({ ...starts }),
    leaks,
    close: async () => {
      closing.abort();
      for (const child of children) child.kill('SIGKILL');
      await Promise.all(slots);
    },
  };
}

function forkWorker(environment: NodeJS.ProcessEnv): ChildProcess {
  const main = programFile('main');
  return forkBound(main, ['worker'], { env: { ...compileCache, ...environment }, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
}

function readOutput(child: ChildProcess, watch: (text: string) => void): { ready: Promise<void>; tail: () => string } {
  let kept = '';
  const { promise, resolve } = Promise.withResolvers<void>();
  const read = (chunk: Buffer) => {
    const text = chunk.toString();
    watch(text);
    kept = (kept + text).slice(-KEPT_OUTPUT);
    if (kept.includes('worker ready')) resolve();
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  return { ready: promise, tail: () => kept };
}

function toFleetWorker(child: ChildProcess, exited: Promise<unknown>, state: { isWantedDead: boolean }): FleetWorker {
  const { pid } = child;
  if (pid === undefined) throw new Error('the worker process has no pid');
  const end = async (signal: NodeJS.Signals) => {
    state.isWantedDead = true;
    child.kill(signal);
    await exited;
  };
  return {
    pid,
    name: `${hostname()}:${pid}`,
    isTaken: false,
    kill: () => end('SIGKILL'),
    terminate: async (limitMs) => {
      const startedAt = performance.now();
      const ended = await Promise.race([end('SIGTERM').then(() => true), delay(limitMs).then(() => false)]);
      if (ended) return performance.now() - startedAt;
      await end('SIGKILL');
      return null;
    },
  };
}
