// The inventory's tables: the actual state (cloud_resources) and the desired state (cloud_provisioned). Each function is one
// statement. Writes for a saga select from its claim, so that a worker that lost the saga writes nothing.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { DROPLET_FIELD } from './droplet-of-saga.ts';

/** A resource, as the inventory stores it. */
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
 * A resource, as the provider shows it. Values that could not be read are null or missing from `attrs`; the inventory then keeps
 * the values that it has.
 */
export type SeenResource = Omit<CloudResource, 'name' | 'tags'> & Readonly<{ name: string | null; tags: readonly string[] | null }>;

/** The name of a resource whose name could never be read. */
export const UNKNOWN_NAME = 'unknown';

/**
 * Who requested a resource, and its requested state: the baseline of drift. `protected`: protected from the start. `lease`: a lease
 * that begins with the registration, in seconds; null: none. One that began earlier is in `provision_leases`, and the registration moves it.
 */
export type Provision = Readonly<{
  sagaId: string;
  provisionedBy: string;
  spec: JsonObject;
  protected?: boolean;
  lease?: Readonly<{ ttl_s: number; max_s?: number | undefined }> | null;
}>;

/** The saga and revision that a write belongs to. */
export type WriteClaim = Readonly<{ sagaId: string; revision: number }>;

/** SQL that yields one row while a claim is valid. */
export type ClaimSql = (sql: Sql, claim: WriteClaim) => SqlFragment;

/** What the steps need of the inventory. */
export type Inventory = Readonly<{
  /**
   * Writes a provisioned resource and its requested state into the inventory.
   *
   * @returns the row's id; null if the claim is no longer valid and nothing was written
   * @throws {ResourceTakenError} if another saga provisioned or adopted this resource
   */
  register(claim: WriteClaim, resource: SeenResource, provision: Provision): Promise<string | null>;
  /**
   * Reverts `register` for the claim's saga: nothing is requested any more, and the resource counts as deleted.
   *
   * @returns false if the claim is no longer valid
   */
  unregister(claim: WriteClaim): Promise<boolean>;
  /**
   * Reverts `register` for the claim's saga if the resource stays: it still exists, and is no longer ours.
   *
   * @returns false if the claim is no longer valid
   */
  disown(claim: WriteClaim): Promise<boolean>;
  /**
   * Marks a resource as deleted because it was destroyed on request. Does nothing if the inventory never had it.
   *
   * @returns false if the claim is no longer valid
   */
  markDestroyed(claim: WriteClaim, providerId: string): Promise<boolean>;
  /**
   * Reads whether a droplet is protected, after any concurrent call that protects it. From then on it cannot become protected:
   * `arcadia.set_protection` refuses while a saga destroys the droplet.
   */
  isProtected(providerId: string): Promise<boolean>;
  /** Finds the saga that provisioned or adopted a droplet; null: none of this database. */
  findProvisioner(providerId: string): Promise<Provisioner | null>;
  /**
   * Finds an unfinished saga that created a droplet (`isKnown`), or that requested one with this name and does not know its id yet; null:
   * none.
   */
  findCreator(droplet: Readonly<{ id: number; name: string | null }>): Promise<Creator | null>;
}>;

/** The saga that creates a droplet, for certain or possibly. */
export type Creator = Readonly<{ sagaId: string; isKnown: boolean }>;

/** The saga that provisioned or adopted a resource, and the inventory's record of the resource. */
export type Provisioner = Readonly<{ sagaId: string; name: string; lastSeenAt: Date; deletedAt: Date | null }>;

/**
 * Binds the inventory to a database.
 *
 * @param claimSql is part of every write, so that a write for a saga that has moved on changes nothing
 */
