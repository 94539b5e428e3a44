// The keys that encrypt secrets at rest with AES-256-GCM. The newest key seals; each value opens with the key that sealed
// it. Keys are held as KeyObjects, which appear neither in JSON nor in logs.
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

type EncryptionKey = Readonly<{
  /** Derived from the key itself, so that an id never refers to a different key. Not secret. */
  id: string;
  sealing: KeyObject;
  fingerprinting: KeyObject;
  tokens: KeyObject;
}>;

/** Keys, newest first. The first one seals; all of them open. */
export type KeyRing = Readonly<{ keys: readonly EncryptionKey[] }>;

/** A ring without keys. It cannot seal. */
export const emptyKeyRing: KeyRing = { keys: [] };

const SYNTAX =
  'expected keys separated by commas, newest first, each once, each 32 random bytes in base64, as `openssl rand -base64 32` prints them';

/** Thrown for an invalid key ring. The message says what was expected and contains nothing of the text. */
export class KeyRingError extends Error {
  override readonly name = 'KeyRingError';
  readonly code = 'invalid_key_ring';
}

/** Thrown if the ring lacks the key that sealed a value. */
export class MissingKeyError extends Error {
  override readonly name = 'MissingKeyError';
  readonly code = 'encryption_key_missing';
  readonly keyId: string;

  constructor(keyId: string) {
    super(`sealed with the key ${keyId}, which is not among this process's ARCADIA_ENCRYPTION_KEYS`);
    this.keyId = keyId;
  }
}

/** Thrown if a sealed value was changed, truncated, or belongs to another owner. */
export class BrokenSealError extends Error {
  override readonly name = 'BrokenSealError';
  readonly code = 'broken_seal';

  constructor() {
    super('the sealed value was changed since it was sealed, or was copied from elsewhere');
  }
}

const VERSION = 'v1';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Parses a key ring in the format of ARCADIA_ENCRYPTION_KEYS.
 *
 * @throws {KeyRingError}
 */
export function parseKeyRing(text: string): KeyRing {
  const keys = text.split(',').map((entry) => parseKey(entry.trim()));
  if (new Set(keys.map(({ id }) => id)).size !== keys.length) throw new KeyRingError(SYNTAX);
  return { keys };
}

/** Generates a key in the format that {@link parseKeyRing} reads. */
export function generateKey(): string {
  return randomBytes(32).toString('base64');
}

function parseKey(entry: string): EncryptionKey {
  if (!/^[\w+/-]{43}=?$/.test(entry)) throw new KeyRingError(SYNTAX);
  const bytes = Buffer.from(entry, 'base64');
  // A key of zeros comes from a template, not from a random generator.
  if (bytes.every((byte) => byte === 0)) throw new KeyRingError(SYNTAX);
  return {
    id: derive(bytes, 'id').subarray(0, 4).toString('hex'),
    sealing: createSecretKey(bytes),
    fingerprinting: createSecretKey(derive(bytes, 'fingerprint')),
    tokens: createSecretKey(derive(bytes, 'token')),
  };
}

function derive(key: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, '', `arcadia ${purpose}`, 32));
}

/**
 * Seals a text with the newest key: `v1.<key's id>.<nonce>.<tag>.<data>`.
 *
 * @param owner the owner of the text; the sealed value opens only for this owner
 * @throws {RangeError} if the ring is empty
 */
export function seal(ring: KeyRing, owner: string, text: string): string {
  const { id, sealing } = newest(ring);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', sealing, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(owner));
  const data = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return [VERSION, id, ...[nonce, cipher.getAuthTag(), data].map((part) => part.toString('base64url'))].join('.');
}

/**
 * Opens a sealed text.
 *
 * @throws {MissingKeyError} {BrokenSealError}
 */
export function open(ring: KeyRing, owner: string, sealed: string): string {
  const [version, id = '', ...parts] = sealed.split('.');
  const [nonce, tag, data] = parts.map((part) => Buffer.from(part, 'base64url'));
  if (version !== VERSION || nonce?.length !== NONCE_BYTES || tag?.length !== TAG_BYTES || data === undefined || parts.length !== 3) throw new BrokenSealError();
  const key = ring.keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw /^[0-9a-f]{8}$/.test(id) ? new MissingKeyError(id) : new BrokenSealError();
  const decipher = createDecipheriv('aes-256-gcm', key.sealing, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(owner)).setAuthTag(tag);
  try {
    return Buffer.concat([decipher.update(data), decipher.final()]).toString();
  } catch {
    throw new BrokenSealError();
  }
}

/**
 * Computes a fingerprint that recognizes the same text of the same owner after the sealed value is deleted: `<key's
 * id>.<HMAC>`. Without the key, it cannot be used to guess the text.
 *
 * @throws {RangeError} if the ring is empty
 */
export function fingerprint(ring: KeyRing, owner: string, text: string): string {
  return fingerprintWith(newest(ring), owner, text);
}

/**
 * Whether a text matches a fingerprint.
 *
 * @throws {MissingKeyError} if the fingerprint's key is no longer in the ring
 */
export function matchesFingerprint(ring: KeyRing, owner: string, text: string, known: string): boolean {
  const [id = ''] = known.split('.', 1);
  const key = ring.keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw new MissingKeyError(id);
  const [a, b] = [Buffer.from(fingerprintWith(key, owner, text)), Buffer.from(known)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/**
 * Makes a token that nobody can guess, and that can be made again: 32 bytes as base64url.
 *
 * @param owner whose it is
 * @param keyId the key that made it before; null: the newest
 * @throws {RangeError} when the ring is empty; {MissingKeyError}
 */
export function makeToken(ring: KeyRing, owner: string, keyId: string | null): Readonly<{ keyId: string; token: string }> {
  const key = keyId === null ? newest(ring) : ring.keys.find(({ id }) => id === keyId);
  if (key === undefined) throw new MissingKeyError(keyId ?? '');
  return { keyId: key.id, token: createHmac('sha256', key.tokens).update(owner).digest('base64url') };
}

function fingerprintWith({ id, fingerprinting }: EncryptionKey, owner: string, text: string): string {
  return `${id}.${createHmac('sha256', fingerprinting).update(`${owner}\0${text}`).digest('base64url')}`;
}

function newest(ring: KeyRing): EncryptionKey {
  const [key] = ring.keys;
  if (key === undefined) throw new RangeError('the key ring is empty: set ARCADIA_ENCRYPTION_KEYS');
  return key;
}
