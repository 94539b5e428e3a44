// Stores orphans: droplets that carry our tags but that no saga accounts for. `surplus`: proven to be ours and unneeded;
// destroyed eventually. `unknown`: another environment's, or of unknown origin; only reported.
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';
import { INVENTORY_CHANNEL, heldSync, lostSync } from './syncs.ts';

export type OrphanCategory = 'surplus' | 'unknown';

/** `acknowledged`: an unknown one that a person knows. */
export type OrphanState = OrphanCategory | 'acknowledged';

/** Returns the state of an orphan. */
export function stateOfOrphan({ category, acknowledgedAt }: Readonly<{ category: OrphanCategory; acknowledgedAt: Date | null }>): OrphanState {
  return acknowledgedAt === null ? category : 'acknowledged';
}

/** An orphan as seen. */
export type OrphanSighting = Readonly<{
  providerId: string;
  category: OrphanCategory;
  reason: string;
  sagaId: string | null;
  priceUsdPerHour: number | null;
  /** By DigitalOcean's clock. Null: unreadable; its age then counts from its first appearance in the inventory. */
  createdAt: string | null;
  /** When its saga ended, by the database's clock. */
  endedAt: Date | null;
}>;

/** One orphan. */
export type Orphan = Readonly<{
  /** For people to type. */
  id: number;
  category: OrphanCategory;
  reason: string;
  sagaId: string | null;
  providerId: string;
  name: string;
  region: string | null;
  sizeSlug: string | null;
  tags: readonly string[];
  priceUsdPerHour: number | null;
  createdAt: Date;
  firstSeenAt: Date;
  lastSeenAt: Date;
  /** When a person approved its destruction, and who. */
  approvedAt: Date | null;
  approvedBy: string | null;
  /** When a person acknowledged it, who, and why: it is known, so nobody is alarmed about it. Only of unknown ones. */
  acknowledgedAt: Date | null;
  acknowledgedBy: string | null;
  acknowledgedReason: string | null;
  /** Since when the sweep has failed to destroy it, and why its last try failed; null: no try failed. */
  sweepFailingSince: Date | null;
  sweepError: string | null;
}>;

/**
 * Records the orphans on a page of a sync. New ones go to the audit trail and to the inventory's channel. An orphan whose
 * category or saga has changed is a new one: its old row is closed.
 *
 * @returns the new ones, and the number now on record; a droplet that the inventory lacks, or has as destroyed, is not an
 *   orphan
 * @throws {SyncLostError}
 */
export async function recordSightings(db: Pick<Database, 'run'>, number: number, sightings: readonly OrphanSighting[]): Promise<{ found: Orphan[]; count: number }> {
  const rows = await db.run(
    'orphans.record',
    (sql) => sql<(OrphanRow & { isNew: boolean | null; count: number })[]>`
      with held as (${heldSync(sql, number)}),
      seen as (
        select * from jsonb_to_recordset(${jsonText(sightings)}::text::jsonb) as seen (
          "providerId" text, category text, reason text, "sagaId" uuid, "priceUsdPerHour" float8, "createdAt" timestamptz, "endedAt" timestamptz)
      ),
      -- Another judgement is another finding, with a row of its own: it is told of again, its approval does not count any more,
      -- and an earlier sync did not see it. The check of "resolution" has no word for this end: null.
      changed as (
        update arcadia.cloud_orphans orphan set resolved_at = clock_timestamp()
        from held, seen, arcadia.cloud_resources resource
        where resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = seen."providerId" and resource.deleted_at is null
          and orphan.resource_id = resource.id and orphan.resolved_at is null
          and (orphan.category, orphan.saga_id) is distinct from (seen.category, seen."sagaId")
        returning orphan.resource_id, orphan.price_usd_per_hour, orphan.destroy_sent_at
      ),
      orphan as (
        insert into arcadia.cloud_orphans as orphan
          (resource_id, category, reason, saga_id, price_usd_per_hour, created_at, ended_at, first_sync, last_sync, destroy_sent_at)
        select resource.id, seen.category, seen.reason, seen."sagaId", coalesce(seen."priceUsdPerHour", changed.price_usd_per_hour),
               coalesce(seen."createdAt", resource.first_seen_at), seen."endedAt", held.number, held.number, changed.destroy_sent_at
        from held, seen join arcadia.cloud_resources resource
          on resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = seen."providerId" and resource.deleted_at is null
        left join changed on changed.resource_id = resource.id
        on conflict (resource_id) where resolved_at is null do update
        set reason = excluded.reason, created_at = excluded.created_at,
            -- Somebody acknowledged what it was, not what it is now.
            acknowledged_at = case when orphan.reason = excluded.reason then orphan.acknowledged_at end,
            acknowledged_by = case when orphan.reason = excluded.reason then orphan.acknowledged_by end,
            acknowledged_reason = case when orphan.reason = excluded.reason then orphan.acknowledged_reason end,
            price_usd_per_hour = coalesce(excluded.price_usd_per_hour, orphan.price_usd_per_hour), ended_at = excluded.ended_at,
            last_seen_at = clock_timestamp(), last_sync = excluded.last_sync
        returning orphan.*, orphan.first_sync = orphan.last_sync as is_new
      ),
      told as (
        select orphan.saga_id, jsonb_build_object(
          'orphan', orphan.id, 'droplet_id', resource.provider_id, 'name', resource.name, 'category', orphan.category, 'reason', orphan.reason) as detail
        from orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id where orphan.is_new
          -- Not what this sync has told of already, on a page before: the list shifts while it is read.
          and not exists (
            select from arcadia.cloud_orphans before where before.id = orphan.id and before.last_sync = orphan.last_sync
          )
      ),
      audited as (insert into arcadia.audit (actor, action, saga_id, detail) select 'sync', 'orphan_found', saga_id, detail from told returning 1)
      select orphan.*, resource.provider_id, resource.name, resource.region, resource.size_slug, resource.tags, (select count(*)::int from orphan) as count,
             (select count(pg_notify(${INVENTORY_CHANNEL}, (detail || '{"kind":"orphan_found"}')::text)) from told) as notified
      from held left join orphan on is_new left join arcadia.cloud_resources resource on resource.id = orphan.resource_id
      order by orphan.id`,
  );
  const [first] = rows;
  if (first === undefined) throw lostSync(number);
  return { found: rows.filter(({ isNew }) => isNew !== null).map(toOrphan), count: first.count };
}

