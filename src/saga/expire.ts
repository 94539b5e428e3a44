// Which sagas, and which rows of the audit, are past their time; each function one batch, one statement.
import { z } from 'zod';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { Expiry } from './retention.ts';
import { decodeCursor, encodeCursor } from './search.ts';

/** SQL that is true while a saga must be kept although it ended long ago; given SQL for the saga's id. */
export type IsNeeded = (sql: Sql, sagaId: SqlFragment) => SqlFragment;

/** A saga that ended is kept as long as one of these needs it: so what it made stays its own, and its key used. */
export function isNeededBy(families: readonly Readonly<{ isNeeded: IsNeeded }>[]): IsNeeded {
  return (sql, sagaId) => sql`(${families.reduce((needed, family) => sql`${needed} or ${family.isNeeded(sql, sagaId)}`, sql`false`)})`;
}

const BATCH = 500;

const sagaPlace = z.tuple([z.string(), z.uuid()]);

/**
 * Sagas that ended (completed or compensated) longer than `days` ago, with their events. Unfinished and stuck ones stay,
 * and those that `isNeeded` tells of.
 *
 * They are walked through in the order of their beginnings, by the index `sagas_recent`: a saga ends after it began, so
 * none that is past its time is left out, and hardly more is read than is that old. (No condition says so: Postgres,
 * which can't know how many are that old, must not be tempted to sort them all.)
 *
 * @param isNeeded SQL that is true while a saga must be kept all the same; given SQL for the saga's id
 * @param names of the sagas that the app has: what one of another app is needed for, this one cannot know, and leaves it alone;
 *   all where left out
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

/** Rows of the audit older than `days`, but for those about sagas that are still there. Walked through as they were written. */
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
