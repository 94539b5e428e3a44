// Reads which sagas droplets were provisioned for.
import type { Database } from '../platform/db.ts';

/** `releasedAt`: when it was destroyed on request or given up; null: still desired. */
export type ProvisionRecord = Readonly<{ providerId: string; sagaId: string; releasedAt: Date | null }>;

/** Finds the records of droplets by provider id. */
export async function findProvisions(db: Pick<Database, 'run'>, providerIds: readonly string[]): Promise<ReadonlyMap<string, ProvisionRecord>> {
  const rows = await db.run(
    'inventory.provisions',
    (sql) => sql<ProvisionRecord[]>`
      select resource.provider_id, provisioned.saga_id, provisioned.released_at
      from arcadia.cloud_resources resource join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
      where resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = any(${[...providerIds]}::text[])`,
  );
  return new Map(rows.map((row) => [row.providerId, row]));
}
