// A fleet that two requesters share: one starts many droplets at once, the other a single one every so often, and destroys
// one. How long does the single one wait for its create, how long a deletion for its DELETE, and how much later do the many
// end?
//
//   node bench/fair.ts [--many 5000] [--every 60] [--workers 2] [--per-minute 250] [--per-hour 5000] [--rounds alone,shared]
//     [--active-after 20,60] [--no-redis] [--small] [--json]
//     [--many 400 --per-minute 120]   in minutes
//
// Round `alone`: without the other requester. Round `shared`: the other starts a droplet every so many seconds.
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { dropletInput, startFleet } from './fleet.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Row = Readonly<{
  round: 'alone' | 'shared';
  many: number;
  /** Until the last of the many was created, and until all of them were active. */
  createsSeconds: number;
  seconds: number;
  /** Of the many, from the start of the saga to its end. */
  activeP50Seconds: number;
  activeP99Seconds: number;
  /** How many single droplets were created while the many waited, and how long each waited from its start to its create. */
  ones: number;
  p50Seconds: number | null;
  p99Seconds: number | null;
  /** The longest time from the start of a destruction to its DELETE. */
  deleteSeconds: number | null;
  requests: number;
  throttled: number;
}>;

const MANY = 'bench:many';
const ONE = 'bench:one';
const STARTS_AT_ONCE = 100;
// The first window is full by then.
const FIRST_AFTER_MS = 10_000;

const options = readOptions(
  { many: 5_000, every: 60, workers: 2, 'per-minute': 250, 'per-hour': 5_000, rounds: 'alone,shared', 'active-after': '20,60', 'no-redis': false },
  { many: 20, every: 2, workers: 1, 'per-minute': 100, rounds: 'shared', 'active-after': '0.2,0.6' },
);
const { many, workers } = options;
const [shortest = 20, longest = 60] = options['active-after'].split(',').map(Number);
const firstAfterMs = options.small ? 0 : FIRST_AFTER_MS;

const postgres = await startEmbeddedPostgres();
const redis = options['no-redis'] ? null : await startPrivateRedis();
try {
  const rows: Row[] = [];
  for (const round of options.rounds.split(',')) rows.push(await measure(round === 'alone' ? 'alone' : 'shared'));
  report({ part: 'fair', workers, perMinute: options['per-minute'], perHour: options['per-hour'], rows }, [tableOf(rows)], options);
} finally {
  await redis?.stop();
  await postgres.stop();
}

async function measure(round: Row['round']): Promise<Row> {
  const fleet = await startFleet({
    name: `fair_${round}`,
    postgresUrl: postgres.url,
    redisUrl: redis?.url ?? null,
    workers,
    sandbox: { activateAfterMs: { minMs: shortest * 1_000, maxMs: longest * 1_000 }, ratePerMinute: options['per-minute'], ratePerHour: options['per-hour'] },
  });
  const unfinished = async (requester: string) => {
    const [row] = await fleet.db.sql<{ left: number }[]>`select count(*)::int as left from arcadia.sagas where requested_by = ${requester} and status in ('pending', 'running', 'compensating')`;
    return row?.left ?? 0;
  };
  try {
    let next = 0;
    const startSome = async () => {
      while (next < many) {
        next += 1;
        await fleet.client.provisionDroplet({ name: `many-${next}`, ...dropletInput }, { requestedBy: MANY });
      }
    };
    await Promise.all(Array.from({ length: STARTS_AT_ONCE }, startSome));
    let ones = 0;
    const destroyed = new Map<number, number>();
    const destroyOne = async () => {
      const [row] = await fleet.db.sql<{ dropletId: string }[]>`
        select context->>'droplet_id' as droplet_id from arcadia.sagas
        where name = 'provision_droplet' and status = 'completed' and not context->>'droplet_id' = any(${[...destroyed.keys()].map(String)}::text[]) limit 1`;
      if (row === undefined) return;
      destroyed.set(Number(row.dropletId), Date.now());
      await fleet.client.destroyDroplet(Number(row.dropletId), { requestedBy: ONE });
    };
    let dueAt = performance.now() + firstAfterMs;
    while ((await unfinished(MANY)) > 0) {
      if (round === 'shared' && performance.now() >= dueAt) {
        ones += 1;
        dueAt += options.every * 1_000;
        await fleet.client.provisionDroplet({ name: `one-${ones}`, ...dropletInput }, { requestedBy: ONE });
        await destroyOne();
      }
      await delay(500);
    }
    while ((await unfinished(ONE)) > 0) await delay(500);
    const [result] = await fleet.db.sql<Pick<Row, 'createsSeconds' | 'seconds' | 'activeP50Seconds' | 'activeP99Seconds' | 'ones' | 'p50Seconds' | 'p99Seconds'>[]>`
      with created as (
        select requested_by, sagas.created_at, finished_at, event.at as posted_at
        from arcadia.sagas join arcadia.saga_events event on event.saga_id = sagas.id and event.step = 'create_droplet' and event.kind = 'step_completed'
      ),
      of_many as (
        select min(created_at) as began, max(posted_at) as posted, max(finished_at) as finished,
               extract(epoch from percentile_cont(0.5) within group (order by finished_at - created_at))::float8 as p50,
               extract(epoch from percentile_cont(0.99) within group (order by finished_at - created_at))::float8 as p99
        from created where requested_by = ${MANY}
      ),
      of_one as (
        -- A create after the last of the many met nobody.
        select extract(epoch from posted_at - created_at)::float8 as waited from created, of_many where requested_by = ${ONE} and created_at < posted
      )
      select extract(epoch from posted - began)::float8 as creates_seconds, extract(epoch from finished - began)::float8 as seconds,
             p50 as active_p50_seconds, p99 as active_p99_seconds,
             (select count(*) from of_one)::int as ones,
             (select percentile_cont(0.5) within group (order by waited) from of_one) as p50_seconds,
             (select percentile_cont(0.99) within group (order by waited) from of_one) as p99_seconds
      from of_many`;
    if (result === undefined) throw new Error('no result');
    const { total, byStatus } = fleet.sandbox.ledgerSummary();
    const waits = [...destroyed].flatMap(([id, startedAt]) => {
      const sent = fleet.sandbox.ledger().find(({ method, path }) => method === 'DELETE' && path === `/v2/droplets/${id}`);
      return sent === undefined ? [] : [(sent.at - startedAt) / 1_000];
    });
    return { round, many, ...result, deleteSeconds: waits.length === 0 ? null : Math.max(...waits), requests: total, throttled: byStatus['429'] ?? 0 };
  } finally {
    await fleet.stop();
  }
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({
    style: { head: [], border: [] },
    head: ['round', 'many', 'creates of the many s', 'all active s', 'p50', 'p99', 'ones', 'p50 of the one s', 'p99 of the one s', 'longest to DELETE s', 'requests a droplet', '429'],
  });
  for (const row of rows) {
    table.push([row.round, row.many, tenths(row.createsSeconds), tenths(row.seconds), tenths(row.activeP50Seconds), tenths(row.activeP99Seconds), row.ones, tenths(row.p50Seconds), tenths(row.p99Seconds), tenths(row.deleteSeconds), (row.requests / (row.many + row.ones)).toFixed(2), row.throttled]);
  }
  return table.toString();
}

function tenths(value: number | null): string {
  return value?.toFixed(1) ?? '–';
}
