// The fleet's request budget in Postgres, for installations without Redis. The SQL functions are in migrations 0006, 0011
// and 0016.

import type { Database } from '../platform/db.ts';
import type { BudgetForecast, BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS, SOONEST_MS } from './budget-store.ts';

type DrawRow = { waitMs: number; usedMinute: number; usedHour: number; others: number; serial: string };

/** Opens the store of one budget. Adds no deadline and no I/O tracing: the budget adds both. */
export function createPostgresBudgetStore(db: Pick<Database, 'sql'>, id: string): BudgetStore & BudgetForecast {
  return {
    draw: async (ask) => {
      const { perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, isRead, isQueued } = ask;
      const [row] = await db.sql<DrawRow[]>`
        select wait_ms, used_minute, used_hour, others, serial
        from arcadia.draw_request(
          ${id}, ${perMinute}, ${perHour}, ${keepMinute}, ${keepHour}, ${readsMinute}, ${readsHour}, ${isRead}, ${isQueued},
          ${`${ARRIVAL_MARGIN_MS} milliseconds`}::interval, ${`${SOONEST_MS} milliseconds`}::interval)`;
      if (row === undefined) throw new Error('budget.draw: no answer');
      return { waitMs: row.waitMs, usedMinute: row.usedMinute, usedHour: row.usedHour, foreign: row.others, serial: Number(row.serial) };
    },
    // As in the function draw_request, but it only reads: it locks nothing, and needs no right to write.
    forecast: async ({ perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, isRead, isQueued }) => {
      const [row] = await db.sql<{ waitMs: number }[]>`
        with clock as (select clock_timestamp() as t, interval '1 minute' + margin as a_minute, interval '1 hour' + margin as an_hour, margin from (select ${`${ARRIVAL_MARGIN_MS} milliseconds`}::interval as margin) as given),
        budget as (
          select held_until, array(select at from unnest(promised) as at where at > t order by at) as promised,
            greatest(1, floor(${perMinute}::int * arcadia.budget_share(request_budgets, t))::int - ${keepMinute}::int) as minute_limit,
            arcadia.budget_share(request_budgets, t) as share,
            case when told_at = '-infinity' then 0 else greatest(0, 1 - extract(epoch from t - told_at) / 3600) end::float8 as left_share,
            foreign_use, their_limit
          from clock, arcadia.request_budgets where id = ${id}
        ),
        limits as (
          select *, ceil(foreign_use * left_share) as others,
            greatest(1, least(${perHour}::int - ${keepHour}::int, case when left_share > 0 then their_limit - ceil(foreign_use * left_share) - ${keepHour}::int end))::int as hour_limit
          from budget
        ),
        free as (
          select *, greatest(
            arcadia.budget_window_at(${id}, ${isRead}, cardinality(promised) > 0, minute_limit, ${readsMinute}, a_minute, '{}', t),
            arcadia.budget_window_at(${id}, ${isRead}, cardinality(promised) > 0, hour_limit, ${readsHour}, an_hour, '{}', t)) as room,
            case when ${isQueued} then arcadia.budget_ahead(${id}, minute_limit, ${readsMinute}, a_minute, margin, promised, t) else '{}' end as ahead
          from limits, clock
        ),
        place as (
          select *, greatest(
            arcadia.budget_window_at(${id}, ${isRead}, cardinality(promised) > 0, minute_limit, ${readsMinute}, a_minute, ahead, t),
            arcadia.budget_window_at(${id}, ${isRead}, cardinality(promised) > 0, hour_limit, ${readsHour}, an_hour, ahead, t),
            case when held_until > t then held_until + cardinality(ahead) * interval '1 minute' / minute_limit end,
            t) as at
          from free
        )
        select case
          when held_until <= t and room <= t then 0
          when others > 0 or share < 1 then least(extract(epoch from at - t) * 1000, greatest(60000, case when held_until > t then extract(epoch from held_until - t) * 1000 end))
          else extract(epoch from at - t) * 1000 end::float8 as wait_ms
        from place`;
      return Math.ceil(row?.waitMs ?? 0);
    },
    late: async (serial) => {
      await db.sql`update arcadia.drawn_requests set drawn_at = clock_timestamp() where budget = ${id} and serial = ${serial}`;
    },
    hold: async (forMs) => {
      await db.sql`
        insert into arcadia.request_budgets as budget (id, held_until, share, cut_at)
        values (${id}, clock_timestamp() + ${forMs}::double precision * interval '1 millisecond', 0.5, clock_timestamp())
        on conflict (id) do update set
          held_until = greatest(budget.held_until, excluded.held_until),
          share = case when budget.cut_at > clock_timestamp() - interval '1 second' then budget.share
                       else greatest(0.1, arcadia.budget_share(budget, clock_timestamp()) / 2) end,
          cut_at = case when budget.cut_at > clock_timestamp() - interval '1 second' then budget.cut_at else clock_timestamp() end`;
    },
    correct: async (limit, remaining) => {
      await db.sql`
        insert into arcadia.request_budgets as budget (id, their_limit, foreign_use, told_at)
        select ${id}, ${limit}::int, greatest(0, ${limit}::int - ${remaining}::int - count(*)), clock_timestamp()
        from arcadia.drawn_requests where budget = ${id} and drawn_at > clock_timestamp() - interval '1 hour'
        on conflict (id) do update set
          their_limit = excluded.their_limit, foreign_use = excluded.foreign_use, told_at = excluded.told_at`;
    },
  };
}
