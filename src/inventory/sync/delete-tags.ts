// Deletes the tags that sagas have left in the account: last in a sync, a few a pass, and only tags that are on nothing. While
// little else needs the request budget, slower passes follow the first one. It is not worth a retry: what it does not get to is
// left to the next sync, and nothing of it fails this one.
import { setTimeout as delay } from 'node:timers/promises';
import { DigitalOceanError } from '../../do/errors.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import type { BudgetLeft } from '../../do/budget.ts';
import type { Database } from '../../platform/db.ts';
import type { Log } from '../../platform/log.ts';
import { adoptionTag, sagaIdTag, sagaTag, waveAgeMs } from '../../steps/ownership.ts';
import type { SpentTags } from '../spent-tags.ts';
import { forgetSpentTags, postponeSpentTags, takeSpentTags } from '../spent-tags.ts';
import type { SyncRun } from '../syncs.ts';
import { SyncLostError, renewSync } from '../syncs.ts';

// Maximum number of sagas per pass.
const MOST_SAGAS = 25;

// Two requests for each of two tags. The tag of a wave is many sagas'.
const REQUESTS_A_SAGA = 4;

// The share of the budget that passes after the first may use, and leave to everything else.
const FURTHER_SHARE = 0.5;

const LONGEST_MS = 300_000;
const INTERVAL_SHARE = 1 / 3;

// Much shorter than the lease of a sync.
const LONGEST_PACE_MS = 10_000;

/** What passes after the first are bounded by. */
export type FurtherPasses = Readonly<{
  /** None starts, and no saga's tags are begun with, this long after the first pass. */
  forMs: number;
  /** Pause before each saga. */
  paceMs: number;
  /** Whether the request budget has room for them. */
  hasRoom: () => boolean;
}>;

/**
 * Bounds the passes after the first: a third of the time between syncs, at most five minutes, at half of the minute's requests, and
 * only while half of the hour's are left.
 *
 * @param left what the budget has left; null: unknown
 */
export function furtherPasses({ intervalMs, perMinute, perHour }: { intervalMs: number; perMinute: number; perHour: number }, left: () => Pick<BudgetLeft, 'hour'> | null): FurtherPasses {
  return {
    forMs: Math.min(LONGEST_MS, intervalMs * INTERVAL_SHARE),
    paceMs: Math.min(LONGEST_PACE_MS, (60_000 * REQUESTS_A_SAGA) / (perMinute * FURTHER_SHARE)),
    hasRoom: () => (left()?.hour ?? 0) >= perHour * FURTHER_SHARE,
  };
}

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
  /** Undefined: one pass. */
  furtherTags?: FurtherPasses;
  signal: AbortSignal;
  log: Log;
}>;

/**
 * Deletes what is due, after the whole list of droplets was read.
 *
 * @throws {SyncLostError} when the sync is somebody else's by now
 */
export async function deleteSpentTags(sync: SyncRun, deps: TagDeps): Promise<TagsDeleted> {
  const { db, graceMs, log, furtherTags: further } = deps;
  const waves = new Set<string>();
  let deleted = 0;
  let endAt = Number.POSITIVE_INFINITY;
  const mayGoOn = (): boolean => performance.now() < endAt && (further?.hasRoom() ?? false);
  try {
    for (let isFirst = true; isFirst || mayGoOn(); isFirst = false) {
      const spent = await takeSpentTags(db, sync.number, { graceMs, limit: MOST_SAGAS });
      if (spent.length === 0 || (await deps.isPaused())) break;
      for (const one of spent) {
        if (!isFirst) await delay(further?.paceMs ?? 0, undefined, { signal: deps.signal }).catch(() => undefined);
        if (deps.signal.aborted) throw new SyncLostError(`sync ${sync.number} was stopped`);
        if (!isFirst && !mayGoOn()) break;
        const now = await renewSync(db, sync.number);
        deleted += await deleteTagsOf(one, deps);
        if (one.wave === null || waves.has(one.wave) || !isAtRest(one.wave, now, graceMs)) continue;
        waves.add(one.wave);
        if ((await countOf(one.wave, deps)) === 0) deleted += await deleteTags([one.wave], deps);
      }
      if (isFirst) endAt = performance.now() + (further?.forMs ?? 0);
      if (spent.length < MOST_SAGAS) break;
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
function isAtRest(wave: string, now: Date, graceMs: number): boolean {
  const age = waveAgeMs(wave, now);
  return age !== null && age.sinceMs >= graceMs && age.untilNextMs >= BEFORE_NEXT_WAVE_MS;
}