/**
 * Closes orphans that a complete sync has explained or no longer found.
 *
 * @param unreadIds droplets whose tags could not be read; nothing is concluded about them
 */
export async function resolveOrphans(db: Pick<Database, 'run'>, number: number, unreadIds: readonly string[]): Promise<void> {
  await db.run(
    'orphans.resolve',
    (sql) => sql`
      with resolved as (
        update arcadia.cloud_orphans orphan
        set resolved_at = clock_timestamp(),
            resolution = case
              when resource.deleted_at is null then 'explained'
              when orphan.destroy_sent_at is not null then 'destroyed'
              else 'gone'
            end
        from arcadia.cloud_resources resource, arcadia.inventory_syncs sync
        where resource.id = orphan.resource_id and sync.number = ${number} and sync.finished_at is null
          and orphan.resolved_at is null
          and (resource.deleted_at is not null or (orphan.last_sync < sync.number and resource.last_seen_at >= sync.started_at
            and resource.provider_id <> all(${[...unreadIds]}::text[])))
        returning orphan.id, orphan.saga_id, orphan.reason, orphan.resolution, orphan.approved_by, resource.provider_id, resource.name
      )
      insert into arcadia.audit (actor, action, saga_id, detail)
      select 'orphan-sweep', 'orphan_destroyed', saga_id, jsonb_build_object('orphan', id, 'droplet_id', provider_id, 'name', name, 'reason', reason, 'approved_by', approved_by)
      from resolved where resolution = 'destroyed'`,
  );
}

/**
 * Lists the surplus droplets that may be destroyed according to this table: seen by this sync and an earlier one, older
 * than the grace period by DigitalOcean's clock or first seen before it (that clock may be ahead), and of sagas that ended before the grace period by the database's clock.
 * Oldest first.
 */
export async function listDoomed(db: Pick<Database, 'run'>, number: number, graceMs: number): Promise<Orphan[]> {
  const rows = await db.run(
    'orphans.doomed',
    (sql) => sql<OrphanRow[]>`
      select orphan.*, resource.provider_id, resource.name, resource.region, resource.size_slug, resource.tags
      from arcadia.cloud_orphans orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id
      where orphan.resolved_at is null and orphan.category = 'surplus' and resource.deleted_at is null
        and orphan.last_sync = ${number} and orphan.first_sync < ${number}
        and least(orphan.created_at, orphan.first_seen_at) <= clock_timestamp() - ${graceMs}::int * interval '1 millisecond'
        and orphan.ended_at <= clock_timestamp() - ${graceMs}::int * interval '1 millisecond'
      order by orphan.id limit 10000`,
  );
  return rows.map(toOrphan);
}

/**
 * Announces the destruction of an orphan before it happens, once in the audit trail.
 *
 * @throws {SyncLostError} if another worker has taken over the sync; the orphan must then not be destroyed
 */
export async function announceDestruction(db: Pick<Database, 'run'>, number: number, orphan: Orphan): Promise<void> {
  const rows = await db.run(
    'orphans.announce',
    (sql) => sql`
      with held as (${heldSync(sql, number)}),
      before as (select id, destroy_sent_at is null as is_first from arcadia.cloud_orphans where id = ${orphan.id} and resolved_at is null and exists (select from held) for update),
      announced as (
        update arcadia.cloud_orphans orphan set destroy_sent_at = clock_timestamp() from before where orphan.id = before.id returning orphan.saga_id, before.is_first
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select 'orphan-sweep', 'orphan_destroy_sent', saga_id, ${jsonText(detailOf(orphan))}::text::jsonb from announced where is_first
      )
      select 1 from announced`,
  );
  if (rows.length === 0) throw lostSync(number);
}

