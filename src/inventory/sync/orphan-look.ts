// Holds droplets against what this database knows of their sagas.
import type { Database } from '../../platform/db.ts';
import type { Droplet } from '../../do/schemas.ts';
import { findProvisions } from '../provisions.ts';
import { findDropletsAtWork } from '../at-work.ts';
import { findCompletedOn, findOwners } from '../owners.ts';
import type { OrphanVerdict } from './orphan-verdict.ts';
import { bearsOurTags, judgeOrphan, sagaIdOn } from './orphan-verdict.ts';

/** Judges droplets; those that nothing is to be said of are left out. */
export async function lookForOrphans<T extends Droplet>(db: Pick<Database, 'run'>, droplets: readonly T[]): Promise<{ droplet: T; verdict: OrphanVerdict }[]> {
  const ours = droplets.filter(bearsOurTags);
  if (ours.length === 0) return [];
  const sagaIds = ours.flatMap((droplet) => sagaIdOn(droplet) ?? []);
  const ids = ours.map(({ id }) => id);
  // Sagas first: one that records a droplet between the two looks is seen at work by the second.
  const owners = await findOwners(db, sagaIds);
  const atWork = await findDropletsAtWork(db, ids);
  // Records last: a saga that ended before the look at those at work has left its record.
  const [provisions, destroyed] = await Promise.all([findProvisions(db, ids.map(String)), findCompletedOn(db, 'destroy_droplet', ids)]);
  return ours.flatMap((droplet) => {
    const verdict = judgeOrphan(droplet, {
      owner: owners.get(sagaIdOn(droplet) ?? '') ?? null,
      provision: provisions.get(String(droplet.id)) ?? null,
      destroyedAt: destroyed.get(droplet.id) ?? null,
      isAtWork: atWork.has(droplet.id),
    });
    return verdict === null ? [] : [{ droplet, verdict }];
  });
}
