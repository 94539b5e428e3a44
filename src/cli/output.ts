// Output of the command line: text on stdout, errors on stderr.
import { visibleLines } from '../platform/text.ts';

/**
 * Prints data to stdout: one or more lines, or JSON. Escapes everything that a terminal would interpret. Callers that
 * insert text from others must keep it from starting a line of its own (see `printable`).
 */
export function write(text: string): void {
  process.stdout.write(`${visibleLines(text)}\n`);
}

/** Prints to stderr in the same way. */
export function complain(text: string): void {
  process.stderr.write(`${visibleLines(text)}\n`);
}

/**
 * Returns the width of the terminal that stdout is, in columns; null: stdout is no terminal, or one that does not say.
 * `COLUMNS` goes before what the terminal says, as for other programs.
 */
export function terminalWidth({ isTTY, columns }: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'> = process.stdout, environment: NodeJS.ProcessEnv = process.env): number | null {
  if (!isTTY) return null;
  const width = /^[1-9]\d{0,3}$/.test(environment['COLUMNS'] ?? '') ? Number(environment['COLUMNS']) : columns;
  return width > 0 ? width : null;
}