/** Records that an orphan is gone: destroyed, if the sweep ever sent its deletion. */
export async function markOrphanGone(db: Pick<Database, 'run'>, orphan: Orphan): Promise<void> {
  await db.run(
    'orphans.gone',
    (sql) => sql`
      with orphan as (
        update arcadia.cloud_orphans set resolved_at = clock_timestamp(), resolution = case when destroy_sent_at is null then 'gone' else 'destroyed' end
        where id = ${orphan.id} and resolved_at is null returning resource_id, saga_id, resolution
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select 'orphan-sweep', 'orphan_destroyed', saga_id, ${jsonText(detailOf(orphan))}::text::jsonb from orphan where resolution = 'destroyed'
      )
      update arcadia.cloud_resources set deleted_at = coalesce(deleted_at, clock_timestamp()) where id in (select resource_id from orphan)`,
  );
}

/** Records that the sweep could not destroy an orphan: it is tried again with the next sync. */
export async function recordFailedSweep(db: Pick<Database, 'run'>, orphan: Orphan, why: string): Promise<void> {
  await db.run(
    'orphans.failed_sweep',
    (sql) => sql`
      update arcadia.cloud_orphans
      set sweep_failing_since = coalesce(sweep_failing_since, clock_timestamp()), failed_sweeps = failed_sweeps + 1, sweep_error = ${why}
      where id = ${orphan.id} and resolved_at is null`,
  );
}

function detailOf({ id, providerId, name, reason, approvedBy }: Orphan): JsonObject {
  return { orphan: id, droplet_id: providerId, name, reason, approved_by: approvedBy };
}

/** Records in the audit trail that the sweep destroys nothing until a person has approved it. */
export async function recordHold(db: Pick<Database, 'run'>, held: readonly Orphan[], most: number): Promise<void> {
  const detail = { droplets: held.length, most, droplet_ids: held.slice(0, 100).map(({ providerId }) => providerId), reason: `${held.length} surplus droplets at once` };
  await db.run(
    'orphans.hold',
    (sql) => sql`insert into arcadia.audit (actor, action, detail) values ('orphan-sweep', 'orphans_held', ${jsonText(detail)}::text::jsonb)`,
  );
}

/** Lists the existing orphans: surplus first, then unknown ones that nobody acknowledged; the oldest of each first. */
export async function listOrphans(db: Pick<Database, 'run'>, limit: number): Promise<Orphan[]> {
  const rows = await db.run(
    'orphans.list',
    (sql) => sql<OrphanRow[]>`
      select orphan.*, resource.provider_id, resource.name, resource.region, resource.size_slug, resource.tags
      from arcadia.cloud_orphans orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id
      where orphan.resolved_at is null order by orphan.category, orphan.acknowledged_at is not null, orphan.id limit ${limit}`,
  );
  return rows.map(toOrphan);
}

/**
 * A person approves the destruction of these surplus droplets, however many there are. One audit row each.
 *
 * @returns the ids of the approved orphans: those that are still surplus
 */
export async function approveOrphans(db: Pick<Database, 'run'>, ids: readonly number[], by: string): Promise<number[]> {
  const rows = await db.run(
    'orphans.approve',
    (sql) => sql<{ orphan: number }[]>`
      with approved as (
        update arcadia.cloud_orphans set approved_at = clock_timestamp(), approved_by = ${by}
        where id = any(${ids.map(String)}::text[]::bigint[]) and resolved_at is null and category = 'surplus' returning id, saga_id, resource_id, reason
      )
      insert into arcadia.audit (actor, action, saga_id, detail)
      select ${by}, 'orphan_approved', approved.saga_id, jsonb_build_object('orphan', approved.id, 'droplet_id', resource.provider_id, 'reason', approved.reason)
      from approved join arcadia.cloud_resources resource on resource.id = approved.resource_id
      returning (detail->>'orphan')::int as orphan`,
  );
  return rows.map(({ orphan }) => orphan);
}

// A bigint arrives as text.
type OrphanRow = Omit<Orphan, 'id'> & { id: string };

function toOrphan(row: OrphanRow): Orphan {
  const { category, reason, sagaId, providerId, name, region, sizeSlug, tags, priceUsdPerHour, createdAt, firstSeenAt, lastSeenAt, approvedAt, approvedBy, acknowledgedAt, acknowledgedBy, acknowledgedReason, sweepFailingSince, sweepError } = row;
  return { id: Number(row.id), category, reason, sagaId, providerId, name, region, sizeSlug, tags, priceUsdPerHour, createdAt, firstSeenAt, lastSeenAt, approvedAt, approvedBy, acknowledgedAt, acknowledgedBy, acknowledgedReason, sweepFailingSince, sweepError };
}
