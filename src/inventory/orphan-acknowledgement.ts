// Acknowledges unknown orphans: a person knows what they are, so the fleet reports no problem because of them. They stay listed,
// and are never touched. A sync that judges one differently takes its acknowledgement away: see recordSightings.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';

/**
 * Acknowledges unknown orphans. One audit row for each. Safe to repeat.
 *
 * @param ids of orphans, as listed
 * @param by the requester, for the audit trail
 * @param reason for people to read, up to 1,000 characters; null: none
 * @returns the ids of those that are acknowledged now; the others are not unknown orphans, or no orphans any more
 */
export async function acknowledgeOrphans(db: Pick<Database, 'run'>, ids: readonly number[], { by, reason }: { by: string; reason: string | null }): Promise<number[]> {
  const rows = await db.run(
    'orphans.acknowledge',
    (sql) => sql<{ id: number }[]>`
      with known as (
        ${unknownAmong(sql, ids)}
      ),
      marked as (
        update arcadia.cloud_orphans orphan set acknowledged_at = clock_timestamp(), acknowledged_by = ${by}, acknowledged_reason = ${reason}
        from known where orphan.id = known.id and not known.is_marked
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select ${by}, 'orphan_acknowledged', saga_id, jsonb_build_object('orphan', id, 'droplet_id', provider_id, 'found', reason) || jsonb_strip_nulls(jsonb_build_object('reason', ${reason}::text))
        from known where not is_marked
      )
      select id::int from known order by known.id`,
  );
  return rows.map(({ id }) => id);
}

/**
 * Takes acknowledgements back: the orphans are reported as a problem again. One audit row for each. Safe to repeat.
 *
 * @param ids of orphans, as listed
 * @param by the requester, for the audit trail
 * @returns the ids of the unknown orphans among them: none of these is acknowledged now
 */
export async function unacknowledgeOrphans(db: Pick<Database, 'run'>, ids: readonly number[], { by }: { by: string }): Promise<number[]> {
  const rows = await db.run(
    'orphans.unacknowledge',
    (sql) => sql<{ id: number }[]>`
      with known as (
        ${unknownAmong(sql, ids)}
      ),
      unmarked as (
        update arcadia.cloud_orphans orphan set acknowledged_at = null, acknowledged_by = null, acknowledged_reason = null
        from known where orphan.id = known.id and known.is_marked
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select ${by}, 'orphan_unacknowledged', saga_id, jsonb_build_object('orphan', id, 'droplet_id', provider_id)
        from known where is_marked
      )
      select id::int from known order by known.id`,
  );
  return rows.map(({ id }) => id);
}

/** The unknown orphans among these, locked. `is_marked`: acknowledged already. */
function unknownAmong(sql: Sql, ids: readonly number[]): SqlFragment {
  return sql`
    select orphan.id, orphan.acknowledged_at is not null as is_marked, orphan.saga_id, orphan.reason, resource.provider_id
    from arcadia.cloud_orphans orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id
    where orphan.id = any(${ids.map(String)}::text[]::bigint[]) and orphan.resolved_at is null and orphan.category = 'unknown'
    for update of orphan`;
}
