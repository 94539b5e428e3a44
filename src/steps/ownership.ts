// Ownership of droplets: the tags that a saga puts on its droplet, and what the tags on a droplet prove. Pure. docs/decisions
// explains why adoption and deletion require different proof.
import type { Droplet } from '../do/schemas.ts';
import { textOf } from '../platform/json.ts';
import type { Saga } from '../saga/saga.ts';
import { msBetween, msOf } from '../platform/time.ts';
import { ADOPTION_TAG_PREFIX, MANAGED_TAG, SAGA_TAG_PREFIX, WAVE_TAG_PREFIX, isAdoptionTag, isReservedTag, isSagaTag } from './tags.ts';

const SAGA_ID_TAG_PREFIX = 'arcadia-saga-id-';

// Droplets created within one wave are polled together. Wave numbers repeat after 8 1/2 hours: that bounds the number of tags
// in the account, and few droplets of a fleet share one.
const WAVE_MS = 30_000;
const WAVES = 1_024;

// DigitalOcean's created_at has whole seconds, by its own clock.
const CLOCK_TOLERANCE_MS = 60_000;

export type SagaIdentity = Pick<Saga, 'id' | 'saga8' | 'createdAt' | 'input'>;

/** Returns the tag by which a saga finds its droplet again. */
export function sagaTag(saga: Pick<Saga, 'saga8'>): string {
  return `${SAGA_TAG_PREFIX}${saga.saga8}`;
}

/** Returns the tag that proves which saga a droplet belongs to. */
export function sagaIdTag(saga: Pick<Saga, 'id'>): string {
  return `${SAGA_ID_TAG_PREFIX}${saga.id}`;
}

/** Whether a tag names the saga that a droplet belongs to, of any saga. DigitalOcean's tags ignore case. */
export function isSagaIdTag(tag: string): boolean {
  return tag.toLowerCase().startsWith(SAGA_ID_TAG_PREFIX);
}

/** Returns the full saga ids that a droplet carries, each once. A droplet of ours has one. */
export function sagaIdsOn(droplet: Pick<Droplet, 'tags'>): string[] {
  const ids = tagsOn(droplet).map((tag) => tag.toLowerCase()).filter((tag) => tag.startsWith(SAGA_ID_TAG_PREFIX)).map((tag) => tag.slice(SAGA_ID_TAG_PREFIX.length));
  return [...new Set(ids)];
}

/** Returns the tag of all droplets requested at about this time. Its list shows all of them at once. `back`: so many waves earlier. */
export function waveTag(now: Date, back = 0): string {
  return `${WAVE_TAG_PREFIX}${(Math.floor(msOf(now) / WAVE_MS) - back) % WAVES}`;
}

/** Returns how long ago a wave last ended, and when its number repeats; null if the tag is not a wave's. */
export function waveAgeMs(tag: string, now: Date): { sinceMs: number; untilNextMs: number } | null {
  const digits = tag.startsWith(WAVE_TAG_PREFIX) ? tag.slice(WAVE_TAG_PREFIX.length) : '';
  const number = Number(digits);
  if (!/^\d{1,4}$/.test(digits) || number >= WAVES) return null;
  const cycleMs = WAVES * WAVE_MS;
  const sinceBeginMs = (((msOf(now) - number * WAVE_MS) % cycleMs) + cycleMs) % cycleMs;
  return { sinceMs: sinceBeginMs - WAVE_MS, untilNextMs: cycleMs - sinceBeginMs };
}

/** Returns the wave that a droplet belongs to, by its tags; null: unknown. */
export function waveOf(droplet: Pick<Droplet, 'tags'>): string | null {
  return tagsOn(droplet).find((tag) => tag.toLowerCase().startsWith(WAVE_TAG_PREFIX)) ?? null;
}

/** Returns the tags of a saga's droplet: ours first, then the caller's, then its wave's. */
export function tagsOf(saga: Pick<Saga, 'id' | 'saga8'>, callersTags: readonly string[], wave: string): string[] {
  return [...new Set([sagaTag(saga), MANAGED_TAG, sagaIdTag(saga), ...callersTags, wave])];
}

/**
 * Returns the tag that names the saga that adopted a droplet. A created droplet never carries it: the tags of created droplets prove that
 * we created them, and the sweep destroys droplets of rolled-back sagas by that proof, in versions without adoption too.
 */
export function adoptionTag(saga: Pick<Saga, 'id'>): string {
  return `${ADOPTION_TAG_PREFIX}${saga.id}`;
}

