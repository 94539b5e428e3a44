// Opens what the steps of an app work with, and gathers what the families of its steps bring to the worker.
import { endsWithin } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import type { App } from '../saga/app.ts';
import type { WorkerExtension, WorkerHost } from '../saga/extension.ts';
import type { RunnerOptions } from '../saga/runner.ts';
import { outcomeOfUnexpected } from '../saga/unexpected.ts';

export type OpenedDeps = Readonly<{
  deps: object;
  extensions: readonly WorkerExtension[];
}>;

/** Where `deps` of an app leaves what it opens; whoever starts a worker closes it, also where the start fails. */
export type DepsCloser = Readonly<{ add(close: () => unknown): void; close(): Promise<void> }>;

// For all that an app's deps opened.
const CLOSING_MS = 1_500;

/**
 * Calls `deps` of the app.
 *
 * @throws what it throws; {TypeError} when it returns no object
 */
export async function openDeps(app: Pick<App, 'openDeps'>, { host, closer, log }: { host: Omit<WorkerHost, 'extend'>; closer: DepsCloser; log: Log }): Promise<OpenedDeps> {
  const extensions: WorkerExtension[] = [];
  const extend = (extension: WorkerExtension): void => {
    if (extensions.some(({ name }) => name === extension.name)) throw new TypeError(`the worker has ${extension.name} already: call its function once`);
    extensions.push(extension);
  };
  const deps: unknown = await app.openDeps({ log, onClose: closer.add, worker: { ...host, extend } });
  if (typeof deps !== 'object' || deps === null) throw new TypeError(`deps of the app: expected it to return an object, found ${deps === null ? 'null' : typeof deps}`);
  return { deps, extensions };
}

export function createDepsCloser(log: Log): DepsCloser {
  const closers: (() => unknown)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of closers.splice(0).toReversed()) {
      try {
        await close();
      } catch (error) {
        log.warn({ err: error }, 'what the app opened could not be closed');
      }
    }
  };
  return {
    add: (close) => void closers.push(close),
    close: async () => {
      const closed = await endsWithin(CLOSING_MS, closeAll());
      if (!closed) log.warn({ deadlineMs: CLOSING_MS }, 'what the app opened did not close in time');
    },
  };
}

/** The parts of the runner that families have a say in. `lockMs`: how long a job is its worker's without a sign of life. */
export function runnerPartsOf(extensions: readonly WorkerExtension[], lockMs: number): Pick<RunnerOptions<never>, 'toOutcome' | 'claimMs' | 'hold'> {
  // Nobody knows how long the requests of an app's own steps take.
  const requestMs = extensions.length === 0 ? lockMs / 3 : Math.max(...extensions.map(({ requestTimeoutMs }) => requestTimeoutMs));
  const [holding] = extensions;
  return {
    toOutcome: (error, direction, memo) => {
      for (const { toOutcome } of extensions) {
        const outcome = toOutcome(error, direction, memo);
        if (outcome !== null) return outcome;
      }
      return outcomeOfUnexpected(error);
    },
    // The request that follows must be over before the lock is.
    claimMs: Math.max(1, (lockMs - requestMs) / 2),
    ...(holding === undefined ? {} : { hold: holding.hold }),
  };
}