export function createInventory(db: Database, claimSql: ClaimSql): Inventory {
  return {
    register: (claim, resource, provision) => registerProvisioned(db, (sql) => claimSql(sql, claim), resource, provision),
    unregister: (claim) => unregisterProvisioned(db, (sql) => claimSql(sql, claim), claim.sagaId),
    disown: (claim) => disownProvisioned(db, (sql) => claimSql(sql, claim), claim.sagaId),
    markDestroyed: (claim, providerId) => markDestroyed(db, (sql) => claimSql(sql, claim), providerId),
    isProtected: (providerId) => isProtected(db, providerId),
    findProvisioner: (providerId) => findProvisioner(db, providerId),
    findCreator: (droplet) => findCreator(db, droplet),
  };
}

type BoundClaim = (sql: Sql) => SqlFragment;

async function registerProvisioned(
  db: Database,
  claim: BoundClaim,
  resource: SeenResource,
  provision: Provision,
): Promise<string | null> {
  const { lease = null } = provision;
  const [row] = await db.run(
    'inventory.register',
    (sql) => sql<{ resourceId: string; provisionedId: string | null }[]>`
      with claim as (${claim(sql)}),
      clock as materialized (select clock_timestamp() as now),
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
        insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected, lease_until, lease_limit, lease_generation)
        select id, ${JSON.stringify(provision.spec)}::text::jsonb, ${provision.provisionedBy}, ${provision.sagaId}, ${provision.protected === true},
               clock.now + ${lease?.ttl_s ?? null}::float8 * interval '1 second', clock.now + ${lease?.max_s ?? null}::float8 * interval '1 second',
               ${lease === null ? 0 : 1}::int
        from resource, clock
        -- Whatever people have said of its protection since stands, and its lease goes on.
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

/** Thrown if another saga provisioned or adopted this resource. */
export class ResourceTakenError extends Error {
  override readonly name = 'ResourceTakenError';
  readonly code = 'resource_taken';

  constructor(providerId: string) {
    super(`droplet ${providerId} was provisioned or adopted by another saga`);
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

async function disownProvisioned(db: Database, claim: BoundClaim, sagaId: string): Promise<boolean> {
  const rows = await db.run(
    'inventory.disown',
    (sql) => sql`
      with claim as (${claim(sql)}),
      gone as (delete from arcadia.cloud_provisioned where saga_id = ${sagaId} and exists (select from claim))
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

async function isProtected(db: Database, providerId: string): Promise<boolean> {
  const [row] = await db.run(
    'inventory.protection',
    (sql) => sql<{ protected: boolean }[]>`
      select provisioned.protected
      from arcadia.cloud_resources resource join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      where resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = ${providerId} and provisioned.released_at is null
      for share of provisioned`,
  );
  return row?.protected === true;
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

async function findCreator(db: Database, { id, name }: { id: number; name: string | null }): Promise<Creator | null> {
  const [row] = await db.run(
    'inventory.find_creator',
    (sql) => sql<Creator[]>`
      select id as saga_id, context ? ${DROPLET_FIELD} as is_known from arcadia.sagas
      where finished_at is null and context ? 'create_intents'
        and (context->>${DROPLET_FIELD} = ${String(id)} or not context ? ${DROPLET_FIELD} and lower(input->>'name') = lower(${name}::text))
      order by is_known desc limit 1`,
  );
  return row ?? null;
}

/** A row of the inventory, with its requested state if arcadia provisioned it. */
export type InventoryRow = CloudResource & Readonly<{ id: string; deletedAt: Date | null; provisionedBy: string | null; spec: JsonObject | null; protected: boolean; leaseUntil: Date | null }>;

/** Lists the inventory, by name. */
export async function listInventory(db: Database): Promise<InventoryRow[]> {
  return db.run(
    'inventory.list',
    (sql) => sql<InventoryRow[]>`
      select resource.id, provider, provider_id, kind, name, region, status, size_slug, tags, attrs, deleted_at, provisioned_by, spec,
             coalesce(protected and released_at is null, false) as protected, case when released_at is null then lease_until end as lease_until
      from arcadia.cloud_resources resource left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      order by name, provider_id`,
  );
}
