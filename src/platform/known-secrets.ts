// Whose secret was given? Told in a time that says nothing of the secrets that are known.
import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * Makes a function that finds what a secret belongs to; null where nobody has it. It compares digests, which are of one length,
 * and always all of them: neither the length of a secret nor its place in the list changes how long that takes.
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

/** A text's digest, from which nobody learns the text. */
export function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
