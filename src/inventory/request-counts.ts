// Requests to DigitalOcean in Postgres, by the minute and by priority, and what is left of the budget: workers write them
// every few seconds, pages and charts read them.
import type { Database } from '../platform/db.ts';

/** What is left of the request budget in its two windows. */
export type RequestsLeft = Readonly<{ minute: number; hour: number }>;

/** What was spent, by priority. `lastMinute`: the last whole minute. */
export type RequestsSpent = Readonly<{ priority: string; lastMinute: number; lastHour: number }>;

export type RequestUse = Readonly<{
  now: Date;
  /** As a worker last saw it; null: no worker has drawn a request yet. */
  left: (RequestsLeft & Readonly<{ knownAt: Date }>) | null;
  /** The largest of the last hour first. */
  spent: readonly RequestsSpent[];
  /** All requests in each part of the span, oldest first. */
  parts: readonly number[];
}>;

// The longest chart shows a week.
const KEPT = '8 days';

/** Adds requests to the current minute, and writes what is left of the budget, if that is known. */
export async function saveRequests(db: Pick<Database, 'run'>, counts: Readonly<Record<string, number>>, left: RequestsLeft | null): Promise<void> {
  await db.run(
    'requests.save',
    (sql) => sql`
      with removed as (delete from arcadia.request_counts where minute < clock_timestamp() - ${KEPT}::interval),
      known as (
        insert into arcadia.requests_left (minute, hour)
        select minute, hour from (values (${left?.minute ?? null}::int, ${left?.hour ?? null}::int)) as given (minute, hour) where minute is not null
        on conflict (one) do update set minute = excluded.minute, hour = excluded.hour, known_at = clock_timestamp()
      )
      insert into arcadia.request_counts as counted (minute, priority, requests)
      select to_timestamp(floor(extract(epoch from clock_timestamp()) / 60) * 60), key, value::bigint from jsonb_each_text(${JSON.stringify(counts)}::text::jsonb) order by key
      on conflict (minute, priority) do update set requests = counted.requests + excluded.requests`,
  );
}

type Row = Omit<RequestUse, 'left' | 'parts'> & Readonly<{ left: { minute: number; hour: number; knownAt: string } | null; sums: readonly { part: number; requests: number }[] }>;

/**
 * Reads what was spent and what is left. Parts begin at multiples of their length, as those of the sagas' history do.
 *
 * @param span.partSeconds a multiple of 60
 */
export async function readRequests(db: Pick<Database, 'run'>, span: { readonly seconds: number; readonly partSeconds: number }): Promise<RequestUse> {
  const { seconds, partSeconds } = span;
  const count = Math.ceil(seconds / partSeconds);
  const [row] = await db.run(
    'requests.read',
    (sql) => sql<Row[]>`
      with span as materialized (
        select clock_timestamp() as now, to_timestamp((floor(extract(epoch from clock_timestamp()) / ${partSeconds}::int) - ${count - 1}::int) * ${partSeconds}::int) as begins_at
      )
      select now,
        (select jsonb_build_object('minute', minute, 'hour', hour, 'knownAt', known_at) from arcadia.requests_left) as left,
        (select coalesce(jsonb_agg(jsonb_build_object('priority', priority, 'lastMinute', last_minute, 'lastHour', last_hour) order by last_hour desc, priority), '[]') from (
           select priority, sum(requests)::int as last_hour,
                  (coalesce(sum(requests) filter (where minute = to_timestamp(floor(extract(epoch from now) / 60) * 60 - 60)), 0))::int as last_minute
           from arcadia.request_counts where minute > now - interval '1 hour' group by priority) as spent) as spent,
        (select coalesce(jsonb_agg(jsonb_build_object('part', part, 'requests', requests)), '[]') from (
           select floor(extract(epoch from minute - begins_at) / ${partSeconds}::int)::int as part, sum(requests)::int as requests
           from arcadia.request_counts where minute >= begins_at group by 1) as sums) as sums
      from span`,
  );
  if (row === undefined) throw new Error('requests.read: no answer');
  const sums = new Map(row.sums.map(({ part, requests }) => [part, requests]));
  return {
    now: row.now,
    spent: row.spent,
    left: row.left === null ? null : { ...row.left, knownAt: new Date(row.left.knownAt) },
    parts: Array.from({ length: count }, (_, part) => sums.get(part) ?? 0),
  };
}
