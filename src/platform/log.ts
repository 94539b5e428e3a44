// What we log through. The shape of a pino logger, without pino: whoever only starts sagas need not install it.

interface LogLine {
  (fields: object, message?: string): void;
  (message: string): void;
}

/** A logger: pino's, or another of this shape. */
export type Log = Readonly<{
  /** The level of what is logged. */
  level: string;
  trace: LogLine;
  debug: LogLine;
  info: LogLine;
  warn: LogLine;
  error: LogLine;
  fatal: LogLine;
  silent: LogLine;
  isLevelEnabled(level: string): boolean;
  /** A logger whose lines carry these fields too. */
  child(fields: object, options?: { level?: string }): Log;
}>;

const say: LogLine = () => undefined;

/** A logger that says nothing: for tests, and for commands that print data. */
export const silentLog: Log = { level: 'silent', trace: say, debug: say, info: say, warn: say, error: say, fatal: say, silent: say, isLevelEnabled: () => false, child: () => silentLog };
