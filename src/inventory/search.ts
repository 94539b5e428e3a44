// Searches the inventory, in pages ordered by name.
import type { Database } from '../platform/db.ts';
import type { InventoryRow } from './resources.ts';

export type ResourceFilter = Readonly<{
  status?: string | undefined;
  /** Ignores case, like the tag. */
  region?: string | undefined;
  tag?: string | undefined;
  /** The provider's id, as text. */
  providerId?: string | undefined;
  /** Includes deleted resources. */
  withDeleted?: boolean | undefined;
}>;

/** The last row of a page; the next page starts after it. */
export type ResourcePlace = Readonly<{ name: string; id: string }>;

export type FoundResource = InventoryRow & Readonly<{ firstSeenAt: Date; lastSeenAt: Date }>;

/** Finds at most `limit` resources after `after`. */
export async function searchInventory(
  db: Pick<Database, 'run'>,
  filter: ResourceFilter,
  page: { limit: number; after: ResourcePlace | null },
): Promise<FoundResource[]> {
  const { after, limit } = page;
  return db.run(
    'inventory.search',
    (sql) => sql<FoundResource[]>`
      select resource.id, provider, provider_id, kind, name, region, status, size_slug, tags, attrs, first_seen_at, last_seen_at,
             deleted_at, provisioned_by, spec, coalesce(protected and released_at is null, false) as protected,
             case when released_at is null then lease_until end as lease_until
      from arcadia.cloud_resources resource left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      where ${filter.withDeleted === true ? sql`true` : sql`deleted_at is null`}
        and ${filter.status === undefined ? sql`true` : sql`status = ${filter.status}`}
        and ${filter.region === undefined ? sql`true` : sql`lower(region) = lower(${filter.region})`}
        and ${filter.tag === undefined ? sql`true` : sql`exists (select from unnest(tags) as tag where lower(tag) = lower(${filter.tag}))`}
        and ${filter.providerId === undefined ? sql`true` : sql`provider_id = ${filter.providerId}`}
        and ${after === null ? sql`true` : sql`(name, resource.id) > (${after.name}, ${after.id}::uuid)`}
      order by name, resource.id limit ${limit}`,
  );
}
