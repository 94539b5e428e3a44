// The fleet's request budget in Postgres, for installations without Redis. The SQL functions are in migrations 0006, 0011,
// 0016, 0032, 0037 and 0038.

import type { Database } from '../platform/db.ts';
import type { BudgetAsk, BudgetForecast, BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS, ASK_AGAIN_MS, GATHER_MS, PACED_HOUR, PACED_MINUTE, SOONEST_MS, TURN_GRACE_MS } from './budget-store.ts';

type DrawRow = { waitMs: number; againMs: number; usedMinute: number; usedHour: number; others: number; serial: string };

/** Opens the store of one budget. Adds no deadline and no I/O tracing: the budget adds both. */
export function createPostgresBudgetStore(db: Pick<Database, 'sql'>, id: string): BudgetStore & BudgetForecast {
  const drawTurn = async (ask: BudgetAsk, isForecast: boolean): Promise<DrawRow> => {
    const { perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, isRead, turn } = ask;
    const [row] = await db.sql<DrawRow[]>`
      select wait_ms, again_ms, used_minute, used_hour, others, serial
      from arcadia.draw_turn(
        ${id}, ${perMinute}, ${perHour}, ${keepMinute}, ${keepHour}, ${readsMinute}, ${readsHour}, ${isRead},
        ${turn?.requester ?? null}, ${turn?.own ?? null}, ${turn?.weight ?? 1}, ${isForecast},
        ${interval(ARRIVAL_MARGIN_MS)}::interval, ${interval(SOONEST_MS)}::interval, ${interval(TURN_GRACE_MS)}::interval,
        ${interval(ASK_AGAIN_MS)}::interval, ${interval(GATHER_MS)}::interval, ${PACED_MINUTE}, ${PACED_HOUR})`;
    if (row === undefined) throw new Error('budget.draw: no answer');
    return row;
  };
  return {
    draw: async (ask) => {
      const { others, serial, ...answer } = await drawTurn(ask, false);
      return { ...answer, foreign: others, serial: Number(serial) };
    },
    // Changes nothing: it locks nothing, and needs no right to write.
    forecast: async (ask) => (await drawTurn(ask, true)).waitMs,
    withdraw: async ({ requester, own }) => {
      await db.sql`select arcadia.withdraw_request(${id}, ${requester}, ${own})`;
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

function interval(ms: number): string {
  return `${ms} milliseconds`;
}
