// The inventory's tables: what there is (cloud_resources) and what was asked for (cloud_provisioned). One function,
// one statement. Writes on behalf of a saga select from its claim, so that a worker that was left behind writes nothing.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';

/** One resource, as the inventory keeps it. */
export type CloudResource = Readonly<{
  provider: 'digitalocean';
  kind: 'droplet';
  /** The provider's id, as text. */
  providerId: string;
  name: string;
  region: string | null;
  status: string;
  sizeSlug: string | null;
  tags: readonly string[];
  attrs: JsonObject;
}>;

/**
 * One resource, as the provider shows it. What could not be read is null, or no part of `attrs`: the inventory keeps what it
 * knew of it.
 */
export type SeenResource = Omit<CloudResource, 'name' | 'tags'> & Readonly<{ name: string | null; tags: readonly string[] | null }>;

/** The name of a resource whose own could never be read. */
export const UNKNOWN_NAME = 'unknown';

/** Who asked for a resource, and what was asked for: the baseline of drift. */
export type Provision = Readonly<{ sagaId: string; provisionedBy: string; spec: JsonObject }>;

/** Which saga at which revision a write belongs to. */
export type WriteClaim = Readonly<{ sagaId: string; revision: number }>;

/** SQL that yields one row as long as a claim stands. */
export type ClaimSql = (sql: Sql, claim: WriteClaim) => SqlFragment;

/** What the steps need of the inventory. */
export type Inventory = Readonly<{
  /**
   * Puts a provisioned resource into the inventory, and what was asked for beside it.
   *
   * @returns the row's id; null when the claim no longer stands, and nothing was written
   * @throws {ResourceTakenError} when another saga provisioned this resource
   */
  register(claim: WriteClaim, resource: SeenResource, provision: Provision): Promise<string | null>;
  /**
   * Takes back what `register` did for the claim's saga: nothing is asked for any more, and the resource counts as
   * deleted.
   *
   * @returns false when the claim no longer stands
   */
  unregister(claim: WriteClaim): Promise<boolean>;
  /**
   * Marks a resource as deleted because it was destroyed on request. Does nothing for one that the inventory never saw.
   *
   * @returns false when the claim no longer stands
   */
  markDestroyed(claim: WriteClaim, providerId: string): Promise<boolean>;
  /** Finds the saga that provisioned a droplet; null when none of this database did. */
  findProvisioner(providerId: string): Promise<Provisioner | null>;
}>;

/** The saga that provisioned a resource, and what the inventory knows of the resource. */
export type Provisioner = Readonly<{ sagaId: string; name: string; lastSeenAt: Date; deletedAt: Date | null }>;

/**
 * Binds the inventory to a database.
 *
 * @param claimSql is put into every write, so that one on behalf of a saga that has moved on changes nothing
 */
export function createInventory(db: Database, claimSql: ClaimSql): Inventory {
  return {
    register: (claim, resource, provision) => registerProvisioned(db, (sql) => claimSql(sql, claim), resource, provision),
    unregister: (claim) => unregisterProvisioned(db, (sql) => claimSql(sql, claim), claim.sagaId),
    markDestroyed: (claim, providerId) => markDestroyed(db, (sql) => claimSql(sql, claim), providerId),
    findProvisioner: (providerId) => findProvisioner(db, providerId),
  };
}

type BoundClaim = (sql: Sql) => SqlFragment;

