// The fleet's account in Postgres, where there is no Redis. The functions are in migrations/0006, 0011 and 0016.

import type { Database } from '../platform/db.ts';
import type { BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS, SOONEST_MS } from './budget-store.ts';

type DrawRow = { waitMs: number; usedMinute: number; usedHour: number; others: number; serial: string };

/** The account of one budget. The budget's own time limit and place at the I/O seam apply: none are added here. */
export function createPostgresBudgetStore(db: Pick<Database, 'sql'>, id: string): BudgetStore {
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
