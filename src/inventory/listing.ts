// Writes a list of the account's droplets into cloud_resources, one statement per page. Rows that were written after the
// page was requested are newer and stay. Rows of droplets that sagas work on belong to the sagas.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import { msOf } from '../platform/time.ts';
import type { SeenResource } from './resources.ts';
import { UNKNOWN_NAME } from './resources.ts';
import { heldSync, lostSync } from './syncs.ts';

/** A droplet as listed. */
export type ListedResource = Omit<SeenResource, 'provider' | 'kind'> &
  Readonly<{
    /** Null: unreadable. */
    image: Readonly<{ id: number; slug: string | null }> | null;
    /** The saga whose full id it carries; null: none or several. */
    sagaId: string | null;
  }>;

/** SQL that is true while a saga works on a droplet, or if one did after `since`: only the saga writes its row. */
export type AtWorkSql = (sql: Sql, droplet: { providerId: SqlFragment; sagaId: SqlFragment }, since: Date) => SqlFragment;

/** A change that a sync found. `fields`: the changed fields. */
export type Change = Readonly<{ kind: 'appeared' | 'returned' | 'changed' | 'vanished'; providerId: string; name: string; fields: readonly string[] }>;

/** A read and its maximum age: all of it was requested after `askedAt`, by the database's clock in milliseconds. */
export type Reading = Readonly<{ number: number; askedAt: Date }>;

/** A resource that appears on no page of a complete list. */
export type Absence = Readonly<{ id: string; providerId: string; name: string; absences: number }>;

type ChangeRow = { providerId: string | null; name: string; isNew: boolean; wasDeleted: boolean; fields: string[]; now: Date };

/**
 * Writes one page of a list.
 *
 * @param how.rolledBack SQL that is true for a droplet that its saga's rollback destroyed after `since`
 * @param how.lagMs how long a list may still show a destroyed droplet
 * @returns the changes, and the clock for the next page
 * @throws {SyncLostError}
 */
export async function writePage(
  db: Pick<Database, 'run'>,
  reading: Reading,
  page: readonly ListedResource[],
  how: { atWork: AtWorkSql; rolledBack: AtWorkSql; lagMs: number },
): Promise<{ changes: Change[]; now: Date }> {
  const { askedAt, number } = reading;
  const lagging = new Date(msOf(askedAt) - how.lagMs);
  const rows = await db.run(
    'listing.page',
    (sql) => sql<ChangeRow[]>`
      with held as (${heldSync(sql, number)}),
      page as (
        select * from jsonb_to_recordset(${jsonText(page)}::text::jsonb) as page (
          "providerId" text, name text, region text, status text, "sizeSlug" text, tags text[], attrs jsonb, image jsonb, "sagaId" uuid)
      ),
      known as (
        select resource.* from arcadia.cloud_resources resource join page on resource.provider_id = page."providerId"
        where resource.provider = 'digitalocean' and resource.kind = 'droplet'
      ),
      written as (
        insert into arcadia.cloud_resources as resource
          (provider, provider_id, kind, name, region, status, size_slug, tags, attrs, image, first_seen_at, last_seen_at)
        -- What could not be read is as it was known before.
        select 'digitalocean', page."providerId", 'droplet', coalesce(page.name, known.name, ${UNKNOWN_NAME}), coalesce(page.region, known.region),
               page.status, coalesce(page."sizeSlug", known.size_slug), coalesce(page.tags, known.tags, '{}'),
               coalesce(known.attrs, '{}') || page.attrs, coalesce(page.image, known.image), ${askedAt}, ${askedAt}
        from held, page left join known on known.provider_id = page."providerId"
        where not ${how.atWork(sql, onPage(sql), askedAt)}
          -- Rolled back before it was registered, it has no row that would say when it was destroyed.
          and (page."providerId" in (select provider_id from known) or not ${how.rolledBack(sql, onPage(sql), lagging)})
        on conflict (provider, kind, provider_id) do update
        set name = excluded.name, region = excluded.region, status = excluded.status, size_slug = excluded.size_slug,
            tags = excluded.tags, attrs = excluded.attrs, image = excluded.image, last_seen_at = excluded.last_seen_at,
            deleted_at = null, absences = 0
        where resource.last_seen_at < excluded.last_seen_at
          and (resource.deleted_at is null or resource.deleted_at < excluded.last_seen_at - ${how.lagMs}::int * interval '1 millisecond')
        returning *
      ),
      told as (
        select written.provider_id, written.name, known.id is null as is_new, known.deleted_at is not null as was_deleted,
               array_remove(array[
                 case when written.name <> known.name then 'name' end,
                 case when written.region is distinct from known.region then 'region' end,
                 case when written.status <> known.status then 'status' end,
                 case when written.size_slug is distinct from known.size_slug then 'size_slug' end,
                 case when written.tags <> known.tags then 'tags' end,
                 -- A price is no fact of the droplet.
                 case when written.attrs - 'price' <> known.attrs - 'price' then 'attrs' end
               ], null) as fields
        from written left join known on known.id = written.id
      )
      select told.*, date_trunc('milliseconds', clock_timestamp()) as now
      from held left join told on is_new or was_deleted or fields <> '{}'
      order by told.provider_id`,
  );
  const [first] = rows;
  if (first === undefined) throw lostSync(number);
  return { changes: rows.flatMap(toChange), now: first.now };
}

