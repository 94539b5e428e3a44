// Secrets: the input fields that a saga's definition declares secret. They are sealed before the saga is written, opened
// for the step that needs one (see open-secret.ts), and erased by the transition after which no step needs them (see
// commit.ts). The input itself only shows that a secret exists, and its size.
import { z } from 'zod';
import type { Json, JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { BrokenSealError, fingerprint, seal } from '../platform/key-ring.ts';

/** Stored next to the input, in the columns `sealed_user_data` and `user_data_fingerprint`: see {@link pack}. */
export type Sealed = Readonly<{ value: string; fingerprint: string }>;

// Sealed in every saga, because it was sealed before definitions declared secrets. The format is the same in rows of all
// versions.
const USER_DATA = 'user_data';

/** The context key with the id of the encryption key that the current step lacks; null once it has it. */
export const MISSING_KEY = 'missing_encryption_key';

const textsSchema = z.record(z.string(), z.string());

/** Returns the names of a saga's secret fields. */
export function secretsOf({ secrets = [] }: Readonly<{ secrets?: readonly string[] }>): readonly string[] {
  return [...new Set([USER_DATA, ...secrets])];
}

/** Returns which of these fields contain something to seal, so that a key is required. */
export function filledSecrets(secrets: readonly string[], input: JsonObject): string[] {
  return secrets.filter((field) => typeof input[field] === 'string');
}

/**
 * Returns which secrets a schema has moved: their text is in no field of theirs any more, but elsewhere in the input.
 *
 * @param given the input before its schema was applied
 */
export function movedSecrets(secrets: readonly string[], given: JsonObject, input: JsonObject): string[] {
  const gone = secrets.filter((field) => typeof given[field] === 'string' && given[field] !== '' && (input[field] ?? null) === null);
  if (gone.length === 0) return [];
  const open = textsIn(withoutFields(input, secrets));
  // What was given in another field too has not moved from this one.
  const others = textsIn(withoutFields(given, secrets));
  return gone.filter((field) => open.has(given[field]) && !others.has(given[field]));
}

function withoutFields(input: JsonObject, fields: readonly string[]): Json[] {
  return Object.entries(input).flatMap(([field, value]) => (value === undefined || fields.includes(field) ? [] : [value]));
}

function textsIn(values: readonly Json[]): ReadonlySet<Json | undefined> {
  const texts = new Set<string>();
  JSON.stringify(values, (_key, value: unknown) => {
    if (typeof value === 'string') texts.add(value);
    return value;
  });
  return texts;
}

/**
 * Removes the secrets from a new saga's input.
 *
 * @returns the input with `[sealed, 312 bytes]` in place of each secret, and the sealed values; null if there are none
 * @throws {RangeError} if there are secrets and the key ring is empty
 */
export function sealInput(keyRing: KeyRing, sagaId: string, input: JsonObject, secrets: readonly string[]): { input: JsonObject; sealed: Sealed | null } {
  const texts = Object.entries(input).flatMap(([field, text]) => (typeof text === 'string' && secrets.includes(field) ? [[field, text] as const] : []));
  if (texts.length === 0) return { input, sealed: null };
  const each = (make: (owner: string, text: string) => string) => Object.fromEntries(texts.map(([field, text]) => [field, make(secretOwner(sagaId, field), text)]));
  return {
    input: markSecrets(input, secrets),
    sealed: { value: pack(each((owner, text) => seal(keyRing, owner, text)), secrets), fingerprint: pack(each((owner, text) => fingerprint(keyRing, owner, text)), secrets) },
  };
}

/** Replaces each secret of an input, whatever its type, by `[sealed, 312 bytes]`. */
export function markSecrets(input: JsonObject, secrets: readonly string[]): JsonObject {
  return withMarks('sealed', input, secrets);
}

/** Replaces each secret of an input that nobody sealed by `[erased, 312 bytes]`, as the end of a saga does. */
export function eraseSecrets(input: JsonObject, secrets: readonly string[]): JsonObject {
  return withMarks('erased', input, secrets);
}

function withMarks(what: 'sealed' | 'erased', input: JsonObject, secrets: readonly string[]): JsonObject {
  const marks = Object.entries(input).flatMap(([field, value]) => ((value ?? null) !== null && secrets.includes(field) ? [[field, markOf(what, value)] as const] : []));
  return marks.length === 0 ? input : { ...input, ...Object.fromEntries(marks) };
}

function markOf(what: 'sealed' | 'erased', secret: Json | undefined): string {
  return `[${what}, ${sizeOfSecret(secret)} bytes]`;
}

/** Returns the size of a secret in bytes, as its mark shows it. */
export function sizeOfSecret(secret: Json | undefined): number {
  return Buffer.byteLength(typeof secret === 'string' ? secret : JSON.stringify(secret));
}

const mark = /^\[(?:sealed|erased), (\d+) bytes\]$/;

/** Whether a text is the mark that {@link sealInput}, or the end of a saga, puts in place of a secret. */
export function isSealedMark(text: unknown): boolean {
  return typeof text === 'string' && mark.test(text);
}

/** Returns the size that a mark shows; null if the text is none. */
export function sizeInMark(text: unknown): number | null {
  const [, size] = typeof text === 'string' ? (mark.exec(text) ?? []) : [];
  return size === undefined ? null : Number(size);
}

/** Returns the fields of an input that hold the mark of a secret instead of a value. */
export function markedFields(input: unknown): string[] {
  if (typeof input !== 'object' || input === null) return [];
  return Object.entries(input).flatMap(([field, value]) => (isSealedMark(value) ? [field] : []));
}

/** Returns the owner of a field's sealed value: it opens only for this saga and this field. */
export function secretOwner(sagaId: string, field: string): string {
  return field === USER_DATA ? sagaId : `${sagaId} ${field}`;
}

/**
 * Builds the value of a column: the text itself if `user_data` is the saga's only secret, as older versions read it; else
 * JSON by field.
 */
function pack(texts: Readonly<Record<string, string>>, secrets: readonly string[]): string {
  const { [USER_DATA]: userData } = texts;
  return userData !== undefined && secrets.length === 1 ? userData : JSON.stringify(texts);
}

/**
 * Parses a column into texts by field.
 *
 * @throws {BrokenSealError}
 */
export function unpack(column: string | null): Readonly<Record<string, string>> {
  if (column === null) return {};
  if (!column.startsWith('{')) return { [USER_DATA]: column };
  try {
    return textsSchema.parse(JSON.parse(column));
  } catch {
    throw new BrokenSealError();
  }
}
