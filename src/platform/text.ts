// Text that others wrote (callers, DigitalOcean, whoever can write to a store), made fit to be shown: of a bounded length,
// and unable to move a cursor, to begin a line of its own, or to turn the text beside it around.
import type { Json } from './json.ts';
import { textOf } from './json.ts';

// A message of DigitalOcean's has 500 characters at most, and a reason 1,000.
const SHOWN_LENGTH = 1_000;
const PRINTED_LENGTH = 2_000;
// Deeper than anything that is printed.
const MAX_DEPTH = 40;

// Controls (C0, DEL, C1), format characters (bidi, zero width, tags), separators of lines and paragraphs, halves of
// surrogate pairs, and all else that has no glyph; but for the two that say how an emoji is drawn.
const hidden = /[[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Default_Ignorable_Code_Point}]--[\ufe0e\ufe0f]]/gv;

const shortForms: Readonly<Record<string, string>> = { '\n': String.raw`\n`, '\r': String.raw`\r`, '\t': String.raw`\t` };

/** The text, or its beginning and `…`: at most `max` UTF-16 units, never with half a surrogate pair at its end. */
export function shorten(text: string, max: number): string {
  if (text.length <= max) return text;
  const isPairCut = /[\ud800-\udbff]/.test(text.charAt(max - 2));
  return `${text.slice(0, isPairCut ? max - 2 : max - 1)}…`;
}

/** A scalar as text of at most 1,000 characters; the fallback for what is absent or no scalar. */
export function shortTextOf(value: Json | undefined, fallback = ''): string {
  return shorten(textOf(value, fallback), SHOWN_LENGTH);
}

/** The text with every character that cannot be seen written as an escape, such as `\n`, `\x1b` or `\u202e`. Of JSON that JSON.stringify made, it is the same JSON. */
export function visible(text: string): string {
  return text.replaceAll(hidden, (character) => shortForms[character] ?? escapeOf(character));
}

/** The same, but the text keeps its own line breaks and tabs. */
export function visibleLines(text: string): string {
  return text.replaceAll(hidden, (character) => (character === '\n' || character === '\t' ? character : (shortForms[character] ?? escapeOf(character))));
}

/** From DEL on as JSON has it: JSON on one line stays JSON, and means the same. */
function escapeOf(character: string): string {
  const code = character.charCodeAt(0);
  if (code <= 0x1f) return String.raw`\x${code.toString(16).padStart(2, '0')}`;
  return Array.from({ length: character.length }, (_, index) => String.raw`\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`).join('');
}

/** The same value, with each text in it as one line of at most 2,000 characters that can be printed on a terminal. */
export function printable<T>(value: T): T {
  // The shape stays: only strings are exchanged for strings.
  return mapTexts(value, (text) => visible(shorten(text, PRINTED_LENGTH)), 0) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
}

/** The same value, with each text in it cut at 2,000 characters: more than any that a saga accepts, but for user data. */
export function withShortTexts<T>(value: T): T {
  return mapTexts(value, (text) => shorten(text, PRINTED_LENGTH), 0) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
}

function mapTexts(value: unknown, map: (text: string) => string, depth: number): unknown {
  if (typeof value === 'string') return map(value);
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (depth === MAX_DEPTH) return '…';
  if (Array.isArray(value)) return value.map((entry) => mapTexts(entry, map, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [map(key), mapTexts(entry, map, depth + 1)]));
}
