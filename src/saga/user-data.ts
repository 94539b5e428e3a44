// The field `user_data` of a saga's input, which often holds secrets. It is sealed before the saga is written, opened when a
// step needs it, and erased by the transition after which no step goes forward any more (see commit.ts). In the input itself stands only that there is some, and its size.
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { BrokenSealError, fingerprint, matchesFingerprint, open, seal } from '../platform/key-ring.ts';
import type { Claim } from './step.ts';
import { StaleRevisionError } from './step.ts';

/** What is stored beside the input: see the columns of `arcadia.sagas`. */
export type SealedUserData = Readonly<{ value: string; fingerprint: string }>;

/** Whether there is user data in an input, and so a key is needed. */
export function hasUserData(input: JsonObject): boolean {
  return typeof input['user_data'] === 'string';
}

/**
 * Takes the user data out of a new saga's input.
 *
 * @returns the input with `[sealed, 312 bytes]` in its place, and the sealed value; null where there is none
 * @throws {RangeError} when there is some, and the key ring is empty
 */
export function sealInput(keyRing: KeyRing, sagaId: string, input: JsonObject): { input: JsonObject; sealed: SealedUserData | null } {
  const userData = input['user_data'];
  if (typeof userData !== 'string') return { input, sealed: null };
  return {
    input: { ...input, user_data: `[sealed, ${Buffer.byteLength(userData)} bytes]` },
    sealed: { value: seal(keyRing, sagaId, userData), fingerprint: fingerprint(keyRing, sagaId, userData) },
  };
}

/** Whether a text is what {@link sealInput} puts in the place of user data. */
export function isSealedMark(text: unknown): boolean {
  return typeof text === 'string' && /^\[(?:sealed|erased), \d+ bytes\]$/.test(text);
}

/** The user data of a saga as it is stored: `shown` stands in the input. */
export type StoredUserData = Readonly<{ shown: string | null; fingerprint: string | null }>;

/**
 * Whether an input has the same user data as a saga that stands, be it erased meanwhile.
 *
 * @throws {MissingKeyError} when nobody can tell any more, as the key was taken out of the ring
 */
export function isSameUserData(keyRing: KeyRing, sagaId: string, input: JsonObject, stored: StoredUserData): boolean {
  const userData = input['user_data'];
  if (typeof userData !== 'string' || stored.fingerprint === null) return (userData ?? null) === stored.shown;
  return matchesFingerprint(keyRing, sagaId, userData, stored.fingerprint);
}

/**
 * Reads and opens a saga's user data.
 *
 * @throws {StaleRevisionError} when the saga has moved on
 * @throws {MissingKeyError} when this process lacks the key
 * @throws {BrokenSealError} when the sealed value was changed, belongs to another saga, or is gone
 */
export async function openUserData(db: Pick<Database, 'run'>, keyRing: KeyRing, { sagaId, revision }: Claim): Promise<string> {
  const [row] = await db.run(
    'user_data.read',
    (sql) => sql<(StoredUserData & { sealed: string | null })[]>`
      select sealed_user_data as sealed, user_data_fingerprint as fingerprint, input->>'user_data' as shown
      from arcadia.sagas where id = ${sagaId} and revision = ${revision}`,
  );
  if (row === undefined) throw new StaleRevisionError(`saga ${sagaId} has moved on from revision ${revision}`);
  if (row.sealed !== null) return open(keyRing, sagaId, row.sealed);
  // Started by a version that did not seal.
  if (row.fingerprint === null && row.shown !== null) return row.shown;
  throw new BrokenSealError();
}
