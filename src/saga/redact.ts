// What people and programs may see of a saga: everything but its secrets. They are sealed before a saga is written; this is
// for what others put there, into Postgres or into a queue.
import type { JsonObject } from '../platform/json.ts';
import type { Saga } from './saga.ts';
import { isSealedMark, secretsOf } from './secrets.ts';

/** What hides secrets: all that the definitions of a process name. */
export type Redaction = Readonly<{
  /** A saga as one JSON document. */
  saga(saga: Saga): Saga;
  /** The same value, with every secret in it, however its name is spelled, cut out, and with what is nested deeper than 48 levels. */
  value<T>(value: T): T;
}>;

/** Stands where something was cut out. */
const REDACTED = '[redacted]';

// Deeper than any input that is accepted, with what is around it. What is shown is written as JSON, by recursion: one row
// that is nested without bounds must not be in the way of the page that lists it.
const MAX_DEPTH = 48;
const LEFT_OUT = '[left out: nested too deep]';

type Definitions = Readonly<Record<string, Readonly<{ secrets?: readonly string[] }>>>;

/** Hides what these definitions name as secret. */
export function redactionOf(definitions: Definitions): Redaction {
  const secrets = new Set([...secretsOf({}), ...Object.values(definitions).flatMap(secretsOf)].map(spelling));
  // The shape stays: only strings are exchanged for a string.
  const value = <T>(given: T) => redact(given, (key) => secrets.has(spelling(key)), 1) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
  return {
    value,
    saga: (saga) => {
      // Until a worker has taken it, its secrets may not be sealed yet, and nobody here knows which they are.
      const mayBeBare = saga.status === 'pending' && !Object.hasOwn(definitions, saga.name);
      return { ...saga, input: mayBeBare ? withoutTexts(saga.input) : value(saga.input), context: value(saga.context) };
    },
  };
}

/** The name of a field, under which a request would write back what was shown in the place of a secret; null: there is none. */
export function redactedFieldIn(value: unknown, field = 'data'): string | null {
  if (typeof value === 'string') return value.includes(REDACTED) ? field : null;
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, entry] of Object.entries(value)) {
    const found = redactedFieldIn(entry, Array.isArray(value) ? field : key);
    if (found !== null) return found;
  }
  return null;
}

/** Names and numbers alone. */
function withoutTexts(input: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(input).map(([key, entry]) => [key, typeof entry === 'number' || typeof entry === 'boolean' || isSealedMark(entry) ? entry : REDACTED]));
}

function redact(value: unknown, isSecret: (key: string) => boolean, depth: number): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (depth > MAX_DEPTH) return LEFT_OUT;
  if (Array.isArray(value)) return value.map((entry) => redact(entry, isSecret, depth + 1));
  const shown: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value)) {
    shown[key] = entry !== undefined && !isSealedMark(entry) && isSecret(key) ? REDACTED : redact(entry, isSecret, depth + 1);
  }
  return shown;
}

/** `userData`, `user-data` and `USER_DATA` are one name. */
function spelling(key: string): string {
  return key.toLowerCase().replaceAll(/[_-]/g, '');
}
