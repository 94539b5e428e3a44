// Retention of the inventory: deletes old records of resources that are gone, of their specs, and of their leases.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';

const BATCH = 500;

/**
 * SQL that is true while a saga's resource exists, or existed less than `days` ago: a resource that the inventory considers
 * deleted may reappear at the next sync.
 */
export function hasResource(days: number): (sql: Sql, sagaId: SqlFragment) => SqlFragment {
  return (sql, sagaId) => sql`exists (
    select from arcadia.cloud_provisioned provisioned join arcadia.cloud_resources resource on resource.id = provisioned.resource_id
    where provisioned.saga_id = ${sagaId} and (resource.deleted_at is null or resource.deleted_at > clock_timestamp() - ${days}::int * interval '1 day')
  )`;
}

/** Deletes resources that were deleted more than `days` ago, except those with open drift. */
export function resourceExpiry(db: Pick<Database, 'run'>, days: number) {
  return {
    of: 'resources',
    deleteBatch: async (lease: (sql: Sql) => SqlFragment): Promise<{ deleted: number; next: string | null }> => {
      const [row] = await db.run(
        'retention.resources',
        (sql) => sql<{ deleted: number }[]>`
          with lease as (${lease(sql)}),
          expired as (
            select id from arcadia.cloud_resources
            where exists (select from lease) and deleted_at < (select clock_timestamp() - ${days}::int * interval '1 day')
              and not exists (select from arcadia.cloud_drift where resource_id = cloud_resources.id and resolved_at is null)
            order by deleted_at limit ${BATCH} for update skip locked
          ),
          released as (delete from arcadia.cloud_provisioned where resource_id = any(array(select id from expired))),
          deleted as (delete from arcadia.cloud_resources where id = any(array(select id from expired)) returning 1)
          select count(*)::int as deleted from deleted`,
      );
      const deleted = row?.deleted ?? 0;
      return { deleted, next: deleted < BATCH ? null : 'more' };
    },
  };
}

/** Deletes lease events older than `days`. */
export function leaseEventExpiry(db: Pick<Database, 'run'>, days: number) {
  return {
    of: 'lease events',
    deleteBatch: async (lease: (sql: Sql) => SqlFragment): Promise<{ deleted: number; next: string | null }> => {
      const [row] = await db.run(
        'retention.lease_events',
        (sql) => sql<{ deleted: number }[]>`
          with lease as (${lease(sql)}),
          old as (select id, at from arcadia.lease_events where exists (select from lease) order by id limit ${BATCH}),
          deleted as (
            delete from arcadia.lease_events where id = any(array(select id from old where at < (select clock_timestamp() - ${days}::int * interval '1 day'))) returning 1
          )
          select count(*)::int as deleted from deleted`,
      );
      const deleted = row?.deleted ?? 0;
      return { deleted, next: deleted < BATCH ? null : 'more' };
    },
  };
}
