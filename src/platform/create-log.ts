// Makes the process's logger: JSON lines on stdout, pretty on a terminal, secrets cut out by key wherever they stand.
import { pino } from 'pino';
import type { Logger } from 'pino';
import { errorCodeOf } from './error-code.ts';
import { visible, visibleLines } from './text.ts';

// Libraries put what they were doing into their errors: ioredis the command, which may be AUTH and the password. So an
// error is told by these alone.
const MAX_CAUSES = 5;

function tellError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  const code = errorCodeOf(error);
  return {
    type: error.name,
    message: error.message,
    ...(code === null ? {} : { code }),
    ...(error.stack === undefined ? {} : { stack: error.stack }),
    ...(error.cause instanceof Error && depth < MAX_CAUSES ? { cause: tellError(error.cause, depth + 1) } : {}),
    ...(error instanceof AggregateError && depth < MAX_CAUSES ? { errors: error.errors.map((one) => tellError(one, depth + 1)) } : {}),
  };
}

const secretKeys = new Set(['token', 'password', 'authorization', 'user_data', 'userData', 'secret', 'DIGITALOCEAN_TOKEN', 'databaseUrl', 'redisNodes']);

const CENSORED = '[redacted]';
// Deeper than anything that is logged; what is deeper still is cut off whole, as nobody has looked at it.
const MAX_DEPTH = 8;

// pino's own redaction costs 25 us a line with these keys at three depths, a tenth of a worker that is busy with sagas.
/** The object without its secrets, at any depth; itself where it holds none, as nearly all do. */
function censor(object: Record<string, unknown>, depth = 0): Record<string, unknown> {
  let censored: Record<string, unknown> | null = null;
  for (const key of Object.keys(object)) {
    const value = object[key];
    const shown = secretKeys.has(key) ? CENSORED : censorValue(value, depth);
    if (shown !== value) (censored ??= { ...object })[key] = shown;
  }
  return censored ?? object;
}

function censorValue(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (value instanceof Error) return tellError(value);
  if (depth === MAX_DEPTH) return CENSORED;
  if (!Array.isArray(value)) return censor(value as Record<string, unknown>, depth + 1); // oxlint-disable-line typescript/no-unsafe-type-assertion
  return value.map((entry: unknown) => censorValue(entry, depth + 1));
}

/** The line with nothing in it that a terminal would obey; nearly all lines are printable as they are. */
function toPrintableLine(line: string): string {
  return /[^\n -~]/.test(line) ? visibleLines(line) : line;
}

/** The same for a line the texts of which are shown as they are: only a stack has lines of its own. */
function toPrettyLine(line: string): string {
  const shown: unknown = JSON.parse(line, (key, value: unknown) => (typeof value !== 'string' ? value : key === 'stack' ? visibleLines(value) : visible(value)));
  return `${JSON.stringify(shown)}\n`;
}

/**
 * Makes the process's logger.
 *
 * @param level pino's level; `silent` for none
 * @param destination 1 for stdout (processes), 2 for stderr (commands whose stdout is for data)
 */
export function createLog(level: string, destination: 1 | 2 = 1): Logger {
  const stream = destination === 1 ? process.stdout : process.stderr;
  const options = {
    level,
    base: { pid: process.pid },
    // What is logged has told its errors by then, but for those that a child logger carries. pino's own would tell them again.
    serializers: { err: (error: unknown) => tellError(error) },
    formatters: { log: (object: Record<string, unknown>) => censor(object) },
    // What a child logger carries is not formatted.
    redact: { paths: [...secretKeys], censor: CENSORED },
  };
  // Not pino's own destination: what it still holds when the process ends is lost where the reader is slow, or it holds up
  // the whole process, deaf to signals, until it is read.
  if (!stream.isTTY) return pino({ ...options, hooks: { streamWrite: toPrintableLine } }, stream);
  return pino({
    ...options,
    hooks: { streamWrite: toPrettyLine },
    transport: { target: 'pino-pretty', options: { destination, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' } },
  });
}
