// Provisions thousands of droplets at once with four worker processes. Each droplet becomes active after 20 to 60 s. Runs
// without rate limits and with those of DigitalOcean, and compares the time with the minimum that the limits allow.
//
//   node bench/load.ts [--droplets 5000] [--workers 4] [--limits off,on] [--scale 1] [--active-after 20,60]
//     [--no-redis] [--small] [--json]
//     [--scale 10]   ten times DigitalOcean's limits: 5,000 droplets then take as long as 500 do
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
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
  /** Until the last create. */
  createsSeconds: number;
  p50Seconds: number;
  p99Seconds: number;
  /** The same, if only creates were limited and each droplet were seen the moment it becomes active. */
  leastP50Seconds: number;
  leastP99Seconds: number;
  /**
   * What the limits alone take: for the requests that were sent, and for the fewest that would do. Without limits: what the
   * last droplet took to become active, after it was created when it was, and had it been at once.
   */
  boundSeconds: number;
  leastSeconds: number;
}>;

const PER_MINUTE = 250;
const PER_HOUR = 5_000;
const PAGE = 200;
const STARTS_AT_ONCE = 100;
const TELL_EVERY_MS = 60_000;

// `active-after`: minimum and maximum, in seconds.
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
    const startedAt = Date.now();
    let next = 0;
    const startSome = async () => {
      while (next < droplets) {
        next += 1;
        await fleet.client.provisionDroplet({ name: `web-${next}`, ...dropletInput });
      }
    };
    await Promise.all(Array.from({ length: STARTS_AT_ONCE }, startSome));
    process.stderr.write(`limits ${kind}: ${droplets} enqueued after ${((performance.now() - from) / 1_000).toFixed(1)} s\n`);
    let tellAt = from + TELL_EVERY_MS;
    for (;;) {
      const [row] = await fleet.db.sql<{ left: number }[]>`select count(*)::int as left from arcadia.sagas where status in ('pending', 'running', 'compensating')`;
      if (row?.left === 0) break;
      if (performance.now() >= tellAt) {
        const { total, byStatus } = fleet.sandbox.ledgerSummary();
        const seconds = ((tellAt - from) / 1_000).toFixed(0);
        process.stderr.write(`${seconds} s: ${row?.left} left, ${fleet.sandbox.state().length} droplets, ${total} requests, ${byStatus['429'] ?? 0} 429s\n`);
        tellAt += TELL_EVERY_MS;
      }
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
    const lastCreateAt = Math.max(...fleet.sandbox.ledger().flatMap(({ method, at }) => (method === 'POST' ? [at] : [])));
    const createsSeconds = (lastCreateAt - startedAt) / 1_000;
    const throttled = byStatus['429'] ?? 0;
    return {
      limits: kind,
      droplets,
      requests: total,
      throttled,
      createsSeconds,
      ...result,
      ...leastPercentiles(isOn),
      // The last request is a read that shows a droplet as active; its create was sent earlier.
      boundSeconds: isOn ? Math.max(longest, secondsUntil(total - throttled)) : createsSeconds + longest,
      leastSeconds: isOn ? Math.max(longest, secondsUntil(droplets) + shortest, secondsUntil(droplets + Math.ceil(droplets / PAGE))) : longest,
    };
  } finally {
    await fleet.stop();
  }
}

/** Seconds until the limits allow the last of `count` requests. */
function secondsUntil(requests: number): number {
  return sendTimes(requests).at(-1) ?? 0;
}

/** The earliest time at which each request may be sent, in seconds, under limits per rolling minute and hour. */
function sendTimes(requests: number): number[] {
  const sentAt: number[] = [];
  for (let index = 0; index < requests; index += 1) {
    const minute = (sentAt[index - limits.perMinute] ?? -60) + 60;
    const hour = (sentAt[index - limits.perHour] ?? -3_600) + 3_600;
    sentAt.push(Math.max(minute, hour));
  }
  return sentAt;
}

function leastPercentiles(isOn: boolean): Pick<Row, 'leastP50Seconds' | 'leastP99Seconds'> {
  const sentAt = isOn ? sendTimes(droplets) : Array.from({ length: droplets }, () => 0);
  // Multiples of the golden ratio are spread evenly over every part of the sequence.
  const activeAt = sentAt.map((at, index) => at + shortest + (longest - shortest) * ((index * 0.618_034) % 1)).toSorted((a, b) => a - b);
  const percentile = (share: number) => activeAt[Math.ceil(share * droplets) - 1] ?? 0;
  return { leastP50Seconds: percentile(0.5), leastP99Seconds: percentile(0.99) };
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({
    style: { head: [], border: [] },
    head: ['limits', 'droplets', 'completed', 's', 'requests', 'a droplet', '429', 'creates s', 'p50 to active', 'at least', 'p99', 'at least', 'bound s', 'of the bound', 'least s', 'of the least'],
  });
  for (const row of rows) {
    const perDroplet = (row.requests / row.droplets).toFixed(2);
    const share = (bound: number) => `${((100 * bound) / row.seconds).toFixed(0)} %`;
    table.push([
      row.limits, row.droplets, row.completed, row.seconds.toFixed(1), row.requests, perDroplet, row.throttled, row.createsSeconds.toFixed(1),
      row.p50Seconds.toFixed(1), row.leastP50Seconds.toFixed(1), row.p99Seconds.toFixed(1), row.leastP99Seconds.toFixed(1),
      row.boundSeconds.toFixed(0), share(row.boundSeconds), row.leastSeconds.toFixed(0), share(row.leastSeconds),
    ]);
  }
  return table.toString();
}
