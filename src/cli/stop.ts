// Decides when a process ends: at SIGTERM or SIGINT, when the reader of its output has gone, or when the parent of a
// server has gone. Also delivers all printed output before the end.
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { endsWithin, untilAborted } from '../platform/deadline.ts';

/** The reason of an aborted {@link Stop.signal}. */
export class StopRequested extends Error {
  override readonly name = 'StopRequested';
  /** For an unfinished command: 128 plus the signal's number, as in shells; 1 if it is a failure. */
  readonly exitCode: number;
  /** Whether a person requested the stop and wants to know what happens to the work. */
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
   * Makes this process a server: it ends with its parent if there is a channel to it, and continues if the reader of its
   * output goes away.
   */
  asServer(): void;
  /** Ends the process once all its output is delivered. */
  end(exitCode: number): Promise<never>;
}>;

type StopSignal = 'SIGINT' | 'SIGTERM';

const stopSignals: readonly StopSignal[] = ['SIGINT', 'SIGTERM'];

// A log reader that is stuck must not keep a server from ending.
const SERVER_DELIVERY_MS = 10_000;
// For the last output of an interrupted command.
const LAST_WORDS_MS = 1_000;

/**
 * Starts listening for what ends a process. A second signal ends it at once.
 *
 * Process 1 of a container has no default action for signals: without a listener they are lost.
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
  // There is no reader left to tell.
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
      // A failed write is reported only in the next turn, when its stream may already count as empty.
      await nextTurn();
      await Promise.race([delivered(process.stdout), untilAborted(signal)]);
      await endsWithin(LAST_WORDS_MS, delivered(process.stderr));
      process.exit(signal.reason instanceof StopRequested ? signal.reason.exitCode : exitCode);
    },
  };
}

/** Starts a server; null if it was stopped before it was ready, which is not a failure. */
export async function startUnlessStopped<T>(stop: AbortSignal, start: () => Promise<T>): Promise<T | null> {
  try {
    return await start();
  } catch (error) {
    if (stop.aborted) return null;
    throw error;
  }
}

/** Waits until a server is to stop, or cannot go on. `exitCode` 1: only a new process helps. */
export async function untilEnd(stop: AbortSignal, cannotGoOn: Promise<string>): Promise<Readonly<{ why: string; exitCode: number }>> {
  return Promise.race([
    untilAborted(stop).then((reason) => ({ why: whyOf(reason), exitCode: 0 })),
    cannotGoOn.then((why) => ({ why, exitCode: 1 })),
  ]);
}

/** Describes the reason of an aborted {@link Stop.signal}. */
export function whyOf(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}

function exitCodeOf(signal: StopSignal | 'SIGPIPE'): number {
  return 128 + constants.signals[signal];
}

/**
 * Detects a signal that arrived before our listeners. Node listens for both signals from its start and then triggers the
 * default action. Process 1 has none, so it continues, but with Node's listener gone.
 */
function missedSignal(): StopSignal | null {
  if (process.pid !== 1 || process.platform !== 'linux') return null;
  const [, mask] = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  if (mask === undefined) return null;
  const gone = stopSignals.filter((name) => ((BigInt(`0x${mask}`) >> BigInt(constants.signals[name] - 1)) & 1n) === 0n);
  // If both are gone, Node probably does not listen at all.
  return gone.length === 1 ? (gone[0] ?? null) : null;
}

/** Resolves when everything written to a stream has been sent, or cannot be. */
async function delivered(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0) return;
  await new Promise<void>((resolve) => {
    stream.write('', () => resolve());
  });
}
