// The memory of a worker that has 200 steps at once, under load for as long as wanted: resident set, every 10 s.
//
//   node bench/memory.ts [--minutes 5] [--concurrency 200] [--in-flight 1000] [--json]
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startEmbeddedPostgres } from '../src/embedded-postgres/start-embedded-postgres.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { dropletInput, startFleet } from './fleet.ts';

const LIMIT_MIB = 300;
const SAMPLE_EVERY_MS = 10_000;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    concurrency: { type: 'string', default: '200' },
    'in-flight': { type: 'string', default: '1000' },
    json: { type: 'boolean', default: false },
  },
});

const postgres = await startEmbeddedPostgres();
const redis = await startPrivateRedis();
const fleet = await startFleet({
  name: 'memory',
  postgresUrl: postgres.url,
  redisUrl: redis.url,
  workers: 1,
  sandbox: { activateAfterMs: { minMs: 500, maxMs: 2_000 }, ratePerMinute: null, ratePerHour: null, dropletLimit: 10_000_000 },
  env: { WORKER_CONCURRENCY: values.concurrency, WAIT_POLL_INTERVAL_MS: '500' },
});
try {
  const until = performance.now() + Number(values.minutes) * 60_000;
  let completed = 0;
  const keepBusy = async () => {
    while (performance.now() < until) {
      const saga = await fleet.client.provisionDroplet({ name: `web-${completed}`, ...dropletInput });
      await saga.result();
      completed += 1;
    }
  };
  const load = Promise.all(Array.from({ length: Number(values['in-flight']) }, keepBusy));
  const samples: number[] = [];
  while (performance.now() < until) {
    await delay(SAMPLE_EVERY_MS);
    samples.push(await residentMib(fleet.pids[0] ?? 0));
    process.stderr.write(`${samples.length * 10} s: ${samples.at(-1)} MiB, ${completed} sagas\n`);
  }
  await load;
  // What is compiled and cached on first use is there by the middle of the run.
  const quarter = Math.ceil(samples.length / 4);
  const [third, fourth] = [samples.slice(-2 * quarter, -quarter), samples.slice(-quarter)];
  const result = { part: 'memory', completed, firstMib: samples[0], lastMib: samples.at(-1), maxMib: Math.max(...samples), growthOfLastQuarter: mean(fourth) / mean(third) };
  process.stdout.write(
    values.json
      ? `${JSON.stringify({ ...result, samples })}\n`
      : `${completed} sagas; first ${result.firstMib}, last ${result.lastMib}, max ${result.maxMib} MiB; last quarter to the one before: ${result.growthOfLastQuarter.toFixed(2)}\n`,
  );
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
