// The one logger: JSON lines on stdout, pretty on a terminal, secrets cut out by key wherever they stand.
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;

// Libraries put what they were doing into their errors: ioredis the command, which may be AUTH and the password. So an
// error is told by these alone.
const MAX_CAUSES = 5;

function tellError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  return {
    type: error.name,
    message: error.message,
    ...('code' in error && typeof error.code === 'string' ? { code: error.code } : {}),
    ...(error.stack === undefined ? {} : { stack: error.stack }),
    ...(error.cause instanceof Error && depth < MAX_CAUSES ? { cause: tellError(error.cause, depth + 1) } : {}),
    ...(error instanceof AggregateError && depth < MAX_CAUSES ? { errors: error.errors.map((one) => tellError(one, depth + 1)) } : {}),
  };
}

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
    serializers: { err: (error: unknown) => tellError(error) },
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
