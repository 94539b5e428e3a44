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