function onPage(sql: Sql): { providerId: SqlFragment; sagaId: SqlFragment } {
  return { providerId: sql`page."providerId"`, sagaId: sql`page."sagaId"` };
}

function toChange({ providerId, name, isNew, wasDeleted, fields }: ChangeRow): Change[] {
  if (providerId === null) return [];
  const kind = isNew ? 'appeared' : wasDeleted ? 'returned' : 'changed';
  return [{ kind, providerId, name, fields: kind === 'changed' ? fields : [] }];
}

/** Finds resources that a complete sync did not show and no saga works on: longest absent first, at most `limit`. */
export async function findAbsent(db: Pick<Database, 'run'>, startedAt: Date, limit: number, atWork: AtWorkSql): Promise<Absence[]> {
  return db.run(
    'listing.absent',
    (sql) => sql<Absence[]>`
      select id, provider_id, name, absences from arcadia.cloud_resources resource
      where ${absentSince(sql, startedAt, atWork)} order by absences desc, last_seen_at, provider_id limit ${limit}`,
  );
}

/**
 * Ends a complete sync. A resource that it did not show is marked as deleted if the previous sync did not show it either,
 * or if the API says that the droplet does not exist.
 *
 * @param gone ids of the rows whose droplets answered 404
 * @param how.isProof whether the list proves anything; false: only those in `gone` are marked
 * @returns the vanished resources, at most `mostTold` of them, and their total number
 * @throws {SyncLostError}
 */
export async function markAbsent(
  db: Pick<Database, 'run'>,
  { number, startedAt }: { number: number; startedAt: Date },
  gone: readonly string[],
  how: { atWork: AtWorkSql; mostTold: number; isProof: boolean },
): Promise<{ changes: Change[]; count: number }> {
  const rows = await db.run(
    'listing.mark_absent',
    (sql) => sql<{ providerId: string | null; name: string; count: number }[]>`
      with held as (${heldSync(sql, number)}),
      missed as (
        update arcadia.cloud_resources resource
        set absences = absences + 1,
            deleted_at = case when absences > 0 or id = any(${[...gone]}::uuid[]) then clock_timestamp() end
        where ${absentSince(sql, startedAt, how.atWork)} and exists (select from held)
          and (${how.isProof} or id = any(${[...gone]}::uuid[]))
        returning provider_id, name, deleted_at
      ),
      vanished as (select provider_id, name from missed where deleted_at is not null)
      select vanished.*, (select count(*)::int from vanished) as count
      from held left join (select * from vanished order by provider_id limit ${how.mostTold}) as vanished on true`,
  );
  const [first] = rows;
  if (first === undefined) throw lostSync(number);
  const changes = rows.flatMap(({ providerId, name }): Change[] => (providerId === null ? [] : [{ kind: 'vanished', providerId, name, fields: [] }]));
  return { changes, count: first.count };
}

function absentSince(sql: Sql, startedAt: Date, atWork: AtWorkSql): SqlFragment {
  return sql`resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.deleted_at is null and resource.last_seen_at < ${startedAt}
    and not ${atWork(sql, { providerId: sql`resource.provider_id`, sagaId: sql`null::uuid` }, startedAt)}`;
}
