// Decides whether a request repeats the one that started a saga. The definition may have changed since then: both may
// differ in their schema and their secrets. `arcadia.find_repeated` decides the same for SQL.
import type { Json, JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { MissingKeyError, matchesFingerprint } from '../platform/key-ring.ts';
import { isSameJson } from './given-input.ts';
import { isSealedMark, markedFields, secretOwner, sizeInMark, sizeOfSecret, unpack } from './secrets.ts';

/**
 * A request. `input`: as the schema makes it; null: it is refused, or the saga is unknown here. `given`: before it was
 * parsed; null: it is no JSON. `secrets`: the fields that the definition names now. `showsFields`: see given-input.ts.
 */
export type Asked = Readonly<{ input: JsonObject | null; given: JsonObject | null; secrets: readonly string[]; showsFields: boolean }>;

/**
 * A saga as it is stored. `given`: null if the schema changed nothing. `inputChecked`: its secrets are sealed.
 * `secretFields`: those that are not, of a saga started by SQL.
 */
export type Known = Readonly<{ id: string; input: JsonObject; given: JsonObject | null; inputChecked: boolean; secretFields: readonly string[]; fingerprint: string | null }>;

const OTHER_INPUT = 'with another input';

/**
 * Compares a request with a saga that has its idempotency key.
 *
 * @param how.revealsSecrets false: the answer must not depend on the values of secrets. Otherwise callers could guess
 *   values until one is right.
 * @returns how they differ, to end "the key was used before"; null: they are the same
 */
export function differenceFrom(keyRing: KeyRing, asked: Asked, known: Known, { revealsSecrets }: { revealsSecrets: boolean }): string | null {
  const secrets = secretFieldsOf(asked, known);
  if (!isSameBeside(secrets, asked, known) || markedFields(asked.given).some((field) => secrets.includes(field))) return OTHER_INPUT;
  const inputs = [asked.input, asked.given].filter((input) => input !== null);
  for (const field of secrets) {
    if (!revealsSecrets) {
      if (inputs.every((input) => (typeof input[field] === 'string') !== isFilled(known.input[field]))) return OTHER_INPUT;
      continue;
    }
    try {
      if (!isSameSecret(keyRing, field, asked, known)) return OTHER_INPUT;
    } catch (error) {
      if (!(error instanceof MissingKeyError)) throw error;
      return `with ${field} that can't be compared any more (it was ${error.message})`;
    }
  }
  return null;
}

/** All that was a secret when the saga was started, or is one now. */
function secretFieldsOf({ secrets }: Asked, { input, given, secretFields, fingerprint }: Known): string[] {
  return [...new Set([...secrets, ...secretFields, ...Object.keys(unpack(fingerprint)), ...markedFields(input), ...markedFields(given)])];
}

/** As the schema makes it, or as it was given: each is the same request. */
function isSameBeside(secrets: readonly string[], asked: Asked, known: Known): boolean {
  const isSame = (one: JsonObject | null, other: JsonObject | null) => one !== null && other !== null && isSameJson(without(one, secrets), without(other, secrets));
  return isSame(asked.input, known.input) || isSame(asked.given, asGiven(asked, known));
}

/** Null: not known. A schema that does not show its fields may have changed an input with secrets, and nothing was kept. */
function asGiven({ showsFields }: Asked, { input, given, inputChecked, fingerprint }: Known): JsonObject | null {
  if (!inputChecked) return input;
  return given ?? (showsFields || fingerprint === null ? input : null);
}

function isSameSecret(keyRing: KeyRing, field: string, asked: Asked, known: Known): boolean {
  const inputs = [asked.input, asked.given].filter((input) => input !== null);
  const shown = known.input[field] ?? null;
  const print = unpack(known.fingerprint)[field];
  const isSame = (value: Json): boolean => {
    if (print !== undefined) return typeof value === 'string' && matchesFingerprint(keyRing, secretOwner(known.id, field), value, print);
    // Erased before a worker could take its fingerprint: its size has to tell.
    return isSealedMark(shown) ? hasSizeOf(value, shown) : value === shown;
  };
  return inputs.some((input) => isSame(input[field] ?? null)) || isSameAsGiven(field, asked, known);
}

/** Nobody can tell any more what the schema made of a secret that it changed: its size, as it was given, has to tell. */
function isSameAsGiven(field: string, asked: Asked, known: Known): boolean {
  const mark = known.given?.[field];
  return asked.input === null && isSealedMark(mark) && mark !== known.input[field] && hasSizeOf(asked.given?.[field] ?? null, mark);
}

function hasSizeOf(value: Json, mark: unknown): boolean {
  return value !== null && sizeOfSecret(value) === sizeInMark(mark);
}

function isFilled(value: Json | undefined): boolean {
  return (value ?? null) !== null;
}

function without(input: JsonObject, fields: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(input).filter(([field]) => !fields.includes(field)));
}
