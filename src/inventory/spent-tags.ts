// Spent tags: a saga's own tags, once its droplet is gone. Triggers record them when a saga was rolled back and when a droplet is
// marked as deleted. This module decides which of them may be deleted now.
import type { Database } from '../platform/db.ts';
import { heldSync, lostSync } from './syncs.ts';

/** The tags of one saga. `wave`: the wave tag of its droplet; null: unknown. `adopted`: it adopted its droplet, so its tag differs. */
export type SpentTags = Readonly<{ sagaId: string; wave: string | null; adopted: boolean }>;

// Tags that may not be deleted yet must not block the others.
const MOST_JUDGED = 1_000;

/**
 * Claims the tags that are due, longest spent first. Each is due again after a grace period, whatever happens now.
 *
 * Returns those that may be deleted: the saga is in this database and has been at rest for longer than the grace, and the
 * inventory has had no droplet of it within the grace. A droplet counts as the saga's if it is on record for the saga, carries its
 * tags, was left alone by its rollback, or has its name and possibly no tags yet.
 *
 * @param how.limit maximum number of sagas; of those that are due, {@link MOST_JUDGED} are checked
 * @throws {SyncLostError}
 */
export async function takeSpentTags(db: Pick<Database, 'run'>, number: number, how: { graceMs: number; limit: number }): Promise<SpentTags[]> {
  const rows = await db.run('tags.take', (sql) => {
    const grace = sql`${how.graceMs}::int * interval '1 millisecond'`;
    return sql<{ sagaId: string | null; wave: string | null; adopted: boolean }[]>`
      with held as (${heldSync(sql, number)}),
      due as (
        select saga_id, wave, since from arcadia.spent_tags
        where exists (select from held) and since <= clock_timestamp() - ${grace}
        order by since limit ${MOST_JUDGED} for update skip locked
      ),
      owner as (
        select due.*, coalesce(saga.name, tombstone.name) = 'adopt_droplet' as adopted, coalesce(saga.created_at, tombstone.created_at) as began_at, coalesce(saga.input->>'name', tombstone.droplet_name) as droplet_name,
               saga.context->'unproven_droplets' as unproven
        from due left join arcadia.sagas saga on saga.id = due.saga_id
          left join arcadia.saga_tombstones tombstone on tombstone.saga_id = due.saga_id and saga.id is null
        where coalesce(saga.status, tombstone.status) in ('completed', 'compensated')
          and coalesce(saga.finished_at, tombstone.finished_at) <= clock_timestamp() - ${grace}
      ),
      present as (
        select owner.saga_id
        from arcadia.cloud_resources resource left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
          join owner on provisioned.saga_id = owner.saga_id
            or resource.tags && array['arcadia-saga-id-' || owner.saga_id, 'arcadia-saga-' || left(owner.saga_id::text, 8), 'arcadia-adopted-' || owner.saga_id]
            or (provisioned.id is null and lower(resource.name) = lower(owner.droplet_name) and resource.first_seen_at >= owner.began_at)
            or case when jsonb_typeof(owner.unproven) = 'array' then resource.provider_id in (select jsonb_array_elements_text(owner.unproven)) else false end
        where resource.provider = 'digitalocean' and resource.kind = 'droplet'
          and (resource.deleted_at is null or resource.deleted_at > clock_timestamp() - ${grace})
      ),
      spent as (select saga_id, wave, adopted, since from owner where saga_id not in (select saga_id from present)),
      taken as (select saga_id, wave, adopted from spent order by since limit ${how.limit}),
      put_off as (
        update arcadia.spent_tags tags set since = clock_timestamp() from due
        where tags.saga_id = due.saga_id and (due.saga_id in (select saga_id from taken) or due.saga_id not in (select saga_id from spent))
      )
      select taken.saga_id, taken.wave, taken.adopted from held left join taken on true
      order by taken.saga_id`;
  });
  if (rows.length === 0) throw lostSync(number);
  return rows.flatMap(({ sagaId, wave, adopted }) => (sagaId === null ? [] : [{ sagaId, wave, adopted }]));
}

/** Records that the tags of a saga are deleted. */
export async function forgetSpentTags(db: Pick<Database, 'run'>, sagaId: string): Promise<void> {
  await db.run('tags.forget', (sql) => sql`delete from arcadia.spent_tags where saga_id = ${sagaId}`);
}

/** Records that another resource carries the tags of a saga: they are checked again in a day. */
export async function postponeSpentTags(db: Pick<Database, 'run'>, sagaId: string): Promise<void> {
  await db.run('tags.postpone', (sql) => sql`update arcadia.spent_tags set since = clock_timestamp() + interval '1 day' where saga_id = ${sagaId}`);
}
