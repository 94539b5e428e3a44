// One sync: reads every droplet of the account, updates the inventory, and finds drift and orphans. It draws conclusions
// from absence only from a complete list.
import type { Config } from '../../platform/config.ts';
import type { Database } from '../../platform/db.ts';
import type { JsonObject } from '../../platform/json.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import { invalidAnswer } from '../../do/client.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import { withRetries } from '../../do/pages.ts';
import type { ListedDroplet } from '../../do/schemas.ts';
import { listedDropletSchema, oddFieldsOf } from '../../do/schemas.ts';
import { findDifferences } from '../drift.ts';
import type { Drift } from '../drift-store.ts';
import { listProvisioned, recordDrift, resolveReleased } from '../drift-store.ts';
import type { Change } from '../listing.ts';
import { findAbsent, markAbsent, writePage } from '../listing.ts';
import type { Orphan } from '../orphans.ts';
import { recordSightings, resolveOrphans } from '../orphans.ts';
import type { SyncRun } from '../syncs.ts';
import { SyncLostError, finishSync, renewSync, startSync } from '../syncs.ts';
import type { Log } from '../../platform/log.ts';
import { sagaAtWork, sagaRolledBack } from '../at-work.ts';
import { toCloudResource } from '../../steps/droplet-resource.ts';
import { lookForOrphans } from './orphan-look.ts';
import { sagaIdOn } from './orphan-verdict.ts';
import type { FurtherPasses } from './delete-tags.ts';
import { deleteSpentTags } from './delete-tags.ts';
import { createPatience } from './patience.ts';
import { sweepOrphans } from './sweep-orphans.ts';

export type SyncDeps = Readonly<{
  db: Database;
  digitalOcean: DigitalOceanClient;
  /** The worker that runs it, for the record. */
  worker: string;
  settings: Readonly<{
    /** How far a list may lag: it may still show a droplet destroyed this recently. */
    adoptionGraceMs: number;
    orphanGraceMs: number;
    /** Delay after a failed request; it doubles each time. */
    retryMs: number;
  }>;
  /** Whether a person paused the queue of syncs. Then no surplus droplet is destroyed, whatever started this sync. */
  isPaused: () => Promise<boolean>;
  /** Bounds further passes over the tags to delete; undefined: one pass. */
  furtherTags?: FurtherPasses;
  /** Called in each sync in which DigitalOcean refuses to read or delete a tag, with its message. */
  onTagsRefused?: (why: string) => void;
  /** Called before each wait for the request budget, with its length in milliseconds. */
  onThrottled?: (waitMs: number) => void;
  /** Stops the sync between two requests. */
  signal: AbortSignal;
  log: Log;
}>;

// Delay between the first and the second try of a request.
const RETRY_MS = 1_000;

/** The durations that a sync uses. */
export function syncSettings({ adoptionGraceMs, orphanGraceMs }: Config): SyncDeps['settings'] {
  return { adoptionGraceMs, orphanGraceMs, retryMs: RETRY_MS };
}

/** Numbers of a sync, as stored. */
export type SyncSummary = Readonly<{
  pages: number;
  droplets: number;
  appeared: number;
  returned: number;
  changed: number;
  vanished: number;
  /** Droplets with unreadable fields. */
  odd: number;
  drifted: number;
  resolved: number;
  orphans: number;
  destroyed: number;
  /** Surplus droplets that the sweep could not destroy. */
  notDestroyed: number;
  held: number;
  /** Deleted tags of sagas whose droplets are gone. */
  tagsDeleted: number;
}>;

/** The result of a sync. The lists are limited; the summary counts everything. */
export type SyncReport = Readonly<{
  number: number;
  tookMs: number;
  summary: SyncSummary;
  changes: readonly Change[];
  drift: readonly Drift[];
  orphans: readonly Orphan[];
  destroyed: readonly Orphan[];
  /** The sweep could not destroy them: each has its error. */
  notDestroyed: readonly Orphan[];
  held: readonly Orphan[];
  /** There was something to destroy, but the queue was paused. */
  isPaused: boolean;
  /** DigitalOcean refuses to read or delete tags, so they remain. */
  tagsRefused: boolean;
}>;

const MOST_TOLD = 1_000;

// Droplets missing from a complete list are read one by one, up to this number.
const MOST_LOOKS = 100;

const COMPARED_AT_ONCE = 500;

const LIST = '/v2/droplets';

// Plain lists omit GPU droplets.
const TYPES = ['droplets', 'gpus'] as const;

/**
 * Runs a sync.
 *
 * @param how.intervalMs runs only if a sync is due; null: runs now
 * @param how.requestedBy the requester; null if it is due
 * @returns null if none is due, or if another worker runs it
 * @throws the error that made it fail, after that was recorded; {SyncLostError} if it was stopped or took too long
 */
