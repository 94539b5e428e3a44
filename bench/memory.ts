// The memory of a worker that has 200 steps at once, under load for as long as wanted: resident set, every 10 s.
//
//   node bench/memory.ts [--minutes 5] [--concurrency 200] [--in-flight 1000] [--every 10] [--small] [--json]
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { startEmbeddedPostgres } from '../src/embedded-postgres/start-embedded-postgres.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { dropletInput, startFleet } from './fleet.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

const LIMIT_MIB = 300;

// `every`: seconds from one look to the next.
const options = readOptions({ minutes: 5, concurrency: 200, 'in-flight': 1_000, every: 10 }, { minutes: 0.03, 'in-flight': 5, every: 0.5 });

const postgres = await startEmbeddedPostgres();
const redis = await startPrivateRedis();
const fleet = await startFleet({
  name: 'memory',
  postgresUrl: postgres.url,
  redisUrl: redis.url,
  workers: 1,
  sandbox: { activateAfterMs: { minMs: 500, maxMs: 2_000 }, ratePerMinute: null, ratePerHour: null, dropletLimit: 10_000_000 },
  env: { WORKER_CONCURRENCY: String(options.concurrency), WAIT_POLL_INTERVAL_MS: '500' },
});
try {
  const until = performance.now() + options.minutes * 60_000;
  let completed = 0;
  const keepBusy = async () => {
    while (performance.now() < until) {
      const saga = await fleet.client.provisionDroplet({ name: `web-${completed}`, ...dropletInput });
      await saga.result();
      completed += 1;
    }
  };
  const load = Promise.all(Array.from({ length: options['in-flight'] }, keepBusy));
  const samples: number[] = [];
  while (performance.now() < until) {
    await delay(options.every * 1_000);
    samples.push(await residentMib(fleet.pids[0] ?? 0));
    process.stderr.write(`${samples.length * options.every} s: ${samples.at(-1)} MiB, ${completed} sagas\n`);
  }
  await load;
  // What is compiled and cached on first use is there by the middle of the run.
  const quarter = Math.ceil(samples.length / 4);
  const [third, fourth] = [samples.slice(-2 * quarter, -quarter), samples.slice(-quarter)];
  const result = { part: 'memory', completed, firstMib: samples[0], lastMib: samples.at(-1), maxMib: Math.max(...samples), growthOfLastQuarter: mean(fourth) / mean(third) };
  const line = `${completed} sagas; first ${result.firstMib}, last ${result.lastMib}, max ${result.maxMib} MiB; last quarter to the one before: ${result.growthOfLastQuarter.toFixed(2)}`;
  report({ ...result, samples }, [line], options);
  process.exitCode = result.maxMib <= LIMIT_MIB ? 0 : 1;
} finally {
  await fleet.stop();
  await redis.stop();
  await postgres.stop();
}

/** Source: proc(5), /proc/pid/status. Linux only. */
async function residentMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1_024);
}

function mean(of: readonly number[]): number {
  return of.reduce((sum, one) => sum + one, 0) / of.length;
}
