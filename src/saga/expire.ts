// Finds expired sagas and audit rows. Each function handles one batch in one statement.
import { z } from 'zod';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { Expiry } from './retention.ts';
import { decodeCursor, encodeCursor } from '../platform/cursor.ts';

/** SQL that is true while a saga must be kept although it ended long ago. Takes SQL for the saga's id. */
export type IsNeeded = (sql: Sql, sagaId: SqlFragment) => SqlFragment;

/** Keeps a saga while any family needs it, so that its resources stay its own and its idempotency key stays used. */
export function isNeededBy(families: readonly Readonly<{ isNeeded: IsNeeded }>[]): IsNeeded {
  return (sql, sagaId) => sql`(${families.reduce((needed, family) => sql`${needed} or ${family.isNeeded(sql, sagaId)}`, sql`false`)})`;
}

const BATCH = 500;

const sagaPlace = z.tuple([z.string(), z.uuid()]);

/**
 * Expires sagas, with their events, that ended (completed or compensated) more than `days` ago. Keeps unfinished and
 * stuck sagas, and those that `isNeeded` selects.
 *
 * It reads the sagas in order of creation, by the index `sagas_recent`. A saga ends after it was created, so this misses
 * no expired saga and reads little beyond that age. (No SQL condition limits the age: Postgres cannot know how many sagas
 * are that old, and might decide to sort them all.)
 *
 * @param isNeeded SQL that is true while a saga must be kept; takes SQL for the saga's id
 * @param names of the app's sagas; a saga of another app is kept, because this app cannot know whether it is needed. By
 *   default, all sagas
 */
export function sagaExpiry(db: Pick<Database, 'run'>, days: number, isNeeded: IsNeeded, names: readonly string[] | null = null): Expiry {
  return {
    of: 'sagas',
    deleteBatch: async (lease, after) => {
      const place = after === null ? null : decodeCursor(after, sagaPlace);
      const [row] = await db.run('retention.sagas', (sql) => {
        const from = place === null ? sql`true` : sql`created_at >= ${place[0]}::text::timestamptz and (created_at > ${place[0]}::text::timestamptz or id < ${place[1]})`;
        return sql<{ deleted: number; hasMore: boolean | null; lastCreatedAt: string | null; lastId: string | null }[]>`
          with lease as (${lease(sql)}),
          cutoff as (select clock_timestamp() - ${days}::int * interval '1 day' as at),
          looked_at as (
            select id, created_at, status, finished_at from arcadia.sagas
            where exists (select from lease) and ${from}
            order by created_at, id desc limit ${BATCH}
          ),
          expired as (
            select id from arcadia.sagas
            where id = any(array(select id from looked_at where status in ('completed', 'compensated') and finished_at < (select at from cutoff)))
              and ${names === null ? sql`true` : sql`name = any(${[...names]}::text[])`}
              and not ${isNeeded(sql, sql`sagas.id`)}
            for update skip locked
          ),
          -- Their events go with them.
          deleted as (delete from arcadia.sagas where id = any(array(select id from expired)) returning 1),
          last as (select id, created_at from looked_at order by created_at desc, id limit 1)
          select (select count(*)::int from deleted) as deleted,
                 (select count(*) = ${BATCH} and bool_and(created_at < (select at from cutoff)) from looked_at) as has_more,
                 (select to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') from last) as last_created_at,
                 (select id from last) as last_id`;
      });
      const { deleted = 0, hasMore = false, lastCreatedAt = null, lastId = null } = row ?? {};
      const isLast = hasMore !== true || lastCreatedAt === null || lastId === null;
      return { deleted, next: isLast ? null : encodeCursor([lastCreatedAt, lastId]) };
    },
  };
}

/** Expires audit rows older than `days`, except those of sagas that still exist. Reads them in the order they were written. */
export function auditExpiry(db: Pick<Database, 'run'>, days: number): Expiry {
  return {
    of: 'audit',
    deleteBatch: async (lease, after) => {
      const [row] = await db.run(
        'retention.audit',
        (sql) => sql<{ deleted: number; next: string | null }[]>`
          with lease as (${lease(sql)}),
          cutoff as (select clock_timestamp() - ${days}::int * interval '1 day' as at),
          looked_at as (
            select id, at, saga_id from arcadia.audit
            where exists (select from lease) and id > ${after ?? '0'}::bigint
            order by id limit ${BATCH}
          ),
          deleted as (
            delete from arcadia.audit where id = any(array(
              select id from looked_at
              where at < (select at from cutoff) and not exists (select from arcadia.sagas where sagas.id = looked_at.saga_id)
            )) returning 1
          )
          select (select count(*)::int from deleted) as deleted,
                 case when count(*) = ${BATCH} and bool_and(at < (select at from cutoff)) then max(id)::text end as next
          from looked_at`,
      );
      return row ?? { deleted: 0, next: null };
    },
  };
}
