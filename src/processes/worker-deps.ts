// Opens the dependencies of an app's steps, and collects the extensions that their families add to the worker.
import { CLOSING_MS, endsWithin } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import type { App } from '../saga/app.ts';
import type { WorkerExtension, WorkerHost } from '../saga/extension.ts';
import type { RunnerOptions } from '../saga/runner.ts';
import { outcomeOfUnexpected } from '../saga/unexpected.ts';

export type OpenedDeps = Readonly<{
  deps: object;
  extensions: readonly WorkerExtension[];
}>;

/** Collects the close functions of an app's `deps`. The code that starts a worker calls `close`, even if the start fails. */
export type DepsCloser = Readonly<{ add(close: () => unknown): void; close(): Promise<void> }>;

/**
 * Calls the app's `deps`.
 *
 * @throws what it throws; {TypeError} if it returns no object
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

/** The runner options that step families influence. `lockMs`: how long a worker keeps a job without renewing its lock. */
export function runnerPartsOf(extensions: readonly WorkerExtension[], lockMs: number): Pick<RunnerOptions<never>, 'toOutcome' | 'claimMs' | 'hold'> {
  // The duration of requests by an app's own steps is unknown.
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
    // The following request must end before the lock does.
    claimMs: Math.max(1, (lockMs - requestMs) / 2),
    ...(holding === undefined ? {} : { hold: holding.hold }),
  };
}
