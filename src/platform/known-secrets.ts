// Finds the owner of a secret in a time that reveals nothing about the known secrets.
import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * Creates a function that finds the owner of a secret; null if unknown. It compares digests, which all have the same
 * length, and always compares all of them. So neither the length of a secret nor its place in the list affects the
 * duration.
 */
export function knownSecrets<Owner extends Readonly<{ secret: string }>>(owners: readonly Owner[]): (given: string) => Owner | null {
  const known = owners.map((owner) => ({ owner, digest: digestOf(owner.secret) }));
  return (given) => {
    const digest = digestOf(given);
    let found: Owner | null = null;
    for (const candidate of known) found = timingSafeEqual(digest, candidate.digest) ? candidate.owner : found;
    return found;
  };
}

/** Hashes a text, so that the digest does not reveal it. */
export function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
