// Makes text from others (callers, DigitalOcean, anyone who can write to a store) safe to show: bounded in length and
// unable to move the cursor, start a new line, or reverse the direction of adjacent text.
import type { Json } from './json.ts';
import { textOf } from './json.ts';

// DigitalOcean's messages have at most 500 characters, and reasons 1,000.
const SHOWN_LENGTH = 1_000;
const PRINTED_LENGTH = 2_000;
// Deeper than anything we print.
const MAX_DEPTH = 40;

// Control characters (C0, DEL, C1), format characters (bidi, zero width, tags), line and paragraph separators, lone
// surrogates, and everything else without a glyph, except the two variation selectors that choose how an emoji is drawn.
const hidden = /[[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Default_Ignorable_Code_Point}]--[\ufe0e\ufe0f]]/gv;

const shortForms: Readonly<Record<string, string>> = { '\n': String.raw`\n`, '\r': String.raw`\r`, '\t': String.raw`\t` };

/** Shortens a text to at most `max` UTF-16 units, ending in `…`. Never splits a surrogate pair. */
export function shorten(text: string, max: number): string {
  if (text.length <= max) return text;
  const isPairCut = /[\ud800-\udbff]/.test(text.charAt(max - 2));
  return `${text.slice(0, isPairCut ? max - 2 : max - 1)}…`;
}

/** Whether a text has more than `max` characters, counted as Postgres, JSON Schema and Zod do: an emoji is one, though JavaScript counts two. */
export function isLongerThan(text: string, max: number): boolean {
  if (text.length <= max) return false;
  return text.length > 2 * max || text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0) > max;
}

/** The text without what Postgres cannot store: NUL characters, and halves of surrogate pairs. */
export function withoutUnstorable(text: string): string {
  return text.replaceAll('\0', '').toWellFormed();
}

/** A scalar as text of at most 1,000 characters; the fallback for what is absent or no scalar. */
export function shortTextOf(value: Json | undefined, fallback = ''): string {
  return shorten(textOf(value, fallback), SHOWN_LENGTH);
}

/**
 * Writes every invisible character as an escape, such as `\n`, `\x1b` or `\u202e`. Output of JSON.stringify stays the
 * same JSON.
 */
export function visible(text: string): string {
  return text.replaceAll(hidden, (character) => shortForms[character] ?? escapeOf(character));
}

/** Like {@link visible}, but keeps line breaks and tabs. */
export function visibleLines(text: string): string {
  return text.replaceAll(hidden, (character) => (character === '\n' || character === '\t' ? character : (shortForms[character] ?? escapeOf(character))));
}

/** From DEL upwards, uses JSON's escapes: one-line JSON stays valid and keeps its meaning. */
function escapeOf(character: string): string {
  const code = character.charCodeAt(0);
  if (code <= 0x1f) return String.raw`\x${code.toString(16).padStart(2, '0')}`;
  return Array.from({ length: character.length }, (_, index) => String.raw`\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`).join('');
}

/** Returns the same value, but with every string as one printable line of at most 2,000 characters. */
export function printable<T>(value: T): T {
  // The shape stays: strings only become other strings.
  return mapTexts(value, (text) => visible(shorten(text, PRINTED_LENGTH)), 0) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
}

/** A number with its noun, which takes an `s` in the plural: `1 saga`, `2 sagas`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Returns the same value with every string cut at 2,000 characters. Only user data may be longer in a saga. */
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
