// Whether a droplet that bears our tags is accounted for: by a saga at work, by a saga's record. Pure. What is destroyed
// in the end is decided here, so: only on positive proof, and nothing that anybody is at work on.
import type { Droplet } from '../../do/schemas.ts';
import type { OrphanCategory } from '../orphans.ts';
import type { SagaOwner } from '../owners.ts';
import { adoptionIdsOn, contradiction, sagaIdsOn, tagsOn } from '../../steps/ownership.ts';
import { MANAGED_TAG, isAdoptionTag, isSagaTag } from '../../steps/tags.ts';

/** What this database knows about a droplet. */
export type Knowledge = Readonly<{
  /** The saga whose full id it carries, where that is one, and ours. */
  owner: SagaOwner | null;
  /** For whom it is on record as provisioned, and when it was destroyed on request, or given up. */
  provision: Readonly<{ sagaId: string; releasedAt: Date | null }> | null;
  /** When a saga destroyed it on request. */
  destroyedAt: Date | null;
  /** A saga that has this droplet on record, or is to destroy it, is not at rest, or stuck. */
  isAtWork: boolean;
}>;

export type OrphanVerdict = Readonly<{ category: OrphanCategory; reason: string; sagaId: string | null; endedAt: Date | null }>;

// As in the contract; the sync knows no step.
const ADOPTION = 'adopt_droplet';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether the orphan sweep has to look at a droplet at all. */
export function bearsOurTags(droplet: Pick<Droplet, 'tags'>): boolean {
  return tagsOn(droplet).some((tag) => tag.toLowerCase() === MANAGED_TAG || isSagaTag(tag) || isAdoptionTag(tag));
}

/** The one saga whose full id a droplet carries; null: none, several, or no id. */
export function sagaIdOn(droplet: Pick<Droplet, 'tags'>): string | null {
  const [id, ...others] = sagaIdsOn(droplet);
  return id !== undefined && others.length === 0 && UUID.test(id) ? id : null;
}

/** Judges a droplet that bears our tags; null: it is accounted for. */
export function judgeOrphan(droplet: Droplet, { owner, provision, destroyedAt, isAtWork }: Knowledge): OrphanVerdict | null {
  const sagaId = sagaIdOn(droplet);
  const unknown = (reason: string): OrphanVerdict => ({ category: 'unknown', reason, sagaId, endedAt: null });
  const surplus = (reason: string, endedAt: Date): OrphanVerdict => ({ category: 'surplus', reason, sagaId, endedAt });

  if (isAtWork) return null;
  // What is on record is told by its id: anybody may have taken tags off it, and one that was adopted may have had no full id.
  if (provision !== null && provision.releasedAt === null && sagaIdsOn(droplet).length === 0) return null;
  if (sagaId === null) {
    if (sagaIdsOn(droplet).length > 1) return unknown('it carries the ids of several sagas');
    // An adoption makes no droplet: whatever became of it, nothing is destroyed for its tag.
    const [adoptedBy] = adoptionIdsOn(droplet);
    return unknown(adoptedBy === undefined ? 'it carries no saga id' : `it carries the tag of adoption ${adoptedBy}, but is not on record as adopted`);
  }
  if (provision !== null && provision.releasedAt === null) {
    return provision.sagaId === sagaId ? null : unknown(`it is recorded for saga ${provision.sagaId}, but carries the id of another saga`);
  }
  if (provision !== null && provision.releasedAt !== null && provision.sagaId === sagaId) {
    if (destroyedAt === null) return unknown('its absence was accepted, but it exists again');
    return surplus('it was destroyed on request, but exists again', destroyedAt);
  }
  if (owner?.name === ADOPTION) return unknown('it carries the id of a saga that adopted a droplet: that saga made none');
  if (owner === null) return unknown('this environment has no saga with that id: it belongs to another environment, or the saga was lost');
  if (owner.finishedAt === null || (owner.status !== 'completed' && owner.status !== 'compensated')) {
    return owner.isBuried ? unknown(`its saga was deleted while it was ${owner.status}`) : null;
  }
  const identity = { id: owner.id, saga8: owner.id.slice(0, 8), createdAt: owner.createdAt, input: { name: owner.dropletName ?? '' } };
  const contradicted = owner.dropletId === droplet.id ? null : contradiction(droplet, identity);
  if (contradicted !== null) return unknown(`it carries the id of a finished saga, but ${contradicted}`);
  if (owner.status === 'compensated') return surplus('its saga was rolled back', owner.finishedAt);
  // What was on record of the droplet itself may be past its time by now.
  if (owner.dropletId === droplet.id) {
    if (destroyedAt !== null) return surplus('it was destroyed on request, but exists again', destroyedAt);
    // Without a record, no lease ends it, no request destroys it, and no list of the inventory says whose it is.
    return owner.isRegistered ? null : unknown('its saga is completed, but has not entered it into the inventory');
  }
  if (owner.dropletId === null) return unknown('its saga is completed, but has no droplet on record');
  return surplus(`its saga completed with droplet ${owner.dropletId}`, owner.finishedAt);
}
