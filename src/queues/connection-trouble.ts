// Reports trouble with a connection to the store of the queues, which passes without anybody waiting for it.
import { EventEmitter } from 'node:events';
import type { Queue, Worker } from 'bullmq';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';

const QUIET_MS = 5_000;

/** Returns a function that logs connection errors with a message, one in five seconds. */
export function troubleLog(log: Log, message: string): (error: Error) => void {
  return onceInAWhile(QUIET_MS, (error: Error) => log[levelOf(error)]({ reason: error.message }, message));
}

/** Like {@link troubleLog} for a worker, whose errors also include jobs that it could not read: their text quotes the job. */
export function workerTroubleLog(log: Log, queue: string, warn: (error: Error) => void): (error: Error) => void {
  const unreadable = onceInAWhile(QUIET_MS, () => log.warn({ queue }, 'a job cannot be read: looking for it'));
  return (error) => (error instanceof SyntaxError ? unreadable() : warn(error));
}

/** Reports the errors of a queue or a worker. Without a listener, a connection error would end the process. */
export function listening<T extends Queue | Worker>(emitter: T, warn: (error: Error) => void): T {
  EventEmitter.prototype.on.call(emitter, 'error', warn);
  return emitter;
}

/** Trouble on other machines passes by itself. Trouble on this machine needs a person. */
function levelOf(error: Error): 'warn' | 'error' {
  return isLocalTrouble(error) ? 'error' : 'warn';
}
