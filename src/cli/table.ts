// Tables for the terminal: no lines between rows and columns, so that grep and awk can read them. On a terminal no row is
// wider than the terminal; anywhere else nothing is cut. It makes the cells printable itself.
import { createRequire } from 'node:module';
import type StringWidth from 'string-width';
import { printable } from '../platform/text.ts';

/**
 * A column. A plain name is never cut, as for ids: a cut id can be neither copied nor searched for. `least`: the narrowest
 * that it may become; Infinity: it is left out rather than cut. `rank`: on a terminal that is too narrow, columns of higher rank are cut, then left out, before
 * those of lower rank.
 */
export type Column = string | Readonly<{ name: string; rank: number; least: number }>;

type Sized = Readonly<{ name: string; cells: readonly string[]; rank: number; least: number; width: number }>;

const GAP = 2;
// One cell as long as a message must not make all rows that wide: it runs over its column instead.
const WIDEST_COLUMN = 255;

// Each of these takes one column. The two beyond ASCII are our own: for what was cut, and for what is not known.
const PLAIN = /^[\x20-\x7e…–]*$/;

/**
 * Formats rows as a table under a line with the names of the columns. That line ends in `…` if columns are left out.
 *
 * @param maxWidth width of the terminal in columns; null: no terminal, so nothing is cut
 */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[], maxWidth: number | null): string {
  const all = columns.map((column, index) => sizeOf(column, rows.map((row) => printable(row[index] ?? ''))));
  const shown = maxWidth === null ? all : fit(all, maxWidth);
  const mark = shown.length < all.length ? ['…'] : [];
  const head = lineOf([...shown.map(({ name, width }) => pad(cutTo(name, width), width)), ...mark]);
  return [head, ...rows.map((_row, index) => lineOf(shown.map(({ cells, width }) => pad(maxWidth === null ? (cells[index] ?? '') : cutTo(cells[index] ?? '', width), width))))].join('\n');
}

function sizeOf(column: Column, cells: readonly string[]): Sized {
  const { name, rank, least } = typeof column === 'string' ? { name: column, rank: 0, least: Number.POSITIVE_INFINITY } : column;
  const width = Math.min(WIDEST_COLUMN, Math.max(...[name, ...cells].map((text) => widthOf(text))));
  return { name, cells, rank, least: Math.min(least, width), width };
}

/** Leaves out the columns that have no room even at their narrowest, and divides the room among the others. */
function fit(all: readonly Sized[], maxWidth: number): Sized[] {
  let shown = all;
  const room = () => maxWidth - (shown.length < all.length ? GAP + 1 : 0) - GAP * (shown.length - 1) - shown.reduce((sum, { least }) => sum + least, 0);
  for (const column of all.filter(({ rank }) => rank > 0).toSorted((one, other) => other.rank - one.rank)) {
    if (room() < 0) shown = shown.filter((other) => other !== column);
  }
  let spare = Math.max(0, room());
  const widths = new Map<Sized, number>();
  for (const column of shown.toSorted((one, other) => one.rank - other.rank)) {
    const width = Math.min(column.width, column.least + spare);
    spare -= width - column.least;
    widths.set(column, width);
  }
  return shown.map((column) => ({ ...column, width: widths.get(column) ?? column.width }));
}

// Made with the first text that is cut, for it takes 20 ms of CPU time.
let graphemes: Intl.Segmenter | null = null;

/** Shortens a text to a width in columns, ending in `…`. Never splits a character that is drawn as one. */
export function cutTo(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  graphemes ??= new Intl.Segmenter('en', { granularity: 'grapheme' });
  let kept = '';
  let used = 0;
  for (const { segment } of graphemes.segment(text)) {
    used += widthOf(segment);
    if (used > width - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}

let stringWidth: typeof StringWidth | null = null;

/** Columns that a text takes. Loading string-width takes 50 ms of CPU time, for an expression that knows all emoji. */
function widthOf(text: string): number {
  if (PLAIN.test(text)) return text.length;
  if (stringWidth === null) {
    const loaded: { default: typeof StringWidth } = createRequire(import.meta.url)('string-width');
    stringWidth = loaded.default;
  }
  return stringWidth(text);
}

function lineOf(cells: readonly string[]): string {
  return cells.join(' '.repeat(GAP)).trimEnd();
}
