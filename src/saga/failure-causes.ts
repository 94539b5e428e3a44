// Failures by cause: recent sagas that are stuck or were rolled back, told apart by what their errors say once ids, numbers, times
// and the saga's own name are taken out. A list of hundreds of failures is then a few lines.
import type { Sql, SqlFragment } from '../platform/db.ts';

/** Sagas that failed alike. `cause` names the group in a filter; `text` is what their errors have in common, with … for what differs. */
export type FailureCause = Readonly<{ cause: string; status: 'stuck' | 'compensated'; text: string; count: number }>;

// The newest of each status: what the page shows must not take longer the more has failed.
export const MOST_FAILURES = 1_000;

// Ids, times, and numbers of four digits or more: a status such as 422 stays.
const VARIES = String.raw`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z|[0-9]{4,}`;

/**
 * A query of the sagas that are stuck, and of those that were rolled back within the last day: not those that a person cancelled, and
 * not those that were run again. Columns: `id`, `status`, `said`, `cause`.
 */
export function recentFailures(sql: Sql): SqlFragment {
  return sql`
    select id, status, said, left(md5(status || ' ' || said), 12) as cause
    from (
      select failed.id, failed.status,
             regexp_replace(replace(left(coalesce(last.message, failed.message, ''), 500), failed.own_name, '…'), ${VARIES}, '…', 'gi') as said
      from (
        (select id, status, revision, error->>'message' as message, coalesce(nullif(left(input->>'name', 255), ''), chr(1)) as own_name
         from arcadia.sagas where status = 'stuck' and wake_at is null and finished_at is null order by created_at desc limit ${MOST_FAILURES})
        union all
        (select id, status, revision, error->>'message', coalesce(nullif(left(input->>'name', 255), ''), chr(1))
         from arcadia.sagas
         where status = 'compensated' and finished_at is not null and error is not null and error->>'code' is distinct from 'cancelled'
           and finished_at > clock_timestamp() - interval '1 day' and created_at > clock_timestamp() - interval '7 days'
           and not exists (select from arcadia.sagas as rerun where rerun.rerun_of = sagas.id)
         order by created_at desc limit ${MOST_FAILURES})
      ) as failed
      -- Why a saga is stuck is in its last event; its row may say why it was rolled back.
      left join lateral (
        select event.detail->>'message' as message from arcadia.saga_events event
        where failed.status = 'stuck' and event.saga_id = failed.id and event.seq = failed.revision
      ) as last on true
    ) as failure`;
}
