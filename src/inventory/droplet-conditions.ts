// The conditions of a list of droplets as SQL. All fragments name a droplet's tables alike: resource, provisioned, orphan.
import type { Sql, SqlFragment } from '../platform/db.ts';

/**
 * `managed`: provisioned or adopted here. `drifted`: differs from its spec, or is gone though it is wanted. `orphan`: carries our
 * tags, and no saga accounts for it. `unleased`: managed, without a lease. `foreign`: neither managed nor an orphan. `gone`: was
 * destroyed.
 */
export type DropletState = 'managed' | 'drifted' | 'orphan' | 'unleased' | 'protected' | 'foreign' | 'gone';

/** Conditions, combined with AND. Without a state: every droplet that exists, and each that is missed. */
export type DropletFilter = Readonly<{
  /** A part of the name, the beginning of an id, or the beginning of an address. */
  query?: string | undefined;
  region?: string | undefined;
  size?: string | undefined;
  tag?: string | undefined;
  /** Who requested it, such as `http:ada`. */
  requester?: string | undefined;
  state?: DropletState | undefined;
}>;

/** What exists, and what is missed; or, for the state `gone`, what does not exist any more. */
export function rowsOf(sql: Sql, state: DropletState | undefined): SqlFragment {
  if (state === 'gone') return sql`(select * from arcadia.cloud_resources where deleted_at is not null)`;
  return sql`(select * from arcadia.cloud_resources where deleted_at is null union all select * from arcadia.cloud_resources where deleted_at is not null and ${hasDrift(sql, sql`id`)})`;
}

/** The rows among which those of a state are, and as few others as can be. */
export function rowsInState(sql: Sql, state: DropletState | undefined): SqlFragment {
  if (state === undefined || state === 'gone') return rowsOf(sql, state);
  if (state === 'drifted') return sql`(select * from arcadia.cloud_resources where ${hasDrift(sql, sql`id`)})`;
  return sql`(select * from arcadia.cloud_resources where deleted_at is null)`;
}

/** An array, so that the few rows are looked up by their ids: Postgres would walk through all that are gone to join them. */
function hasDrift(sql: Sql, id: SqlFragment): SqlFragment {
  return sql`${id} = any(array(select resource_id from arcadia.cloud_drift where resolved_at is null))`;
}

/** Tables of a droplet, by the names that all fragments here use. */
export function source(sql: Sql, rows: SqlFragment): SqlFragment {
  return sql`${rows} as resource
    left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id and provisioned.released_at is null
    left join arcadia.cloud_orphans orphan on orphan.resource_id = resource.id and orphan.resolved_at is null`;
}

/** Whether something about the droplet differs from its spec. */
export function isDrifted(sql: Sql): SqlFragment {
  return sql`(resource.id in (select resource_id from arcadia.cloud_drift where resolved_at is null))`;
}

/** All conditions but the state's. */
export function matches(sql: Sql, { query, region, size, tag, requester }: DropletFilter): SqlFragment {
  const conditions: SqlFragment[] = [];
  if (region !== undefined) conditions.push(sql`lower(resource.region) = lower(${region})`);
  if (size !== undefined) conditions.push(sql`lower(resource.size_slug) = lower(${size})`);
  if (tag !== undefined) conditions.push(sql`exists (select from unnest(resource.tags) as tag where lower(tag) = lower(${tag}))`);
  if (requester !== undefined) conditions.push(sql`provisioned.requested_by = ${requester}`);
  if (query !== undefined) conditions.push(isFoundBy(sql, query));
  return conditions.reduce((all, condition) => sql`${all} and ${condition}`, sql`true`);
}

function isFoundBy(sql: Sql, query: string): SqlFragment {
  // Names of droplets are ASCII, for which the collation C is right and faster.
  const named = sql`position(lower(${query}::text collate "C") in lower(resource.name collate "C")) > 0`;
  if (/^\d+$/.test(query)) return sql`(${named} or starts_with(resource.provider_id, ${query}) or ${hasAddress(sql, query)})`;
  return /^[\da-f.:]+$/i.test(query) ? sql`(${named} or ${hasAddress(sql, query)})` : named;
}

function hasAddress(sql: Sql, beginning: string): SqlFragment {
  return sql`position(lower(${`"${beginning}`}::text) in lower(resource.addresses::text collate "C")) > 0`;
}

/** Whether the droplet is in this state; without a state, every one is. */
export function isInState(sql: Sql, state: DropletState | undefined): SqlFragment {
  switch (state) {
    case undefined:
    case 'gone':
      return sql`true`;
    case 'managed':
      return sql`(provisioned.id is not null and resource.deleted_at is null)`;
    case 'drifted':
      return isDrifted(sql);
    case 'orphan':
      return sql`(orphan.id is not null and resource.deleted_at is null)`;
    case 'unleased':
      return sql`(provisioned.id is not null and provisioned.lease_until is null and resource.deleted_at is null)`;
    case 'protected':
      return sql`(coalesce(provisioned.protected, false) and resource.deleted_at is null)`;
    case 'foreign':
      // Of the columns that are joined, so that Postgres knows it for an anti-join.
      return sql`(provisioned.resource_id is null and orphan.resource_id is null and resource.deleted_at is null)`;
    default:
      return state satisfies never;
  }
}
