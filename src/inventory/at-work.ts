// Which droplets sagas are at work on: for those who look at all droplets, and must leave these to them.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { dropletIdSql } from './droplet-of-saga.ts';

/**
 * SQL that is true while a saga is at work on a droplet (as its own, or to destroy it), or was so after `since`.
 *
 * @param droplet.providerId SQL for the droplet's id as text
 * @param droplet.sagaId SQL for the id of the saga that the droplet carries; may be null
 */
export function sagaAtWork(sql: Sql, droplet: { providerId: SqlFragment; sagaId: SqlFragment }, since: Date): SqlFragment {
  const atWork = sql`(status in ('pending', 'running', 'compensating') or finished_at >= ${since})`;
  // Two looks, each by an index of its own.
  return sql`(
    exists (select from arcadia.sagas where id = ${droplet.sagaId} and ${atWork})
    or exists (select from arcadia.sagas where ${dropletIdSql(sql)} = ${droplet.providerId} and ${atWork})
  )`;
}

/**
 * SQL that is true for a droplet whose own saga was rolled back, and with it the droplet destroyed, after `since`.
 *
 * @param droplet as for {@link sagaAtWork}
 */
export function sagaRolledBack(sql: Sql, droplet: { providerId: SqlFragment; sagaId: SqlFragment }, since: Date): SqlFragment {
  const rolledBack = sql`status = 'compensated' and finished_at >= ${since}`;
  return sql`(
    exists (select from arcadia.sagas where id = ${droplet.sagaId} and ${rolledBack})
    or exists (
      select from arcadia.sagas
      where ${dropletIdSql(sql)} = ${droplet.providerId} and context->>'droplet_id' = ${droplet.providerId} and ${rolledBack}
    )
  )`;
}

/** Of these droplets, those that a saga is at work on, or is stuck with. */
export async function findDropletsAtWork(db: Pick<Database, 'run'>, dropletIds: readonly number[]): Promise<ReadonlySet<number>> {
  const rows = await db.run(
    'sagas.at_work',
    (sql) => sql<{ dropletId: string }[]>`
      select ${dropletIdSql(sql)} as droplet_id from arcadia.sagas
      where ${dropletIdSql(sql)} = any(${dropletIds.map(String)}::text[])
        and status in ('pending', 'running', 'compensating', 'stuck')`,
  );
  return new Set(rows.map(({ dropletId }) => Number(dropletId)));
}