export async function syncInventory(deps: SyncDeps, how: { intervalMs: number | null; requestedBy: string | null }): Promise<SyncReport | null> {
  const run = await startSync(deps.db, { worker: deps.worker, ...how });
  if (run === null) return null;
  const startedAt = performance.now();
  const tally = createTally();
  try {
    await readList(run, deps, tally);
    await concludeAbsences(run, deps, tally);
    await compare(run, deps, tally);
    await concludeOrphans(run, deps, tally);
    await cleanUp(run, deps, tally);
  } catch (error) {
    const outcome = error instanceof SyncLostError ? 'interrupted' : 'failed';
    const message = error instanceof Error ? error.message : String(error);
    await finishSync(deps.db, run.number, { outcome, summary: tally.summary, error: message }).catch(() => undefined);
    throw error;
  }
  await finishSync(deps.db, run.number, { outcome: 'complete', summary: tally.summary, error: null });
  const tookMs = Math.round(performance.now() - startedAt);
  deps.log.info({ sync: run.number, tookMs, ...tally.summary }, 'inventory synced');
  const { unreadIds: _unread, ...told } = tally;
  return { number: run.number, tookMs, ...told };
}

type Tally = { summary: { -readonly [key in keyof SyncSummary]: number }; changes: Change[]; drift: Drift[]; orphans: Orphan[]; destroyed: Orphan[]; notDestroyed: Orphan[]; held: Orphan[]; isPaused: boolean; tagsRefused: boolean; unreadIds: string[] };

function createTally(): Tally {
  const summary = { pages: 0, droplets: 0, appeared: 0, returned: 0, changed: 0, vanished: 0, odd: 0, drifted: 0, resolved: 0, orphans: 0, destroyed: 0, notDestroyed: 0, held: 0, tagsDeleted: 0 };
  return { summary, changes: [], drift: [], orphans: [], destroyed: [], notDestroyed: [], held: [], isPaused: false, tagsRefused: false, unreadIds: [] };
}

/** Limits the length of the reported lists. */
function tell<T>(list: T[], found: readonly T[]): void {
  list.push(...found.slice(0, Math.max(0, MOST_TOLD - list.length)));
}

/**
 * Reads the account page by page, and writes each page before it requests the next.
 *
 * @throws {DigitalOceanError} also if the lists have fewer droplets than they themselves say
 */
async function readList(run: SyncRun, deps: SyncDeps, tally: Tally): Promise<void> {
  let askedAt = run.startedAt;
  const read = new Set<number>();
  let fewest = 0;
  const onEnd = (fewestOfType: number) => {
    fewest = Math.max(fewest, fewestOfType);
  };
  for (const type of TYPES) {
    const beforeRetry = patienceOf(run, deps);
    const pages = deps.digitalOcean.pages(LIST, 'droplets', { params: { type }, itemSchema: listedDropletSchema, beforeRetry, onEnd });
    for await (const page of pages) {
      if (deps.signal.aborted) throw new SyncLostError(`sync ${run.number} was stopped`);
      tally.summary.pages += 1;
      for (const { id } of page) read.add(id);
      askedAt = await takePage(run, page, askedAt, deps, tally);
    }
  }
  // Of both lists, because nobody says whether the total of one leaves out the droplets of the other.
  if (read.size < fewest) throw invalidAnswer(LIST, 200, `the list has ${read.size} of at least ${fewest} droplets, so it is not complete`);
}

async function takePage(run: SyncRun, page: readonly ListedDroplet[], askedAt: Date, deps: SyncDeps, tally: Tally): Promise<Date> {
  const { db, log } = deps;
  const odd = page.filter((droplet) => oddFieldsOf(droplet).length > 0);
  if (odd.length > 0) {
    const fields = [...new Set(odd.flatMap(oddFieldsOf))];
    log.warn({ dropletIds: odd.map(({ id }) => id), fields }, 'some droplets do not match the API documentation: the inventory keeps their last known values');
  }
  const listed = page.map((droplet) => {
    const resource = toCloudResource(droplet);
    return { ...resource, attrs: { ...resource.attrs, ...priceOf(droplet) }, image: droplet.image, sagaId: sagaIdOn(droplet) };
  });
  const { changes, now } = await writePage(db, { number: run.number, askedAt }, listed, { atWork: sagaAtWork, rolledBack: sagaRolledBack, lagMs: deps.settings.adoptionGraceMs });
  tally.summary.droplets += page.length;
  tally.summary.odd += odd.length;
  tally.unreadIds.push(...page.filter(({ tags }) => tags === null).map(({ id }) => String(id)));
  for (const { kind } of changes) tally.summary[kind] += 1;
  tell(tally.changes, changes);

  const sightings = (await lookForOrphans(db, page)).map(({ droplet, verdict }) => ({
    ...verdict,
    providerId: String(droplet.id),
    priceUsdPerHour: droplet.size?.price_hourly ?? null,
    createdAt: droplet.created_at,
  }));
  if (sightings.length > 0) {
    const { found, count } = await recordSightings(db, run.number, sightings);
    for (const { providerId, category, reason, sagaId, priceUsdPerHour } of found.slice(0, MOST_LOOKS)) {
      log.warn({ dropletId: providerId, category, reason, sagaId, priceUsdPerHour }, 'found a droplet that carries our tags but belongs to no saga');
    }
    tally.summary.orphans += count;
    tell(tally.orphans, found);
  }
  return now;
}

