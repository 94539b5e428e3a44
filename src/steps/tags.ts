// The tags that arcadia-cloud puts on its droplets. Callers must not set them.

/** On every droplet that arcadia-cloud makes. */
export const MANAGED_TAG = 'managed-by-arcadia-cloud';

export const SAGA_TAG_PREFIX = 'arcadia-saga-';
export const WAVE_TAG_PREFIX = 'arcadia-wave-';

/** Names the saga that adopted a droplet. No proof that we made it, so nothing is ever destroyed for bearing it. */
export const ADOPTION_TAG_PREFIX = 'arcadia-adopted-';

/** Whether a tag names a saga, by its full id or by the first characters of it. */
export function isSagaTag(tag: string): boolean {
  return tag.toLowerCase().startsWith(SAGA_TAG_PREFIX);
}

/** Whether a tag names the saga that adopted a droplet. */
export function isAdoptionTag(tag: string): boolean {
  return tag.toLowerCase().startsWith(ADOPTION_TAG_PREFIX);
}

/** Tags that callers must not set: they would make us take one droplet for another. DigitalOcean's tags ignore case. */
export function isReservedTag(tag: string): boolean {
  const lower = tag.toLowerCase();
  return isSagaTag(tag) || isAdoptionTag(tag) || lower.startsWith(WAVE_TAG_PREFIX) || lower === MANAGED_TAG;
}
