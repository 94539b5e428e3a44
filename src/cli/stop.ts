// When a process has to end: at SIGTERM or SIGINT, when nobody reads what it prints, or when the process that started a
// server is gone. And how it ends: with all that it printed delivered.
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { endsWithin, untilAborted } from '../platform/deadline.ts';

/** The reason of an aborted {@link Stop.signal}. */
export class StopRequested extends Error {
  override readonly name = 'StopRequested';
  /** Of a command that did not finish: 128 and the number of the signal, as shells have it; 1 where it is a failure. */
  readonly exitCode: number;
  /** Whether somebody asked for it, who wants to know what becomes of the work. */
  readonly isAsked: boolean;

  constructor(why: string, how: { exitCode: number; isAsked: boolean }) {
    super(why);
    this.exitCode = how.exitCode;
    this.isAsked = how.isAsked;
  }
}

export type Stop = Readonly<{
  /** Aborted with a {@link StopRequested} when the process has to end. */
  signal: AbortSignal;
  /**
   * Makes this process a server: it ends with its parent, where it has a channel to it, and goes on when nobody reads its
   * output any more.
   */
  asServer(): void;
  /** Ends the process once everything that it printed is delivered. */
  end(exitCode: number): Promise<never>;
}>;

type StopSignal = 'SIGINT' | 'SIGTERM';

const stopSignals: readonly StopSignal[] = ['SIGINT', 'SIGTERM'];

// A reader of logs that stands still for good must not keep a server from ending.
const SERVER_DELIVERY_MS = 10_000;
// For the last words of a command that was interrupted.
const LAST_WORDS_MS = 1_000;

/**
 * Listens for what ends a process, from now on. The second signal ends it at once.
 *
 * The process that is number 1 of a container has no default action for signals: without a listener, they are lost.
 */
export function listenForStop(): Stop {
  const controller = new AbortController();
  const { signal } = controller;
  setMaxListeners(0, signal);
  let isServer = false;

  const onSignal = (name: StopSignal): void => {
    if (signal.aborted) process.exit(exitCodeOf(name));
    controller.abort(new StopRequested(name, { exitCode: exitCodeOf(name), isAsked: true }));
  };
  const missed = missedSignal();
  for (const name of stopSignals) process.on(name, onSignal);
  if (missed !== null) onSignal(missed);

  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isServer || signal.aborted) return;
    const isClosed = error.code === 'EPIPE';
    if (!isClosed) process.stderr.write(`arcadia: the output cannot be written: ${error.message}\n`);
    controller.abort(new StopRequested(error.message, { exitCode: isClosed ? exitCodeOf('SIGPIPE') : 1, isAsked: false }));
  });
  // Nobody is left to be told.
  process.stderr.on('error', () => undefined);

  return {
    signal,
    asServer: () => {
      isServer = true;
      if (process.connected) process.once('disconnect', () => controller.abort(new StopRequested('the parent process is gone', { exitCode: exitCodeOf('SIGTERM'), isAsked: true })));
    },
    end: async (exitCode) => {
      if (isServer) {
        await endsWithin(SERVER_DELIVERY_MS, Promise.all([delivered(process.stdout), delivered(process.stderr)]));
        process.exit(exitCode);
      }
      await Promise.race([delivered(process.stdout), untilAborted(signal)]);
      await endsWithin(LAST_WORDS_MS, delivered(process.stderr));
      process.exit(signal.reason instanceof StopRequested ? signal.reason.exitCode : exitCode);
    },
  };
}

/** Starts a server; null when it was to stop before it was ready, which is no failure. */
export async function startUnlessStopped<T>(stop: AbortSignal, start: () => Promise<T>): Promise<T | null> {
  try {
    return await start();
  } catch (error) {
    if (stop.aborted) return null;
    throw error;
  }
}

/** The reason of an aborted {@link Stop.signal}, in words. */
export function whyOf(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}

function exitCodeOf(signal: StopSignal | 'SIGPIPE'): number {
  return 128 + constants.signals[signal];
}

/**
 * The signal that came before anybody listened. Node listens from its start for both, and lets a signal take its default
 * action: which process 1 does not have, so that it goes on with Node's listener gone.
 */
function missedSignal(): StopSignal | null {
  if (process.pid !== 1 || process.platform !== 'linux') return null;
  const [, mask] = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  if (mask === undefined) return null;
  const gone = stopSignals.filter((name) => ((BigInt(`0x${mask}`) >> BigInt(constants.signals[name] - 1)) & 1n) === 0n);
  // Both gone would rather mean a Node that does not listen.
  return gone.length === 1 ? (gone[0] ?? null) : null;
}

/** Resolves when all that was written to a stream is on its way, or cannot be. */
async function delivered(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0) return;
  await new Promise<void>((resolve) => {
    stream.write('', () => resolve());
  });
}