/** Returns the tags that an adoption puts on its droplet. The one with its id is first, so that others see who adopts it. */
export function adoptionTagsOf(saga: Pick<Saga, 'id'>): string[] {
  return [adoptionTag(saga), MANAGED_TAG];
}

/** Returns the ids of the sagas that adopted a droplet, by its tags. */
export function adoptionIdsOn(droplet: Pick<Droplet, 'tags'>): string[] {
  return tagsOn(droplet).filter(isAdoptionTag).map((tag) => tag.toLowerCase().slice(ADOPTION_TAG_PREFIX.length));
}

/** Describes the tag by which a saga of any fleet, other than this adoption, claims a droplet; null: none. */
export function otherClaim(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): string | null {
  const claim = tagsOn(droplet).find((tag) => isSagaTag(tag) || tag.toLowerCase().startsWith(WAVE_TAG_PREFIX) || (isAdoptionTag(tag) && tag.toLowerCase() !== adoptionTag(saga)));
  return claim === undefined ? null : `it carries the tag ${claim}`;
}

/** Whether the droplet carries the saga's full id. Only with this proof may a droplet be deleted that is not on record. */
export function isProvenOurs(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): boolean {
  return hasTag(droplet, sagaIdTag(saga)) && otherSagaIds(droplet, saga).length === 0;
}

/** Whether the saga may adopt a droplet: it carries the saga's tag, and nothing contradicts the match. */
export function isAdoptable(droplet: Droplet, saga: SagaIdentity): boolean {
  return hasTag(droplet, sagaTag(saga)) && contradiction(droplet, saga) === null;
}

/**
 * Whether a droplet may still turn out to be the saga's: it has the saga's name, was created since the saga began, and carries
 * no tag of ours yet. DigitalOcean tags a droplet after it accepts the create. It may also be somebody else's.
 */
export function mayBecomeOurs(droplet: Droplet, saga: SagaIdentity): boolean {
  return !tagsOn(droplet).some(isReservedTag) && contradiction(droplet, saga) === null;
}

/**
 * Describes what contradicts that a droplet from a list, or from the answer to a create, is the saga's; null: nothing. Values
 * that could not be read neither confirm nor contradict.
 */
export function contradiction(droplet: Droplet, saga: SagaIdentity): string | null {
  const owner = otherOwner(droplet, saga);
  if (owner !== null) return owner;
  if (droplet.name !== null && droplet.name.toLowerCase() !== textOf(saga.input['name']).toLowerCase()) return `it is called ${droplet.name}`;
  return olderThanSaga(droplet, saga);
}

/**
 * Describes how a droplet is older than its saga; null: it is not, or its date is unknown. The full id outweighs the clocks. No
 * droplet that a saga created or adopted is older: both were refused then, and neither date changes.
 */
export function olderThanSaga(droplet: Pick<Droplet, 'tags' | 'created_at'>, saga: Pick<Saga, 'id' | 'createdAt'>): string | null {
  if (droplet.created_at === null || hasTag(droplet, sagaIdTag(saga))) return null;
  const createdBeforeMs = msBetween(droplet.created_at, saga.createdAt);
  return createdBeforeMs > CLOCK_TOLERANCE_MS ? `it was created at ${droplet.created_at}, before the saga` : null;
}

/**
 * Describes which other saga a droplet on record belongs to; null: none. Its id is the proof: it was in the answer to our own
 * create, or the droplet was found by its tag. People may rename, retag or resize it, so only another saga's full id on it counts.
 */
export function otherOwner(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): string | null {
  const [otherId] = otherSagaIds(droplet, saga);
  return otherId === undefined ? null : `it carries the tag ${otherId} of another saga`;
}

/** Describes what contradicts that a droplet is the one on record that the saga waits for and registers; null: nothing. */
export function recordContradiction(droplet: Pick<Droplet, 'tags' | 'created_at'>, saga: Pick<Saga, 'id' | 'createdAt'>): string | null {
  return otherOwner(droplet, saga) ?? olderThanSaga(droplet, saga);
}

/** Returns the tags that could be read. */
export function tagsOn(droplet: Pick<Droplet, 'tags'>): readonly string[] {
  return droplet.tags ?? [];
}

/** Whether a droplet carries a tag. DigitalOcean's tags ignore case. */
export function hasTag(droplet: Pick<Droplet, 'tags'>, tag: string): boolean {
  return tagsOn(droplet).some((candidate) => candidate.toLowerCase() === tag.toLowerCase());
}

function otherSagaIds(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): string[] {
  return tagsOn(droplet).filter((tag) => tag.toLowerCase().startsWith(SAGA_ID_TAG_PREFIX) && tag.toLowerCase() !== sagaIdTag(saga));
}
