// Removes secrets from what people and programs may see of a saga. Secrets are sealed before a saga is written; this is
// for what others wrote directly into Postgres or a queue.
import type { JsonObject } from '../platform/json.ts';
import type { Saga } from './saga.ts';
import { isSealedMark, secretsOf } from './secrets.ts';

/** Hides the secrets that a process's definitions name. */
export type Redaction = Readonly<{
  /** Redacts a saga. */
  saga<Shown extends Pick<Saga, 'name' | 'status' | 'input' | 'context'>>(saga: Shown): Shown;
  /**
   * Returns the value without any secret in it, in any spelling of its name, and without anything nested deeper than 48
   * levels.
   */
  value<T>(value: T): T;
}>;

/** Replaces a removed value. */
const REDACTED = '[redacted]';

// Deeper than any accepted input with what surrounds it. Output is serialized recursively, so a single row with unbounded
// nesting must not break the page that lists it.
const MAX_DEPTH = 48;
const LEFT_OUT = '[left out: nested too deep]';

type Definitions = Readonly<Record<string, Readonly<{ secrets?: readonly string[] }>>>;

/** Creates the redaction for the secrets that these definitions name. */
export function redactionOf(definitions: Definitions): Redaction {
  const secrets = new Set([...secretsOf({}), ...Object.values(definitions).flatMap(secretsOf)].map(spelling));
  // The shape stays: only strings are replaced, by a string.
  const value = <T>(given: T) => redact(given, (key) => secrets.has(spelling(key)), 1) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
  return {
    value,
    saga: (saga) => {
      // Until a worker takes it, its secrets may be unsealed, and this process does not know which fields are secret.
      const mayBeBare = saga.status === 'pending' && !Object.hasOwn(definitions, saga.name);
      return { ...saga, input: mayBeBare ? withoutTexts(saga.input) : value(saga.input), context: value(saga.context) };
    },
  };
}

/** Finds the field in which a request would write back a redacted value; null: there is none. */
export function redactedFieldIn(value: unknown, field = 'data'): string | null {
  if (typeof value === 'string') return value.includes(REDACTED) ? field : null;
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, entry] of Object.entries(value)) {
    const found = redactedFieldIn(entry, Array.isArray(value) ? field : key);
    if (found !== null) return found;
  }
  return null;
}

/** Keeps only names, numbers, booleans and seal marks. */
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

/** `userData`, `user-data` and `USER_DATA` are the same name. */
function spelling(key: string): string {
  return key.toLowerCase().replaceAll(/[_-]/g, '');
}