/** The price, with the size that it is for: a later answer may show another size, and no price. */
function priceOf({ size, size_slug: sizeSlug }: ListedDroplet): JsonObject {
  return size === null || sizeSlug === null ? {} : { price: { size: sizeSlug, usd_per_hour: size.price_hourly } };
}

/**
 * A list proves presence, not absence: an item may have moved to a page already read. If it omits a droplet that exists, it
 * proves nothing about the others that it omits.
 */
async function concludeAbsences(run: SyncRun, deps: SyncDeps, tally: Tally): Promise<void> {
  const { db, digitalOcean, log } = deps;
  const beforeRetry = patienceOf(run, deps);
  const gone: string[] = [];
  let omitted = 0;
  for (const { id, providerId } of await findAbsent(db, run.startedAt, MOST_LOOKS, sagaAtWork)) {
    const askedAt = await renewSync(db, run.number);
    const droplet = await withRetries(() => digitalOcean.getDroplet(Number(providerId)), beforeRetry).catch((error: unknown) => {
      // A droplet that could not be read is left to the next complete list.
      if (error instanceof DigitalOceanError && error.kind !== 'unauthorized') return 'unseen' as const;
      throw error;
    });
    if (droplet === null) gone.push(id);
    else if (droplet !== 'unseen') {
      omitted += 1;
      await takePage(run, [{ ...droplet, size: null }], askedAt, deps, tally);
    }
  }
  if (omitted > 0) log.warn({ sync: run.number, droplets: omitted }, 'the list omits droplets that exist: only those that DigitalOcean answers with 404 count as gone');
  const { changes, count } = await markAbsent(db, run, gone, { atWork: sagaAtWork, mostTold: MOST_TOLD, isProof: omitted === 0 });
  tally.summary.vanished += count;
  tell(tally.changes, changes);
}

/** Compares the desired with the actual state. */
async function compare(run: SyncRun, deps: SyncDeps, tally: Tally): Promise<void> {
  const { db, log } = deps;
  for (let after: string | null = null; ; ) {
    const rows = await listProvisioned(db, { startedAt: run.startedAt, after, limit: COMPARED_AT_ONCE, atWork: sagaAtWork });
    const last = rows.at(-1);
    if (last === undefined) break;
    after = last.resourceId;
    const compared = rows.map((row) => ({ resourceId: row.resourceId, spec: row.spec, differences: findDifferences(row.spec, row) }));
    const { found, resolved } = await recordDrift(db, run.number, compared);
    for (const { id, providerId, field, desired, actual, sagaId } of found.slice(0, MOST_LOOKS)) {
      log.warn({ drift: id, dropletId: providerId, field, desired, actual, sagaId }, 'drift found');
    }
    tally.summary.drifted += found.length;
    tally.summary.resolved += resolved;
    tell(tally.drift, found);
  }
  tally.summary.resolved += await resolveReleased(db);
}

async function concludeOrphans(run: SyncRun, deps: SyncDeps, tally: Tally): Promise<void> {
  await resolveOrphans(deps.db, run.number, tally.unreadIds);
  const { destroyed, failed, held, isPaused } = await sweepOrphans(run, { ...deps, graceMs: deps.settings.orphanGraceMs, beforeRetry: patienceOf(run, deps) });
  tally.summary.destroyed = destroyed.length;
  tally.summary.notDestroyed = failed.length;
  tally.summary.held = held.length;
  tell(tally.destroyed, destroyed);
  tell(tally.notDestroyed, failed);
  tell(tally.held, held);
  tally.isPaused = isPaused;
}

async function cleanUp(run: SyncRun, deps: SyncDeps, tally: Tally): Promise<void> {
  const { adoptionGraceMs, orphanGraceMs } = deps.settings;
  const { deleted, refused } = await deleteSpentTags(run, { ...deps, graceMs: Math.max(adoptionGraceMs, orphanGraceMs) });
  tally.summary.tagsDeleted = deleted;
  tally.tagsRefused = refused !== null;
  if (refused !== null) deps.onTagsRefused?.(refused);
}

function patienceOf(run: SyncRun, { db, signal, settings, onThrottled }: SyncDeps) {
  return createPatience({ db, number: run.number, retryMs: settings.retryMs, signal, onThrottled });
}
