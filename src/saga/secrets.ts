// Secrets: the fields of a saga's input that its definition names as such. They are sealed before the saga is written, opened
// for the step that needs one (see open-secret.ts), and erased by the transition after which no step needs them any more (see
// commit.ts). In the input itself stands only that there is one, and its size.
import { z } from 'zod';
import type { Json, JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { BrokenSealError, fingerprint, matchesFingerprint, seal } from '../platform/key-ring.ts';

/** What is stored beside the input, in the columns `sealed_user_data` and `user_data_fingerprint`: see {@link pack}. */
export type Sealed = Readonly<{ value: string; fingerprint: string }>;

/** The secrets of a saga as they are stored. `shown`: what stands in the input, by the field. */
export type StoredSecrets = Readonly<{ shown: Readonly<Record<string, Json>>; fingerprint: string | null }>;

// Was sealed before definitions named their secrets, and is sealed in every saga. Rows of all versions have it in one form.
const USER_DATA = 'user_data';

const textsSchema = z.record(z.string(), z.string());

/** Names of the fields that are secret in a saga. */
export function secretsOf({ secrets = [] }: Readonly<{ secrets?: readonly string[] }>): readonly string[] {
  return [...new Set([USER_DATA, ...secrets])];
}

/** Which of these fields of an input hold something to be sealed, so that a key is needed. */
export function filledSecrets(secrets: readonly string[], input: JsonObject): string[] {
  return secrets.filter((field) => typeof input[field] === 'string');
}

/**
 * Takes the secrets out of a new saga's input.
 *
 * @returns the input with `[sealed, 312 bytes]` in the place of each, and what was sealed; null where there is nothing
 * @throws {RangeError} when there is something, and the key ring is empty
 */
export function sealInput(keyRing: KeyRing, sagaId: string, input: JsonObject, secrets: readonly string[]): { input: JsonObject; sealed: Sealed | null } {
  const texts = Object.entries(input).flatMap(([field, text]) => (typeof text === 'string' && secrets.includes(field) ? [[field, text] as const] : []));
  if (texts.length === 0) return { input, sealed: null };
  const each = (make: (owner: string, text: string) => string) => Object.fromEntries(texts.map(([field, text]) => [field, make(secretOwner(sagaId, field), text)]));
  return {
    input: { ...input, ...each((_owner, text) => `[sealed, ${Buffer.byteLength(text)} bytes]`) },
    sealed: { value: pack(each((owner, text) => seal(keyRing, owner, text)), secrets), fingerprint: pack(each((owner, text) => fingerprint(keyRing, owner, text)), secrets) },
  };
}

/** Whether a text is what {@link sealInput}, or the end of a saga, puts in the place of a secret. */
export function isSealedMark(text: unknown): boolean {
  return typeof text === 'string' && /^\[(?:sealed|erased), \d+ bytes\]$/.test(text);
}

/**
 * Whether a secret of an input is the one of a saga that stands, be it erased meanwhile.
 *
 * @throws {MissingKeyError} when nobody can tell any more, as the key was taken out of the ring
 */
export function isSameSecret(keyRing: KeyRing, sagaId: string, field: string, input: JsonObject, stored: StoredSecrets): boolean {
  const text = input[field];
  const known = unpack(stored.fingerprint)[field];
  if (typeof text !== 'string' || known === undefined) return (text ?? null) === (stored.shown[field] ?? null);
  return matchesFingerprint(keyRing, secretOwner(sagaId, field), text, known);
}

/** To whom the sealed value of a field belongs: it opens for this saga, and as this field, alone. */
export function secretOwner(sagaId: string, field: string): string {
  return field === USER_DATA ? sagaId : `${sagaId} ${field}`;
}

/** What stands in a column: of a saga whose one secret is `user_data` the text itself, as older versions read it; else JSON, by the field. */
function pack(texts: Readonly<Record<string, string>>, secrets: readonly string[]): string {
  const { [USER_DATA]: userData } = texts;
  return userData !== undefined && secrets.length === 1 ? userData : JSON.stringify(texts);
}

/**
 * The texts of a column, by the field.
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
