// Finds the droplets that sagas are working on, so that code that handles all droplets can skip them.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { dropletIdSql } from './droplet-of-saga.ts';

/**
 * SQL that is true while a saga works on a droplet (its own, or one to destroy), or if one did after `since`.
 *
 * @param droplet.providerId SQL for the droplet's id as text
 * @param droplet.sagaId SQL for the id of the saga that the droplet carries; may be null
 */
export function sagaAtWork(sql: Sql, droplet: { providerId: SqlFragment; sagaId: SqlFragment }, since: Date): SqlFragment {
  const atWork = sql`(status in ('pending', 'running', 'compensating') or finished_at >= ${since})`;
  // Two lookups, each with its own index.
  return sql`(
    exists (select from arcadia.sagas where id = ${droplet.sagaId} and ${atWork})
    or exists (select from arcadia.sagas where ${dropletIdSql(sql)} = ${droplet.providerId} and ${atWork})
  )`;
}

/**
 * SQL that is true for a droplet that was destroyed after `since` by the rollback of its own saga.
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

/** Returns those of these droplets that a saga works on or is stuck with. */
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
