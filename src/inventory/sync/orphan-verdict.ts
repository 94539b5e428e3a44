// Whether a droplet that bears our tags is accounted for: by a saga at work, by a saga's record. Pure. What is destroyed
// in the end is decided here, so: only on positive proof, and nothing that anybody is at work on.
import type { Droplet } from '../../do/schemas.ts';
import type { OrphanCategory } from '../orphans.ts';
import type { SagaOwner } from '../owners.ts';
import { contradiction, sagaIdsOn, tagsOn } from '../../steps/ownership.ts';
import { MANAGED_TAG, isSagaTag } from '../../steps/tags.ts';

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

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether the orphan sweep has to look at a droplet at all. */
export function bearsOurTags(droplet: Pick<Droplet, 'tags'>): boolean {
  return tagsOn(droplet).some((tag) => tag.toLowerCase() === MANAGED_TAG || isSagaTag(tag));
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
  if (sagaId === null) return unknown(sagaIdsOn(droplet).length > 1 ? 'it carries the ids of several sagas' : 'it carries no id of a saga');
  if (provision !== null && provision.releasedAt === null) {
    return provision.sagaId === sagaId ? null : unknown(`it is on record for saga ${provision.sagaId}, and carries the id of another`);
  }
  if (provision !== null && provision.releasedAt !== null && provision.sagaId === sagaId) {
    if (destroyedAt === null) return unknown('its absence was accepted, and it is there again');
    return surplus('it was destroyed on request, and is there again', destroyedAt);
  }
  if (owner === null) return unknown('this environment has no saga of that id: it is another one\'s, or the saga was lost');
  if (owner.finishedAt === null || (owner.status !== 'completed' && owner.status !== 'compensated')) {
    return owner.isBuried ? unknown(`its saga was deleted while it was ${owner.status}`) : null;
  }
  const identity = { id: owner.id, saga8: owner.id.slice(0, 8), createdAt: owner.createdAt, input: { name: owner.dropletName ?? '' } };
  const contradicted = owner.dropletId === droplet.id ? null : contradiction(droplet, identity);
  if (contradicted !== null) return unknown(`it carries the id of a saga that is over, but ${contradicted}`);
  if (owner.status === 'compensated') return surplus('its saga was rolled back', owner.finishedAt);
  // What was on record of the droplet itself may be past its time by now.
  if (owner.dropletId === droplet.id) return destroyedAt === null ? null : surplus('it was destroyed on request, and is there again', destroyedAt);
  if (owner.dropletId === null) return unknown('its saga is completed, and has no droplet on record');
  return surplus(`its saga completed with droplet ${owner.dropletId}`, owner.finishedAt);
}
