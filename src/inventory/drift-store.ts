// Stores drift: found, found again, resolved, accepted. One statement writes a finding and its audit row.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';
import { runWithShortLocks } from '../platform/lock-wait.ts';
import type { Actual, Difference, DriftField } from './drift.ts';
import { acceptDifference } from './drift.ts';
import type { AtWorkSql } from './listing.ts';
import { INVENTORY_CHANNEL, heldSync, lostSync } from './syncs.ts';

/** A finding. */
export type Drift = Readonly<{
  /** For people to type. */
  id: number;
  resourceId: string;
  providerId: string;
  name: string;
  sagaId: string;
  field: DriftField;
  desired: string;
  actual: string;
  firstSeenAt: Date;
  lastSeenAt: Date;
  resolvedAt: Date | null;
  /** `changed`: another difference of the same field took its place, as a finding of its own. */
  resolution: 'put_back' | 'accepted' | 'released' | 'changed' | null;
}>;

/** The desired and the actual state of one resource. */
export type Provisioned = Actual & Readonly<{ resourceId: string; spec: JsonObject }>;

/**
 * Reads what to compare: desired resources that this sync saw (or that are gone) and that no saga works on. At most
 * `limit`, after `after`.
 */
export async function listProvisioned(
  db: Pick<Database, 'run'>,
  how: { startedAt: Date; after: string | null; limit: number; atWork: AtWorkSql },
): Promise<Provisioned[]> {
  const { startedAt, after, limit, atWork } = how;
  return db.run(
    'drift.provisioned',
    (sql) => sql<Provisioned[]>`
      select resource.id as resource_id, provisioned.spec, resource.deleted_at is not null as is_deleted, resource.size_slug,
             resource.region, resource.image, resource.status
      from arcadia.cloud_provisioned provisioned join arcadia.cloud_resources resource on resource.id = provisioned.resource_id
      where provisioned.released_at is null and (resource.deleted_at is not null or resource.last_seen_at >= ${startedAt})
        and ${after === null ? sql`true` : sql`resource.id > ${after}::uuid`}
        and not ${atWork(sql, { providerId: sql`resource.provider_id`, sagaId: sql`provisioned.saga_id` }, startedAt)}
      order by resource.id limit ${limit}`,
  );
}

/**
 * Records the findings of a comparison and resolves earlier ones that it no longer found. If a field now differs in another
 * way, that is a new finding.
 *
 * @param compared the resources as read; if a spec has changed since, the next sync handles it
 * @returns the new findings, and the number of resolved ones
 * @throws {SyncLostError}
 */
export async function recordDrift(
  db: Pick<Database, 'run'>,
  number: number,
  compared: readonly (Pick<Provisioned, 'resourceId' | 'spec'> & { differences: readonly Difference[] })[],
): Promise<{ found: Drift[]; resolved: number }> {
  const found = compared.flatMap(({ resourceId, spec, differences }) => differences.map((difference) => ({ resourceId, spec, ...difference })));
  const rows = await db.run(
    'drift.record',
    (sql) => sql<(DriftRow & { resolved: number; isNew: boolean | null })[]>`
      with held as (${heldSync(sql, number)}),
      found as (
        select found.* from jsonb_to_recordset(${jsonText(found)}::text::jsonb) as found ("resourceId" uuid, spec jsonb, field text, desired text, actual text)
        join arcadia.cloud_provisioned provisioned on provisioned.resource_id = found."resourceId"
        where provisioned.released_at is null and provisioned.spec = found.spec
      ),
      -- Another difference is another finding, with a row of its own, so that it is told of again. The check of "resolution"
      -- has no word for this end: null.
      changed as (
        update arcadia.cloud_drift drift set resolved_at = clock_timestamp() from found, held
        where drift.resolved_at is null and drift.resource_id = found."resourceId" and drift.field = found.field
          and (drift.desired, drift.actual) is distinct from (found.desired, found.actual)
        returning drift.id
      ),
      open as (
        insert into arcadia.cloud_drift as drift (resource_id, field, desired, actual)
        -- Counts what is closed, so that it is closed first: only one row of a field may be open.
        select "resourceId", field, desired, actual from found, held where (select count(*) from changed) >= 0
        on conflict (resource_id, field) where resolved_at is null do update set last_seen_at = clock_timestamp()
        returning drift.*, drift.xmax = 0 as is_new
      ),
      resolved as (
        update arcadia.cloud_drift drift set resolved_at = clock_timestamp(), resolution = 'put_back'
        where resolved_at is null and resource_id = any(${compared.map(({ resourceId }) => resourceId)}::uuid[])
          and not exists (select from found where found."resourceId" = drift.resource_id and found.field = drift.field)
          and exists (select from held)
        returning drift.*
      ),
      told as (${tell(sql, 'drift_found', sql`open where is_new`)} union all ${tell(sql, 'drift_resolved', sql`resolved`)}),
      audited as (insert into arcadia.audit (actor, action, saga_id, detail) select 'sync', kind, saga_id, detail from told returning 1)
      select open.*, resource.provider_id, resource.name, provisioned.saga_id, (select count(*)::int from resolved) as resolved,
             (select count(pg_notify(${INVENTORY_CHANNEL}, (detail || jsonb_build_object('kind', kind))::text)) from told) as notified
      from held left join open on is_new
      left join arcadia.cloud_resources resource on resource.id = open.resource_id
      left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = open.resource_id
      order by open.id`,
  );
  const [first] = rows;
  if (first === undefined) throw lostSync(number);
  return { found: rows.filter(({ isNew }) => isNew !== null).map(toDrift), resolved: first.resolved };
}

