// A real load: thousands of droplets at once through four worker processes, each active after 20 to 60 s; without limits,
// and with those of DigitalOcean, held against the time that the limits alone take.
//
//   node bench/load.ts [--droplets 5000] [--workers 4] [--limits off,on] [--scale 1] [--active-after 20,60]
//     [--no-redis] [--small] [--json]
//     [--scale 10]   ten times DigitalOcean's limits: 5,000 droplets then take as long as 500 do
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import { startEmbeddedPostgres } from '../src/embedded-postgres/start-embedded-postgres.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { dropletInput, startFleet } from './fleet.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Row = Readonly<{
  limits: 'off' | 'on';
  droplets: number;
  completed: number;
  seconds: number;
  requests: number;
  throttled: number;
  p50Seconds: number;
  p99Seconds: number;
  /** What the limits alone take: for the requests that were sent, and for the fewest that would do. */
  boundSeconds: number;
  leastSeconds: number;
}>;

const PER_MINUTE = 250;
const PER_HOUR = 5_000;
const PAGE = 200;
const STARTS_AT_ONCE = 100;

// `active-after`: seconds, at least and at most.
const options = readOptions(
  { droplets: 5_000, workers: 4, limits: 'off,on', scale: 1, 'active-after': '20,60', 'no-redis': false },
  { droplets: 10, workers: 1, limits: 'on', 'active-after': '0.2,0.6' },
);
const { droplets, workers } = options;
const [shortest = 20, longest = 60] = options['active-after'].split(',').map(Number);
const limits = { perMinute: PER_MINUTE * options.scale, perHour: PER_HOUR * options.scale };

const postgres = await startEmbeddedPostgres();
const redis = options['no-redis'] ? null : await startPrivateRedis();
try {
  const rows: Row[] = [];
  for (const kind of options.limits.split(',')) rows.push(await measure(kind === 'on' ? 'on' : 'off'));
  report({ part: 'load', workers, ...limits, rows }, [tableOf(rows)], options);
  process.exitCode = rows.every((row) => row.completed === droplets && row.throttled <= row.requests / 100) ? 0 : 1;
} finally {
  await redis?.stop();
  await postgres.stop();
}

async function measure(kind: 'off' | 'on'): Promise<Row> {
  const isOn = kind === 'on';
  const sandbox = { activateAfterMs: { minMs: shortest * 1_000, maxMs: longest * 1_000 }, ratePerMinute: isOn ? limits.perMinute : null, ratePerHour: isOn ? limits.perHour : null };
  const fleet = await startFleet({ name: `load_${kind}`, postgresUrl: postgres.url, redisUrl: redis?.url ?? null, workers, sandbox });
  try {
    const from = performance.now();
    let next = 0;
    const startSome = async () => {
      while (next < droplets) {
        next += 1;
        await fleet.client.provisionDroplet({ name: `web-${next}`, ...dropletInput });
      }
    };
    await Promise.all(Array.from({ length: STARTS_AT_ONCE }, startSome));
    process.stderr.write(`limits ${kind}: ${droplets} enqueued after ${((performance.now() - from) / 1_000).toFixed(1)} s\n`);
    for (;;) {
      const [row] = await fleet.db.sql<{ left: number }[]>`select count(*)::int as left from arcadia.sagas where status in ('pending', 'running', 'compensating')`;
      if (row?.left === 0) break;
      await delay(500);
    }
    const [result] = await fleet.db.sql<{ completed: number; seconds: number; p50Seconds: number; p99Seconds: number }[]>`
      select count(*) filter (where status = 'completed')::int as completed,
             extract(epoch from max(finished_at) - min(created_at))::float8 as seconds,
             percentile_cont(0.5) within group (order by extract(epoch from event.at - created_at)::float8) as p50_seconds,
             percentile_cont(0.99) within group (order by extract(epoch from event.at - created_at)::float8) as p99_seconds
      from arcadia.sagas left join arcadia.saga_events event
        on event.saga_id = sagas.id and event.step = 'wait_droplet_active' and event.kind = 'step_completed'`;
    if (result === undefined) throw new Error('no result');
    const { total, byStatus, byRoute } = fleet.sandbox.ledgerSummary();
    process.stderr.write(`limits ${kind}: ${JSON.stringify(byRoute)}\n`);
    const throttled = byStatus['429'] ?? 0;
    return {
      limits: kind,
      droplets,
      requests: total,
      throttled,
      ...result,
      // Of the last requests, one tells that a droplet is active: its create went before.
      boundSeconds: isOn ? Math.max(longest, secondsUntil(total - throttled)) : longest,
      leastSeconds: isOn ? Math.max(longest, secondsUntil(droplets) + shortest, secondsUntil(droplets + Math.ceil(droplets / PAGE))) : longest,
    };
  } finally {
    await fleet.stop();
  }
}

/** Seconds until the last of so many requests may be sent, each as early as a rolling minute and a rolling hour allow. */
function secondsUntil(requests: number): number {
  const sentAt: number[] = [];
  for (let index = 0; index < requests; index += 1) {
    const minute = (sentAt[index - limits.perMinute] ?? -60) + 60;
    const hour = (sentAt[index - limits.perHour] ?? -3_600) + 3_600;
    sentAt.push(Math.max(minute, hour));
  }
  return sentAt.at(-1) ?? 0;
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({
    head: ['limits', 'droplets', 'completed', 's', 'requests', 'a droplet', '429', 'p50 to active', 'p99', 'bound s', 'of the bound', 'least s', 'of the least'],
  });
  for (const row of rows) {
    const perDroplet = (row.requests / row.droplets).toFixed(2);
    const share = (bound: number) => `${((100 * bound) / row.seconds).toFixed(0)} %`;
    table.push([
      row.limits, row.droplets, row.completed, row.seconds.toFixed(1), row.requests, perDroplet, row.throttled, row.p50Seconds.toFixed(1), row.p99Seconds.toFixed(1),
      row.boundSeconds.toFixed(0), share(row.boundSeconds), row.leastSeconds.toFixed(0), share(row.leastSeconds),
    ]);
  }
  return table.toString();
}
