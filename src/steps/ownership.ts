// Whose droplet is it? Tags that a saga puts on its droplet, and what can be concluded from the tags found on one.
// Pure; see docs/decisions for why adoption and deletion ask for different proof.
import type { Droplet } from '../do/schemas.ts';
import { textOf } from '../platform/json.ts';
import type { Saga } from '../saga/saga.ts';
import { msBetween, msOf } from '../platform/time.ts';
import { MANAGED_TAG, SAGA_TAG_PREFIX, WAVE_TAG_PREFIX, isReservedTag } from './tags.ts';

const SAGA_ID_TAG_PREFIX = 'arcadia-saga-id-';

// Droplets that are made within so much time are waited for together. The numbers come round after 8 1/2 hours: there is
// an end to the tags of an account, and of a fleet only few droplets carry the same one.
const WAVE_MS = 30_000;
const WAVES = 1_024;

// DigitalOcean gives created_at in whole seconds, by its own clock.
const CLOCK_TOLERANCE_MS = 60_000;

export type SagaIdentity = Pick<Saga, 'id' | 'saga8' | 'createdAt' | 'input'>;

/** The tag by which a saga finds its droplet again. */
export function sagaTag(saga: Pick<Saga, 'saga8'>): string {
  return `${SAGA_TAG_PREFIX}${saga.saga8}`;
}

/** The tag that proves whose droplet it is. */
export function sagaIdTag(saga: Pick<Saga, 'id'>): string {
  return `${SAGA_ID_TAG_PREFIX}${saga.id}`;
}

/** The full ids of sagas that a droplet carries, each once. Of one that is ours there is one. */
export function sagaIdsOn(droplet: Pick<Droplet, 'tags'>): string[] {
  const ids = tagsOn(droplet).map((tag) => tag.toLowerCase()).filter((tag) => tag.startsWith(SAGA_ID_TAG_PREFIX)).map((tag) => tag.slice(SAGA_ID_TAG_PREFIX.length));
  return [...new Set(ids)];
}

/** The tag of the droplets that are asked for at about this time: by its list, those in flight are seen together. */
export function waveTag(now: Date): string {
  return `${WAVE_TAG_PREFIX}${Math.floor(msOf(now) / WAVE_MS) % WAVES}`;
}

/** The wave that a droplet belongs to, by its tags; null: none is known. */
export function waveOf(droplet: Pick<Droplet, 'tags'>): string | null {
  return tagsOn(droplet).find((tag) => tag.toLowerCase().startsWith(WAVE_TAG_PREFIX)) ?? null;
}

/** The tags of a saga's droplet: ours first, then the caller's, then its wave's. */
export function tagsOf(saga: Pick<Saga, 'id' | 'saga8'>, callersTags: readonly string[], wave: string): string[] {
  return [...new Set([sagaTag(saga), MANAGED_TAG, sagaIdTag(saga), ...callersTags, wave])];
}

/** Positive proof: the droplet carries the saga's full id. Only such a droplet may be deleted without being on record. */
export function isProvenOurs(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): boolean {
  return hasTag(droplet, sagaIdTag(saga)) && otherSagaIds(droplet, saga).length === 0;
}

/** The saga may take it for its own: it carries the saga's tag, and nothing speaks against it. */
export function isAdoptable(droplet: Droplet, saga: SagaIdentity): boolean {
  return hasTag(droplet, sagaTag(saga)) && contradiction(droplet, saga) === null;
}

/**
 * A droplet of the saga's name, made since the saga began, that carries no tag of ours yet. It may be ours, as
 * DigitalOcean puts the tags on a droplet after it accepted it; it may as well be somebody else's.
 */
export function mayBecomeOurs(droplet: Droplet, saga: SagaIdentity): boolean {
  return !tagsOn(droplet).some(isReservedTag) && contradiction(droplet, saga) === null;
}

/**
 * What speaks against this being the saga's droplet, where nothing but its looks says that it is: it was found by a list, or
 * is in the answer to a create. Null: nothing. What could not be read of a droplet speaks neither for it nor against it.
 */
export function contradiction(droplet: Droplet, saga: SagaIdentity): string | null {
  const owner = otherOwner(droplet, saga);
  if (owner !== null) return owner;
  if (droplet.name !== null && droplet.name.toLowerCase() !== textOf(saga.input['name']).toLowerCase()) return `it is called ${droplet.name}`;
  if (droplet.created_at === null || hasTag(droplet, sagaIdTag(saga))) return null;
  const createdBeforeMs = msBetween(droplet.created_at, saga.createdAt);
  if (createdBeforeMs > CLOCK_TOLERANCE_MS) return `it was created at ${droplet.created_at}, before the saga`;
  return null;
}

/**
 * What speaks against a droplet that the saga has on record. Its id is the proof: it stood in the answer to our own create,
 * or was adopted by its tag. Anybody may have renamed it, changed its tags or resized it since; only another saga's full id
 * on it counts. Null: nothing.
 */
export function otherOwner(droplet: Pick<Droplet, 'tags'>, saga: Pick<Saga, 'id'>): string | null {
  const [otherId] = otherSagaIds(droplet, saga);
  return otherId === undefined ? null : `it carries the tag ${otherId} of another saga`;
}

/** The tags that could be read. */
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
