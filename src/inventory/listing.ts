// What a list of the account's droplets says, brought into cloud_resources: a page, one statement. What somebody else
// wrote after the page was asked for is newer, and stays; rows of sagas at work are theirs.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import { msOf } from '../platform/time.ts';
import type { SeenResource } from './resources.ts';
import { UNKNOWN_NAME } from './resources.ts';
import { heldSync, lostSync } from './syncs.ts';

/** A droplet, as a list shows it. */
export type ListedResource = Omit<SeenResource, 'provider' | 'kind'> &
  Readonly<{
    /** Null: it could not be read. */
    image: Readonly<{ id: number; slug: string | null }> | null;
    /** The saga whose full id it carries; null: none's, or several. */
    sagaId: string | null;
  }>;

/** SQL that is true while a saga is at work on a droplet, or was after `since`: its row is the saga's to write. */
export type AtWorkSql = (sql: Sql, droplet: { providerId: SqlFragment; sagaId: SqlFragment }, since: Date) => SqlFragment;

/** What a sync found to be new. `fields`: what changed. */
export type Change = Readonly<{ kind: 'appeared' | 'returned' | 'changed' | 'vanished'; providerId: string; name: string; fields: readonly string[] }>;

/** What was read, and how old it may be: all of it was asked for after `askedAt`, by the database's clock in milliseconds. */
export type Reading = Readonly<{ number: number; askedAt: Date }>;

/** A resource that is not in any page of a complete list. */
export type Absence = Readonly<{ id: string; providerId: string; name: string; absences: number }>;

type ChangeRow = { providerId: string | null; name: string; isNew: boolean; wasDeleted: boolean; fields: string[]; now: Date };

/**
 * Writes one page of a list.
 *
 * @param how.rolledBack SQL that is true for a droplet that its saga destroyed after `since`, being rolled back
 * @param how.lagMs how long a list may still show a droplet that was destroyed
 * @returns what was new, and the clock for the next page
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
                 case when written.attrs <> known.attrs then 'attrs' end
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

/** The resources that a complete sync did not show and no saga is at work on: the longest absent first, at most `limit`. */
export async function findAbsent(db: Pick<Database, 'run'>, startedAt: Date, limit: number, atWork: AtWorkSql): Promise<Absence[]> {
  return db.run(
    'listing.absent',
    (sql) => sql<Absence[]>`
      select id, provider_id, name, absences from arcadia.cloud_resources resource
      where ${absentSince(sql, startedAt, atWork)} order by absences, provider_id limit ${limit}`,
  );
}

/**
 * Concludes a complete sync: what it did not show is deleted when the sync before did not either, or when the API says
 * so of the droplet itself.
 *
 * @param gone ids of rows of whose droplets the API said 404
 * @returns what vanished; not more than `mostTold` of them, and how many there are
 * @throws {SyncLostError}
 */
export async function markAbsent(
  db: Pick<Database, 'run'>,
  { number, startedAt }: { number: number; startedAt: Date },
  gone: readonly string[],
  how: { atWork: AtWorkSql; mostTold: number },
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
