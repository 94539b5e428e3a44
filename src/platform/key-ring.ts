// The keys that seal secrets at rest: AES-256-GCM with the newest key, opened with whichever sealed it. Keys are held as
// KeyObjects, which neither JSON nor a log can show.
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

type EncryptionKey = Readonly<{
  /** Computed from the key itself, so that a value never asks for one key and finds another under its name. Not secret. */
  id: string;
  sealing: KeyObject;
  fingerprinting: KeyObject;
}>;

/** Keys, newest first: the first one seals, all of them open. */
export type KeyRing = Readonly<{ keys: readonly EncryptionKey[] }>;

/** A ring without keys: nothing can be sealed. */
export const emptyKeyRing: KeyRing = { keys: [] };

const SYNTAX =
  'expected keys separated by commas, newest first, each once, each 32 random bytes in base64, as `openssl rand -base64 32` prints them';

/** A text that is no key ring. The message says what was expected, and nothing of the text. */
export class KeyRingError extends Error {
  override readonly name = 'KeyRingError';
  readonly code = 'invalid_key_ring';
}

/** The key that sealed a value is not in the ring. */
export class MissingKeyError extends Error {
  override readonly name = 'MissingKeyError';
  readonly code = 'encryption_key_missing';
  readonly keyId: string;

  constructor(keyId: string) {
    super(`sealed with the key ${keyId}, which is not among this process's ARCADIA_ENCRYPTION_KEYS`);
    this.keyId = keyId;
  }
}

/** A sealed value was changed, cut short, or belongs to something else. */
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
 * Reads a key ring as it stands in ARCADIA_ENCRYPTION_KEYS.
 *
 * @throws {KeyRingError}
 */
export function parseKeyRing(text: string): KeyRing {
  const keys = text.split(',').map((entry) => parseKey(entry.trim()));
  if (new Set(keys.map(({ id }) => id)).size !== keys.length) throw new KeyRingError(SYNTAX);
  return { keys };
}

/** Makes a new key, in the form that {@link parseKeyRing} reads. */
export function generateKey(): string {
  return randomBytes(32).toString('base64');
}

function parseKey(entry: string): EncryptionKey {
  if (!/^[\w+/-]{43}=?$/.test(entry)) throw new KeyRingError(SYNTAX);
  const bytes = Buffer.from(entry, 'base64');
  // Zeros, as a template leaves them, are nobody's random bytes.
  if (bytes.every((byte) => byte === 0)) throw new KeyRingError(SYNTAX);
  return {
    id: derive(bytes, 'id').subarray(0, 4).toString('hex'),
    sealing: createSecretKey(bytes),
    fingerprinting: createSecretKey(derive(bytes, 'fingerprint')),
  };
}

function derive(key: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, '', `arcadia ${purpose}`, 32));
}

/**
 * Seals a text with the newest key: `v1.<key's id>.<nonce>.<tag>.<data>`.
 *
 * @param owner what the text belongs to: the sealed value opens for this owner alone
 * @throws {RangeError} when the ring is empty
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
 * A fingerprint by which the same text of the same owner is known again when the sealed one is gone: `<key's id>.<HMAC>`.
 * Without the key, nothing can be guessed from it.
 *
 * @throws {RangeError} when the ring is empty
 */
export function fingerprint(ring: KeyRing, owner: string, text: string): string {
  return fingerprintWith(newest(ring), owner, text);
}

/**
 * Whether a text is the one that was fingerprinted.
 *
 * @throws {MissingKeyError} when the key of the fingerprint was taken out of the ring: nobody can tell
 */
export function matchesFingerprint(ring: KeyRing, owner: string, text: string, known: string): boolean {
  const [id = ''] = known.split('.', 1);
  const key = ring.keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw new MissingKeyError(id);
  const [a, b] = [Buffer.from(fingerprintWith(key, owner, text)), Buffer.from(known)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function fingerprintWith({ id, fingerprinting }: EncryptionKey, owner: string, text: string): string {
  return `${id}.${createHmac('sha256', fingerprinting).update(`${owner}\0${text}`).digest('base64url')}`;
}

function newest(ring: KeyRing): EncryptionKey {
  const [key] = ring.keys;
  if (key === undefined) throw new RangeError('the key ring is empty: set ARCADIA_ENCRYPTION_KEYS');
  return key;
}
