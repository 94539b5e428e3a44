// The logger interface. It has the shape of a pino logger but does not depend on pino, so that a client that only starts
// sagas need not install it.

export interface LogLine {
  (fields: object, message?: string): void;
  (message: string): void;
}

/** A logger: pino's, or another of this shape. */
export type Log = Readonly<{
  /** The log level. */
  level: string;
  trace: LogLine;
  debug: LogLine;
  info: LogLine;
  warn: LogLine;
  error: LogLine;
  fatal: LogLine;
  silent: LogLine;
  isLevelEnabled(level: string): boolean;
  /** Creates a logger whose lines also carry these fields. */
  child(fields: object, options?: { level?: string }): Log;
}>;

const say: LogLine = () => undefined;

/** A logger without output, for tests and for commands that print data. */
export const silentLog: Log = { level: 'silent', trace: say, debug: say, info: say, warn: say, error: say, fatal: say, silent: say, isLevelEnabled: () => false, child: () => silentLog };