/** Writes findings to the audit trail and the notification channel. */
function tell(sql: Sql, kind: string, findings: SqlFragment): SqlFragment {
  return sql`
    select ${kind}::text as kind, provisioned.saga_id, jsonb_build_object(
      'drift', finding.id, 'droplet_id', resource.provider_id, 'field', field, 'desired', desired, 'actual', actual,
      'reason', format('%s: desired %s, found %s', field, desired, actual)) as detail
    from (select * from ${findings}) as finding
    join arcadia.cloud_resources resource on resource.id = finding.resource_id
    join arcadia.cloud_provisioned provisioned on provisioned.resource_id = finding.resource_id`;
}

/** Closes findings about resources that are no longer desired. */
export async function resolveReleased(db: Pick<Database, 'run'>): Promise<number> {
  const rows = await db.run(
    'drift.released',
    (sql) => sql`
      update arcadia.cloud_drift drift set resolved_at = clock_timestamp(), resolution = 'released'
      where resolved_at is null
        and not exists (select from arcadia.cloud_provisioned where resource_id = drift.resource_id and released_at is null)
      returning id`,
  );
  return rows.length;
}

/** Lists the open findings, oldest first; or all, newest first. */
export async function listDrift(db: Pick<Database, 'run'>, how: { withResolved: boolean; limit: number }): Promise<Drift[]> {
  const rows = await db.run(
    'drift.list',
    (sql) => sql<DriftRow[]>`
      select drift.*, resource.provider_id, resource.name, provisioned.saga_id
      from arcadia.cloud_drift drift
      join arcadia.cloud_resources resource on resource.id = drift.resource_id
      left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = drift.resource_id
      ${how.withResolved ? sql`order by drift.id desc` : sql`where resolved_at is null order by drift.id`} limit ${how.limit}`,
  );
  return rows.map(toDrift);
}

/** The result of accepting a finding. */
export type Accepted = Readonly<{ kind: 'accepted'; drift: Drift }> | Readonly<{ kind: 'not_found' }> | Readonly<{ kind: 'resolved'; drift: Drift }> | Readonly<{ kind: 'moved_on' }>;

/**
 * Accepts the current state as the desired state. If the droplet is gone, nothing is desired any more. Audited.
 *
 * @param shown the state that the person was shown; null: whatever it is now
 * @returns `moved_on` if the finding or the desired state has just changed: read again
 * @throws {LockHeldError} if a transaction that is not committed yet is changing the droplet
 */
export async function acceptDrift(db: Pick<Database, 'run'>, id: number, by: string, shown: string | null = null): Promise<Accepted> {
  const [row] = await db.run(
    'drift.read',
    (sql) => sql<(DriftRow & { spec: JsonObject | null })[]>`
      select drift.*, resource.provider_id, resource.name, provisioned.saga_id, provisioned.spec
      from arcadia.cloud_drift drift
      join arcadia.cloud_resources resource on resource.id = drift.resource_id
      left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = drift.resource_id and released_at is null
      where drift.id = ${id}`,
  );
  if (row === undefined) return { kind: 'not_found' };
  const drift = toDrift(row);
  if (row.resolvedAt !== null || row.spec === null) return { kind: 'resolved', drift };
  if (shown !== null && shown !== row.actual) return { kind: 'moved_on' };
  const spec = acceptDifference(row.spec, row);
  const detail = { drift: drift.id, droplet_id: row.providerId, field: row.field, desired: row.desired, actual: row.actual };
  const written = await runWithShortLocks(
    db,
    'drift.accept',
    (sql, limit) => sql`
      with short as materialized (${limit}),
      provisioned as (
        update arcadia.cloud_provisioned
        set spec = ${jsonText(spec ?? row.spec ?? {})}::text::jsonb,
            released_at = case when ${spec === null} then clock_timestamp() end
        from short
        where resource_id = ${row.resourceId} and released_at is null and spec = ${jsonText(row.spec ?? {})}::text::jsonb
          and exists (select from arcadia.cloud_drift where id = ${id} and resolved_at is null and actual = ${row.actual})
        returning saga_id
      ),
      accepted as (
        update arcadia.cloud_drift set resolved_at = clock_timestamp(), resolution = 'accepted'
        where id = ${id} and exists (select from provisioned) returning id
      )
      insert into arcadia.audit (actor, action, saga_id, detail)
      select ${by}, 'drift_accepted', saga_id, ${jsonText(detail)}::text::jsonb from provisioned, accepted
      returning id`,
  );
  return written.length === 1 ? { kind: 'accepted', drift } : { kind: 'moved_on' };
}

// A bigint arrives as text.
type DriftRow = Omit<Drift, 'id'> & { id: string };

/** Converts a row of `arcadia.cloud_drift`, joined with its resource. */
export function toDrift(row: DriftRow): Drift {
  const { resourceId, providerId, name, sagaId, field, desired, actual, firstSeenAt, lastSeenAt, resolvedAt, resolution } = row;
  return { id: Number(row.id), resourceId, providerId, name, sagaId, field, desired, actual, firstSeenAt, lastSeenAt, resolvedAt, resolution: resolvedAt === null ? null : (resolution ?? 'changed') };
}
