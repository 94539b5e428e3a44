// Hashes of passwords: scrypt with OWASP's parameters, written as a PHC string ($scrypt$ln=17,r=8,p=1$salt$hash).
// https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
// https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
import type { ScryptOptions } from 'node:crypto';
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

/** A parsed hash. */
export type PasswordHash = Readonly<{ ln: number; r: number; p: number; salt: Buffer; hash: Buffer }>;

const PARAMETERS = { ln: 17, r: 8, p: 1 } as const;
const SALT_BYTES = 16;
const HASH_BYTES = 32;

// Weaker ones can be guessed from a stolen file; stronger ones would use up the memory of the process.
const MIN_LN = 14;
const MAX_LN = 18;
const MAX_R = 16;
const MAX_P = 4;

const PHC = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{16,86})\$([A-Za-z0-9+/]{22,86})$/;

/** Hashes a password with a new salt. Takes some tenths of a second and 128 MiB. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derive(password, { ...PARAMETERS, salt, hash: Buffer.alloc(HASH_BYTES) });
  const { ln, r, p } = PARAMETERS;
  return `$scrypt$ln=${ln},r=${r},p=${p}$${withoutPadding(salt)}$${withoutPadding(hash)}`;
}

/** Parses a hash; null if it is none, or if its parameters are too weak or too strong. */
export function parsePasswordHash(text: string): PasswordHash | null {
  const found = PHC.exec(text);
  if (found === null) return null;
  const [, ln, r, p, salt = '', hash = ''] = found;
  const parsed = { ln: Number(ln), r: Number(r), p: Number(p), salt: Buffer.from(salt, 'base64'), hash: Buffer.from(hash, 'base64') };
  const isUsable = parsed.ln >= MIN_LN && parsed.ln <= MAX_LN && parsed.r >= 8 && parsed.r <= MAX_R && parsed.p >= 1 && parsed.p <= MAX_P;
  return isUsable ? parsed : null;
}

/** Whether a password is the one that was hashed. Takes as long for a wrong one. */
export async function isPassword(password: string, expected: PasswordHash): Promise<boolean> {
  return timingSafeEqual(await derive(password, expected), expected.hash);
}

/** A hash of no password: checking against it takes as long as checking against that of a user. */
export const hashOfNobody: PasswordHash = { ...PARAMETERS, salt: randomBytes(SALT_BYTES), hash: randomBytes(HASH_BYTES) };

async function derive(password: string, { ln, r, p, salt, hash }: PasswordHash): Promise<Buffer> {
  const cost = 2 ** ln;
  const options: ScryptOptions = { N: cost, r, p, maxmem: 129 * cost * r + 128 * r * p + 1_048_576 };
  return new Promise((resolve, reject) => {
    // Unicode has several ways to write an é; keyboards differ in which one they send.
    scrypt(password.normalize('NFKC'), salt, hash.length, options, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

function withoutPadding(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '');
}
