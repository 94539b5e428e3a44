// Deletes the tags that sagas have left in the account: last in a sync, a few a pass, and only tags that are on nothing. It is
// not worth a retry, nor a wait: what it does not get to is left to the next sync, and nothing of it fails this one.
import { DigitalOceanError } from '../../do/errors.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import type { Database } from '../../platform/db.ts';
import type { Log } from '../../platform/log.ts';
import { adoptionTag, sagaIdTag, sagaTag, waveAgeMs } from '../../steps/ownership.ts';
import type { SpentTags } from '../spent-tags.ts';
import { forgetSpentTags, postponeSpentTags, takeSpentTags } from '../spent-tags.ts';
import type { SyncRun } from '../syncs.ts';
import { SyncLostError, renewSync } from '../syncs.ts';

/** Two requests a tag, two or three tags a saga: so many sagas a pass. */
const MOST_SAGAS = 25;

// Droplets of a wave that comes round soon may be asked for while its tag is deleted.
const BEFORE_NEXT_WAVE_MS = 600_000;

/** `refused`: why DigitalOcean refuses it to the token; null: it does not. */
export type TagsDeleted = Readonly<{ deleted: number; refused: string | null }>;

type TagDeps = Readonly<{
  db: Database;
  digitalOcean: DigitalOceanClient;
  /** How long nothing may have been known of a saga's droplets before its tags are deleted. */
  graceMs: number;
  isPaused: () => Promise<boolean>;
  signal: AbortSignal;
  log: Log;
}>;

/**
 * One pass, after the whole list of droplets was read.
 *
 * @throws {SyncLostError} when the sync is somebody else's by now
 */
export async function deleteSpentTags(sync: SyncRun, deps: TagDeps): Promise<TagsDeleted> {
  const { db, graceMs, log } = deps;
  const waves = new Set<string>();
  let deleted = 0;
  try {
    const spent = await takeSpentTags(db, sync.number, { graceMs, limit: MOST_SAGAS });
    if (spent.length === 0 || (await deps.isPaused())) return { deleted, refused: null };
    for (const one of spent) {
      if (deps.signal.aborted) throw new SyncLostError(`sync ${sync.number} was stopped`);
      await renewSync(db, sync.number);
      deleted += await deleteTagsOf(one, deps);
      if (one.wave === null || waves.has(one.wave) || !isAtRest(one.wave, sync, graceMs)) continue;
      waves.add(one.wave);
      if ((await countOf(one.wave, deps)) === 0) deleted += await deleteTags([one.wave], deps);
    }
    return { deleted, refused: null };
  } catch (error) {
    if (error instanceof SyncLostError) throw error;
    if (error instanceof DigitalOceanError && error.kind === 'unauthorized' && error.status === 403) return { deleted, refused: error.message };
    log[error instanceof DigitalOceanError ? 'info' : 'warn']({ err: error }, 'tags of destroyed droplets are left: the next sync goes on');
    return { deleted, refused: null };
  }
}

/** The short tag first: by the full id alone, a droplet that surfaces all the same is still known for what it is. */
async function deleteTagsOf({ sagaId, adopted }: SpentTags, deps: TagDeps): Promise<number> {
  const tags = adopted ? [adoptionTag({ id: sagaId })] : [sagaTag({ saga8: sagaId.slice(0, 8) }), sagaIdTag({ id: sagaId })];
  const counts: (number | null)[] = [];
  for (const tag of tags) counts.push(await countOf(tag, deps));
  if (counts.some((count) => count !== null && count > 0)) {
    deps.log.info({ sagaId, tags, counts }, 'the tags of a saga whose droplet is gone are on something else: left alone');
    await postponeSpentTags(deps.db, sagaId);
    return 0;
  }
  const deleted = await deleteTags(tags.filter((_tag, index) => counts[index] !== null), deps);
  await forgetSpentTags(deps.db, sagaId);
  return deleted;
}

/** How many resources carry a tag; null: there is no such tag. */
async function countOf(tag: string, { digitalOcean }: TagDeps): Promise<number | null> {
  return (await digitalOcean.readTag(tag))?.resources.count ?? null;
}

async function deleteTags(tags: readonly string[], { digitalOcean }: TagDeps): Promise<number> {
  let deleted = 0;
  for (const tag of tags) if ((await digitalOcean.deleteTag(tag)) === 'deleted') deleted += 1;
  return deleted;
}

/** Whether a wave is neither of a moment ago nor about to come round. */
function isAtRest(wave: string, { startedAt }: SyncRun, graceMs: number): boolean {
  const age = waveAgeMs(wave, startedAt);
  return age !== null && age.sinceMs >= graceMs && age.untilNextMs >= BEFORE_NEXT_WAVE_MS;
}