async function registerProvisioned(
  db: Database,
  claim: BoundClaim,
  resource: SeenResource,
  provision: Provision,
): Promise<string | null> {
  const [row] = await db.run(
    'inventory.register',
    (sql) => sql<{ resourceId: string; provisionedId: string | null }[]>`
      with claim as (${claim(sql)}),
      resource as (
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs)
        select ${resource.provider}, ${resource.providerId}, ${resource.kind}, ${resource.name ?? UNKNOWN_NAME}, ${resource.region},
               ${resource.status}, ${resource.sizeSlug}, ${[...(resource.tags ?? [])]}::text[], ${JSON.stringify(resource.attrs)}::text::jsonb
        from claim
        on conflict (provider, kind, provider_id) do update
        set name = ${resource.name === null ? sql`cloud_resources.name` : sql`excluded.name`},
            region = coalesce(excluded.region, cloud_resources.region), status = excluded.status,
            size_slug = coalesce(excluded.size_slug, cloud_resources.size_slug),
            tags = ${resource.tags === null ? sql`cloud_resources.tags` : sql`excluded.tags`},
            attrs = cloud_resources.attrs || excluded.attrs, last_seen_at = clock_timestamp(), deleted_at = null
        returning id
      ),
      provisioned as (
        insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id)
        select id, ${JSON.stringify(provision.spec)}::text::jsonb, ${provision.provisionedBy}, ${provision.sagaId} from resource
        on conflict (resource_id) do update
        set spec = excluded.spec, released_at = null
        where cloud_provisioned.saga_id = excluded.saga_id
        returning id
      )
      select resource.id as resource_id, provisioned.id as provisioned_id from resource left join provisioned on true`,
  );
  if (row === undefined) return null;
  if (row.provisionedId === null) throw new ResourceTakenError(resource.providerId);
  return row.resourceId;
}

/** Another saga provisioned this resource. */
export class ResourceTakenError extends Error {
  override readonly name = 'ResourceTakenError';
  readonly code = 'resource_taken';

  constructor(providerId: string) {
    super(`droplet ${providerId} was provisioned by another saga`);
  }
}

async function unregisterProvisioned(db: Database, claim: BoundClaim, sagaId: string): Promise<boolean> {
  const rows = await db.run(
    'inventory.unregister',
    (sql) => sql`
      with claim as (${claim(sql)}),
      gone as (
        delete from arcadia.cloud_provisioned where saga_id = ${sagaId} and exists (select from claim) returning resource_id
      ),
      marked as (
        update arcadia.cloud_resources set deleted_at = coalesce(deleted_at, clock_timestamp())
        where id in (select resource_id from gone)
      )
      select id from claim`,
  );
  return rows.length === 1;
}

async function markDestroyed(db: Database, claim: BoundClaim, providerId: string): Promise<boolean> {
  const rows = await db.run(
    'inventory.mark_destroyed',
    (sql) => sql`
      with claim as (${claim(sql)}),
      marked as (
        update arcadia.cloud_resources set deleted_at = coalesce(deleted_at, clock_timestamp())
        where provider = 'digitalocean' and kind = 'droplet' and provider_id = ${providerId} and exists (select from claim)
        returning id
      ),
      released as (
        update arcadia.cloud_provisioned set released_at = coalesce(released_at, clock_timestamp())
        where resource_id in (select id from marked)
      )
      select id from claim`,
  );
  return rows.length === 1;
}

async function findProvisioner(db: Database, providerId: string): Promise<Provisioner | null> {
  const [row] = await db.run(
    'inventory.find_provisioner',
    (sql) => sql<Provisioner[]>`
      select provisioned.saga_id, resource.name, resource.last_seen_at, resource.deleted_at
      from arcadia.cloud_resources resource join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      where resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = ${providerId}`,
  );
  return row ?? null;
}

/** A row of the inventory with what was asked for, where arcadia provisioned it. */
export type InventoryRow = CloudResource & Readonly<{ id: string; deletedAt: Date | null; provisionedBy: string | null; spec: JsonObject | null }>;

/** Lists the inventory, by name. */
export async function listInventory(db: Database): Promise<InventoryRow[]> {
  return db.run(
    'inventory.list',
    (sql) => sql<InventoryRow[]>`
      select resource.id, provider, provider_id, kind, name, region, status, size_slug, tags, attrs, deleted_at, provisioned_by, spec
      from arcadia.cloud_resources resource left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      order by name, provider_id`,
  );
}
