// How fast the engine is: sagas of three no-op steps, driven to their end by one worker process, against a bare chain of
// three BullMQ jobs, against the same chain with a commit a step, and against the same saga written by hand on other
// engines and queues, in the same run. See docs/explanation/performance.md.
//
//   node bench/engine.ts [--contenders bare-chain,arcadia,…] [--sagas 20000] [--slow-sagas 5000] [--spaced 100]
//     [--rounds 3] [--concurrency 200] [--small] [--json]
//     --slow-sagas: number of sagas for DBOS, openworkflow and graphile-worker, which commit at least once a step. Figures are
//     per second or per 1,000 sagas; the table shows the number
//     OUTCOME_NOTIFY=false measures the engine without notifications of outcomes
//     BENCH_PROFILE=<folder> writes a CPU profile of each contender's measured part there
//
// Redis with its append-only file, Postgres with fsync and synchronous_commit. The packages of the other engines are those
// of bench/package.json: npm ci --prefix bench
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Redis } from 'ioredis';
import { openDatabase } from '../src/platform/db.ts';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { migrate } from '../src/processes/migrate.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { latencySchema, throughputSchema } from './engine/contender.ts';
import type { Ask, Latency, Place, Throughput } from './engine/contender.ts';
import { createDatabase } from './fleet.ts';
import { readOptions } from './options.ts';
import { median, report } from './report.ts';

const all = ['bare-chain', 'durable-chain', 'arcadia', 'dbos', 'openworkflow', 'graphile-worker', 'pg-boss'];
const withoutPackages = ['bare-chain', 'durable-chain', 'arcadia'];
const slow = ['dbos', 'openworkflow', 'graphile-worker'];
const SPACED_PER_SECOND = 20;

const options = readOptions(
  { contenders: all.join(','), sagas: 20_000, 'slow-sagas': 5_000, spaced: 100, rounds: 3, concurrency: 200 },
  { sagas: 20, 'slow-sagas': 20, spaced: 3, rounds: 1, concurrency: 20 },
);
const contenders = options.contenders.split(',');
const unknown = contenders.filter((name) => !all.includes(name));
if (unknown.length > 0) throw new Error(`--contenders: ${unknown.join(', ')}: none of ${all.join(', ')}`);
if (!contenders.every((name) => withoutPackages.includes(name)) && !existsSync(new URL('node_modules', import.meta.url))) {
  throw new Error('the packages of the other engines are not installed: run "npm ci --prefix bench", or choose --contenders bare-chain,arcadia');
}
const sagasOf = (name: string) => (slow.includes(name) ? options['slow-sagas'] : options.sagas);

const redis = await startPrivateRedis({ appendonly: 'yes', appendfsync: 'everysec' });
const keys = new Redis(redis.url);
const server = await startEmbeddedPostgres({ settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on' } });
try {
  const throughputs = new Map<string, Throughput[]>();
  const latencies = new Map<string, Latency[]>();
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const name of contenders) {
      const throughput = throughputSchema.parse(await run(name, { kind: 'throughput', sagas: sagasOf(name), ...(await freshPlace(`t_${name}_${round}`)) }));
      const latency = latencySchema.parse(await run(name, { kind: 'latency', sagas: options.spaced, sagasPerSecond: SPACED_PER_SECOND, ...(await freshPlace(`l_${name}_${round}`)) }));
      throughputs.set(name, [...(throughputs.get(name) ?? []), throughput]);
      latencies.set(name, [...(latencies.get(name) ?? []), latency]);
      process.stderr.write(`round ${round} ${name}: ${JSON.stringify({ ...throughput, ...latency })}\n`);
    }
  }
  const medians = contenders.map((name) => {
    const of = (key: keyof Throughput) => median((throughputs.get(name) ?? []).map((one) => one[key]));
    const timeOf = (key: keyof Latency) => median((latencies.get(name) ?? []).map((one) => one[key]));
    const costs = { workerCpu: of('workerCpu'), postgresCpu: of('postgresCpu'), redisCpu: of('redisCpu') };
    return { name, sagas: sagasOf(name), sagasPerSecond: of('sagasPerSecond'), ...costs, p50Ms: timeOf('p50Ms'), p99Ms: timeOf('p99Ms') };
  });
  const bare = medians.find(({ name }) => name === 'bare-chain');
  const results = medians.map((one) => ({
    ...one,
    ofBareChain: bare === undefined ? null : one.sagasPerSecond / bare.sagasPerSecond,
    latencyOfBareChain: bare === undefined ? null : one.p50Ms / bare.p50Ms,
  }));
  report({ part: 'engine', rounds: options.rounds, concurrency: options.concurrency, results }, [tableOf(results)], options);
} finally {
  keys.disconnect();
  await Promise.all([redis.stop(), server.stop()]);
}

type Result = Throughput & Latency & Readonly<{ name: string; sagas: number; ofBareChain: number | null; latencyOfBareChain: number | null }>;

function tableOf(results: readonly Result[]): string {
  const table = new Table({ head: ['system', 'sagas', 'sagas/s', 'of the bare chain', 'worker CPU s per 1,000', 'Postgres', 'Redis', 'p50 at 20/s', 'p99', 'p50 of the bare chain'] });
  for (const one of results) {
    table.push([
      one.name,
      one.sagas,
      one.sagasPerSecond.toFixed(0),
      one.ofBareChain === null ? '' : `${(100 * one.ofBareChain).toFixed(0)} %`,
      one.workerCpu.toFixed(2),
      one.postgresCpu.toFixed(2),
      one.redisCpu.toFixed(2),
      `${one.p50Ms.toFixed(1)} ms`,
      `${one.p99Ms.toFixed(1)} ms`,
      one.latencyOfBareChain === null ? '' : `${one.latencyOfBareChain.toFixed(1)} x`,
    ]);
  }
  return table.toString();
}

/** A database for this run, and one Redis for all contenders, each with its own prefix. */
async function freshPlace(name: string): Promise<Place> {
  const databaseUrl = await createDatabase(server.url, name.replaceAll('-', '_'));
  const db = openDatabase(databaseUrl, { max: 1, timeoutMs: 60_000 });
  await migrate(db, 'default');
  // Flush to disk first, so that this contender does not pay for the writes of earlier ones.
  await db.sql`checkpoint`;
  await keys.flushall();
  await db.close();
  return { databaseUrl, redisUrl: redis.url, concurrency: options.concurrency, postgresPid: server.pid, redisPid: redis.pid };
}

/** Runs a contender in its own process and asks it for figures. Its log is discarded. */
async function run(name: string, ask: Ask): Promise<unknown> {
  const program = fileURLToPath(new URL(`engine/${name}.ts`, import.meta.url));
  const child = fork(program, { stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'] });
  child.send(ask);
  const ended = once(child, 'exit').then(([code]: unknown[]) => {
    throw new Error(`${name} ended with ${String(code)} and said nothing`);
  });
  ended.catch(() => undefined);
  const [reply]: unknown[] = await Promise.race([once(child, 'message'), ended]);
  return reply;
}
