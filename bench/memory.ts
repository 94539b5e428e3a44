// Measures the memory of a worker with concurrency 200 under load: resident set and V8's heap, and how they grow. The load is
// constant, or comes in waves that reach the same concurrency and leave the machine idle in between.
//
//   node bench/memory.ts [--minutes 5] [--concurrency 200] [--in-flight 1000] [--every 10] [--small] [--json]
//     [--wave-every 60]   start the sagas in waves, one every 60 seconds, instead of constantly
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { findFreePort } from '../test/support/services-guarded.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { dropletInput, startFleet } from './fleet.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Sample = Readonly<{ minutes: number; residentMib: number; heapUsedMib: number; heapTotalMib: number; completed: number }>;

const LIMIT_MIB = 300;
const MINUTE_MS = 60_000;

// `every`: seconds between two samples.
const options = readOptions({ minutes: 5, concurrency: 200, 'in-flight': 1_000, every: 10, 'wave-every': 0 }, { minutes: 0.03, 'in-flight': 5, every: 0.5 });

const postgres = await startEmbeddedPostgres();
const redis = await startPrivateRedis();
const metricsPort = await findFreePort();
const fleet = await startFleet({
  name: 'memory',
  postgresUrl: postgres.url,
  redisUrl: redis.url,
  workers: 1,
  sandbox: { activateAfterMs: { minMs: 500, maxMs: 2_000 }, ratePerMinute: null, ratePerHour: null, dropletLimit: 10_000_000 },
  env: { WORKER_CONCURRENCY: String(options.concurrency), WAIT_POLL_INTERVAL_MS: '500', WORKER_METRICS_PORT: String(metricsPort) },
});
try {
  const from = performance.now();
  const until = from + options.minutes * MINUTE_MS;
  let completed = 0;
  const keepBusy = async () => {
    for (let wave = 1; performance.now() < until; wave += 1) {
      const saga = await fleet.client.provisionDroplet({ name: `web-${completed}`, ...dropletInput });
      await saga.result();
      completed += 1;
      const nextAt = options['wave-every'] === 0 ? 0 : Math.min(until, from + wave * options['wave-every'] * 1_000);
      await delay(Math.max(0, nextAt - performance.now()));
    }
  };
  const load = Promise.all(Array.from({ length: options['in-flight'] }, keepBusy));
  const samples: Sample[] = [];
  let tellAt = from;
  // A slope needs two points.
  while (performance.now() < until || samples.length < 2) {
    await delay(options.every * 1_000);
    const minutes = (performance.now() - from) / MINUTE_MS;
    const sample = { minutes, completed, residentMib: await residentMib(fleet.pids[0] ?? 0), ...(await heapOf(metricsPort)) };
    samples.push(sample);
    if (performance.now() < tellAt) continue;
    tellAt += MINUTE_MS;
    process.stderr.write(
      `${minutes.toFixed(1)} min: ${sample.residentMib} MiB, heap ${sample.heapUsedMib} of ${sample.heapTotalMib} MiB, ${completed} sagas; most so far ${mostMib(samples)} MiB\n`,
    );
  }
  await load;
  // By the middle of the run, code is compiled and caches are full.
  const later = samples.slice(Math.floor(samples.length / 2));
  const result = {
    part: 'memory',
    completed,
    firstMib: samples[0]?.residentMib,
    lastMib: samples.at(-1)?.residentMib,
    maxMib: mostMib(samples),
    residentMibPerHour: slopePerHour(later, ({ residentMib }) => residentMib),
    heapUsedMibPerHour: slopePerHour(later, ({ heapUsedMib }) => heapUsedMib),
  };
  const line = `${completed} sagas; first ${result.firstMib}, last ${result.lastMib}, max ${result.maxMib} MiB; slope of the second half, MiB an hour: resident ${result.residentMibPerHour.toFixed(1)}, heap in use ${result.heapUsedMibPerHour.toFixed(1)}`;
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

async function heapOf(port: number): Promise<Pick<Sample, 'heapUsedMib' | 'heapTotalMib'>> {
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const mib = (name: string) => Math.round(Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1]) / 1_048_576);
  return { heapUsedMib: mib('nodejs_heap_size_used_bytes'), heapTotalMib: mib('nodejs_heap_size_total_bytes') };
}

function mostMib(samples: readonly Sample[]): number {
  return Math.max(...samples.map((sample) => sample.residentMib));
}

/** Slope of the line that fits best (least squares). */
function slopePerHour(samples: readonly Sample[], valueOf: (sample: Sample) => number): number {
  const mean = (of: (sample: Sample) => number) => samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const meanMinutes = mean(({ minutes }) => minutes);
  const covariance = mean((sample) => (sample.minutes - meanMinutes) * valueOf(sample));
  return (60 * covariance) / mean(({ minutes }) => (minutes - meanMinutes) ** 2);
}
