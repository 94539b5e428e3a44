// Describes what was thrown. Anything may be: no error at all, or one whose own properties throw.
import { inspect } from 'node:util';

/** The name and message of an error; other values as they would be printed. Never throws. */
export function textOfThrown(thrown: unknown): string {
  try {
    if (thrown instanceof Error) return `${thrown.name}: ${thrown.message}`;
    return typeof thrown === 'string' ? thrown : inspect(thrown, { depth: 2, breakLength: Number.POSITIVE_INFINITY, maxStringLength: 1_000, maxArrayLength: 20 });
  } catch {
    return 'something that cannot be described';
  }
}
