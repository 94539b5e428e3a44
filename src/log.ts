// The one logger: JSON lines on stdout, pretty on a terminal, secrets cut out by key wherever they stand.
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;

const secretKeys = ['token', 'password', 'authorization', 'user_data', 'userData', 'secret', 'DIGITALOCEAN_TOKEN', 'databaseUrl', 'redisNodes'];

/**
 * Makes the process's logger.
 *
 * @param level pino's level; `silent` for none
 * @param destination 1 for stdout (processes), 2 for stderr (commands whose stdout is for data)
 */
export function createLog(level: string, destination: 1 | 2 = 1): Log {
  const stream = destination === 1 ? process.stdout : process.stderr;
  const options = {
    level,
    base: { pid: process.pid },
    redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: '[redacted]' },
  };
  if (!stream.isTTY) return pino(options, pino.destination({ dest: destination, sync: destination === 2 }));
  return pino({
    ...options,
    transport: { target: 'pino-pretty', options: { destination, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' } },
  });
}

/** A logger that says nothing: for tests, and for commands that print data. */
export const silentLog: Log = pino({ level: 'silent' });
