// How the command line prints: text on stdout, complaints on stderr.
import { visibleLines } from '../platform/text.ts';

/**
 * Prints data to stdout: one or more lines, or JSON. Nothing that a terminal would obey goes out, whoever wrote it; that no
 * text of others begins a line of its own is for whoever puts it into one (see `printable`).
 */
export function write(text: string): void {
  process.stdout.write(`${visibleLines(text)}\n`);
}

/** Prints to stderr, likewise. */
export function complain(text: string): void {
  process.stderr.write(`${visibleLines(text)}\n`);
}
