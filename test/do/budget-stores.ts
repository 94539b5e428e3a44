// The stores of the request budget for tests, each with a clock that a test can move on.
import { afterAll } from 'vitest';
import { budgetId } from '../../src/do/budget.ts';
import { createLocalBudgetStore } from '../../src/do/budget-local.ts';
import { createPostgresBudgetStore } from '../../src/do/budget-postgres.ts';
import { createRedisBudgetStore } from '../../src/do/budget-redis.ts';
import type { BudgetAnswer, BudgetAsk, BudgetForecast, BudgetStore, Turn } from '../../src/do/budget-store.ts';
import { ARRIVAL_MARGIN_MS } from '../../src/do/budget-store.ts';
import { createScriptRunner } from '../../src/queues/redis-scripts.ts';
import { connectTestRedis, createTestRedis } from '../support/services-redis.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

export type StoreName = 'redis' | 'postgres';

/** A store whose time starts at 0. `advanceTo` waits for nothing: what the store knows becomes older. */
export type TimedStore = Readonly<{ id?: string; store: BudgetStore; now(): number; advanceTo(ms: number): Promise<void> }>;

/** A fleet's store. It keeps the moment of the last answer (null: it kept nothing of that one), hold and correction. */
export type FleetStore = TimedStore & Readonly<{
  decidedAt(ask: BudgetAsk, answer: BudgetAnswer): Promise<number | null>;
  heldAt(): Promise<number>;
  correctedAt(): Promise<number>;
}>;

type KeptTimes = Readonly<{
  drawnAt(id: string, serial: number): Promise<number>;
  dueAt(id: string, turn: Turn): Promise<number>;
  ofState(id: string): Promise<{ cutAt: number; toldAt: number }>;
}>;

// KEYS: sets by time. ARGV: how much older.
const AGE_SETS = `
for _, key in ipairs(KEYS) do
  local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for at = 1, #entries, 2 do redis.call('ZADD', key, entries[at + 1] - ARGV[1], entries[at]) end
end`;

let ids = 0;

export const newBudgetId = () => budgetId(`token-${(ids += 1)}`, 'https://api.digitalocean.com');

/** Opens both stores for the tests of a file. */
export function useBudgetStores() {
  const place = createTestRedis();
  const redis = connectTestRedis(place.url);
  const database = useSharedDatabase(8);
  afterAll(async () => {
    redis.disconnect();
    await place.drop();
  });

  const create: Readonly<Record<StoreName, (id?: string) => BudgetStore & BudgetForecast>> = {
    redis: (id = newBudgetId()) => createRedisBudgetStore(createScriptRunner(redis), place.prefix, id),
    postgres: (id = newBudgetId()) => createPostgresBudgetStore(database(), id),
  };

  /** Makes what was drawn and what is known of the limits, and the times of those that wait, so many milliseconds older. */
  const passTime: Readonly<Record<StoreName, (id: string, drawnMs: number, dueMs?: number) => Promise<void>>> = {
    redis: async (id, drawnMs, dueMs = drawnMs) => {
      const key = (part: string) => `${place.prefix}:budget:${id}:${part}`;
      const drawn = ['drawn', 'reads', 'others', 'bursts', 'hour-bursts', 'firsts'].map(key);
      await redis.eval(AGE_SETS, drawn.length, ...drawn, drawnMs);
      await redis.eval(AGE_SETS, 1, key('due'), dueMs);
      for (const field of ['pacedAt', 'hourPacedAt', 'heldUntil', 'cutAt', 'toldAt']) await redis.hincrbyfloat(key('state'), field, -drawnMs);
    },
    postgres: async (id, drawnMs, dueMs = drawnMs) => {
      const { sql } = database();
      await sql`update arcadia.drawn_requests set drawn_at = drawn_at - ${drawnMs} * interval '1 millisecond' where budget = ${id}`;
      await sql`update arcadia.request_waiters set due_at = due_at - ${dueMs} * interval '1 millisecond' where budget = ${id}`;
      await sql`
        update arcadia.request_budgets
        set paced_at = paced_at - passed, hour_paced_at = hour_paced_at - passed, held_until = held_until - passed, cut_at = cut_at - passed, told_at = told_at - passed
        from (select ${drawnMs} * interval '1 millisecond' as passed) as time
        where id = ${id}`;
    },
  };

  /** Epoch milliseconds. */
  const kept: Readonly<Record<StoreName, KeptTimes>> = {
    redis: {
      drawnAt: async (id, serial) => Number(await redis.zscore(`${place.prefix}:budget:${id}:drawn`, String(serial))),
      dueAt: async (id, { requester, own }) => Number(await redis.zscore(`${place.prefix}:budget:${id}:due`, `${requester}:${own}`)),
      ofState: async (id) => {
        const [cutAt, toldAt] = await redis.hmget(`${place.prefix}:budget:${id}:state`, 'cutAt', 'toldAt');
        return { cutAt: Number(cutAt), toldAt: Number(toldAt) };
      },
    },
    postgres: {
      drawnAt: async (id, serial) => {
        const [row] = await database().sql<{ at: number }[]>`
          select extract(epoch from drawn_at)::float8 * 1000 as at from arcadia.drawn_requests where budget = ${id} and serial = ${serial}`;
        return row?.at ?? Number.NaN;
      },
      dueAt: async (id, { requester, own }) => {
        const [row] = await database().sql<{ at: number }[]>`
          select extract(epoch from due_at)::float8 * 1000 as at from arcadia.request_waiters where budget = ${id} and requester = ${requester} and own = ${own}`;
        return row?.at ?? Number.NaN;
      },
      ofState: async (id) => {
        const [row] = await database().sql<{ cutAt: number; toldAt: number }[]>`
          select extract(epoch from cut_at)::float8 * 1000 as cut_at, extract(epoch from told_at)::float8 * 1000 as told_at from arcadia.request_budgets where id = ${id}`;
        return row ?? { cutAt: Number.NaN, toldAt: Number.NaN };
      },
    },
  };

  const timed = { local: createTimedLocalStore, redis: () => timedOf('redis'), postgres: () => timedOf('postgres') } as const;

  function timedOf(name: StoreName): FleetStore {
    const id = newBudgetId();
    // The clock that the stores go by, on the same machine.
    const startedAt = Date.now();
    let passed = 0;
    const timeOf = (at: number) => at - startedAt + passed;
    const now = () => timeOf(Date.now());
    const times = kept[name];
    return {
      id,
      store: create[name](id),
      now,
      advanceTo: async (ms) => {
        const by = Math.ceil(ms - now());
        if (by <= 0) return;
        await passTime[name](id, by);
        passed += by;
      },
      decidedAt: async ({ turn }, { waitMs, againMs, serial }) => {
        if (waitMs === 0) return timeOf(await times.drawnAt(id, serial));
        return turn === null ? null : timeOf((await times.dueAt(id, turn)) - againMs);
      },
      heldAt: async () => timeOf((await times.ofState(id)).cutAt),
      correctedAt: async () => timeOf((await times.ofState(id)).toldAt),
    };
  }

  return { create, passTime, timed, database };
}

/** The budget of a process, as long as the fleet's windows. */
export function createTimedLocalStore(): TimedStore {
  let now = 0;
  return {
    store: createLocalBudgetStore(() => now, ARRIVAL_MARGIN_MS),
    now: () => now,
    advanceTo: async (ms) => Promise.resolve(void (now = Math.max(now, ms))),
  };
}
