// Repeats the claim on the queues while a worker or a web process runs. It is gone with everything else when Redis is emptied, and the fleet of another
// database that is given the same prefix could then take the queues and the requests in them.
import { setTimeout as delay } from 'node:timers/promises';
import { ConfigError } from '../platform/config-error.ts';
import type { Log } from '../platform/log.ts';
import type { QueueConnection } from './connection.ts';

/**
 * Keeps the queues claimed. A store that does not answer is asked again later.
 *
 * @param options.everyMs time between two looks
 * @returns who owns the queues if another database claimed them meanwhile; null if the signal was aborted first
 */
export async function keepClaim({ claim }: Pick<QueueConnection, 'claim'>, owner: string, { everyMs, signal, log }: { everyMs: number; signal: AbortSignal; log: Log }): Promise<string | null> {
  if (claim === null) return null;
  while (!signal.aborted) {
    await delay(everyMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return null;
    try {
      if (await claim(owner)) log.warn('the claim on the queues was gone, as after Redis was emptied: they were claimed again');
    } catch (error) {
      if (error instanceof ConfigError) return error.message;
    }
  }
  return null;
}
