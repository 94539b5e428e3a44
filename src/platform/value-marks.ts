// Marks in place of the values of a refused request: people see which fields it had, and of which types. A malformed
// request may hold user data anywhere.
import { shorten } from './text.ts';

const MAX_NAMES = 50;
const MAX_NAME_LENGTH = 100;

const mark = /^\[(?:an object|a list of \d{1,9}|a (?:string|number|boolean)|null|\d{1,9} more fields)\]$/;

/** Whether a value is a mark, such as `[a string]`. */
export function isMark(value: unknown): boolean {
  return typeof value === 'string' && mark.test(value);
}

/**
 * Replaces every value by a mark. Keeps the first field names, down to `depth` levels of objects. Idempotent.
 *
 * @param depth 0: an object is replaced as a whole
 */
export function namesIn(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || depth === 0) return markOf(value);
  const entries = Object.entries(value);
  const named = entries.slice(0, MAX_NAMES).map(([name, entry]) => [shorten(name, MAX_NAME_LENGTH), namesIn(entry, depth - 1)] as const);
  return Object.fromEntries(entries.length > MAX_NAMES ? [...named, ['…', `[${entries.length - MAX_NAMES} more fields]`]] : named);
}

/** The mark of a value: its type and, for a list, its length. */
export function markOf(value: unknown): string {
  if (typeof value === 'string') return isMark(value) ? value : '[a string]';
  if (Array.isArray(value)) return `[a list of ${value.length}]`;
  if (typeof value === 'object') return value === null ? '[null]' : '[an object]';
  return `[a ${typeof value}]`;
}
