// Creates the process's logger: JSON lines on stdout, pretty on a terminal. Secrets are removed by key at any depth.
import { pino } from 'pino';
import type { Logger } from 'pino';
import { errorCodeOf } from './error-code.ts';
import { visible, visibleLines } from './text.ts';
import { traceFields } from './tracing.ts';

// Libraries add context to their errors. ioredis adds the command, which may be AUTH with the password. So only these
// fields of an error are logged.
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
// Deeper than anything we log. Anything deeper is cut off whole, because it was not checked.
const MAX_DEPTH = 8;

// pino's own redaction takes 25 µs per line with these keys at three depths, a tenth of a busy worker's time.
/** Returns the object without its secrets, at any depth. Nearly all objects have none and are returned unchanged. */
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

/** Escapes characters that a terminal would interpret. Nearly all lines are printable as they are. */
function toPrintableLine(line: string): string {
  return /[^\n -~]/.test(line) ? visibleLines(line) : line;
}

/** Does the same for a pretty-printed line. Only a stack keeps its line breaks. */
function toPrettyLine(line: string): string {
  const shown: unknown = JSON.parse(line, (key, value: unknown) => (typeof value !== 'string' ? value : key === 'stack' ? visibleLines(value) : visible(value)));
  return `${JSON.stringify(shown)}\n`;
}

/**
 * Creates the process's logger.
 *
 * @param level pino's level; `silent` for none
 * @param destination 1: stdout (processes); 2: stderr (commands whose stdout is for data)
 */
export function createLog(level: string, destination: 1 | 2 = 1): Logger {
  const stream = destination === 1 ? process.stdout : process.stderr;
  const options = {
    level,
    base: { pid: process.pid },
    // Errors in log lines are already converted by then, but those bound to a child logger are not. pino's own serializer
    // would convert them again.
    serializers: { err: (error: unknown) => tellError(error) },
    // Levels by name, so that readers need not know pino's numbers.
    formatters: { level: (label: string) => ({ level: label }), log: (object: Record<string, unknown>) => censor(object) },
    mixin: traceFields,
    // pino does not format the fields of a child logger.
    redact: { paths: [...secretKeys], censor: CENSORED },
  };
  // Not pino's own destination. With a slow reader, it either loses its buffer when the process ends, or blocks the whole
  // process (even signals) until the reader catches up.
  if (!stream.isTTY) return pino({ ...options, hooks: { streamWrite: toPrintableLine } }, stream);
  return pino({
    ...options,
    hooks: { streamWrite: toPrettyLine },
    transport: { target: 'pino-pretty', options: { destination, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' } },
  });
}
