// How fast the engine is: sagas of three no-op steps, driven to their end by one worker process, against a bare chain of
// three BullMQ jobs in the same run. See docs/performance.md.
//
//   node bench/engine.ts [--sagas 20000] [--rounds 3] [--concurrency 200] [--spaced 100] [--json]
//     BENCH_PROFILE=<folder> writes a CPU profile of each contender's measured part there
//
// Redis with its append-only file, Postgres with fsync and synchronous_commit.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import postgres from 'postgres';
import { openDatabase } from '../src/db.ts';
import { startEmbeddedPostgres } from '../src/embedded-postgres/start-embedded-postgres.ts';
import { migrate } from '../src/migrate.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { latencySchema, throughputSchema } from './engine/contender.ts';
import type { Ask, Latency, Place, Throughput } from './engine/contender.ts';

const { values } = parseArgs({
  options: {
    sagas: { type: 'string', default: '20000' },
    // Of the part that measures latency, at 20 sagas a second.
    spaced: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '3' },
    concurrency: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
});
const sagas = Number(values.sagas);
const spaced = Number(values.spaced);
const rounds = Number(values.rounds);
const concurrency = Number(values.concurrency);

const contenders = ['bare-chain', 'arcadia'] as const;
type Name = (typeof contenders)[number];

const redis = await startPrivateRedis({ appendonly: 'yes', appendfsync: 'everysec' });
const server = await startEmbeddedPostgres({ settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on' } });
try {
  const throughputs = new Map<Name, Throughput[]>();
  const latencies = new Map<Name, Latency[]>();
  for (let round = 1; round <= rounds; round += 1) {
    for (const name of contenders) {
      const throughput = throughputSchema.parse(await run(name, { kind: 'throughput', sagas, ...(await freshPlace(`t_${name}_${round}`)) }));
      const latency = latencySchema.parse(await run(name, { kind: 'latency', sagas: spaced, sagasPerSecond: 20, ...(await freshPlace(`l_${name}_${round}`)) }));
      throughputs.set(name, [...(throughputs.get(name) ?? []), throughput]);
      latencies.set(name, [...(latencies.get(name) ?? []), latency]);
      process.stderr.write(`round ${round} ${name}: ${JSON.stringify({ ...throughput, ...latency })}\n`);
    }
  }
  const results = contenders.map((name) => {
    const runs = throughputs.get(name) ?? [];
    return {
      name,
      sagasPerSecond: median(runs.map((one) => one.sagasPerSecond)),
      workerCpu: median(runs.map((one) => one.workerCpu)),
      postgresCpu: median(runs.map((one) => one.postgresCpu)),
      redisCpu: median(runs.map((one) => one.redisCpu)),
      p50Ms: median((latencies.get(name) ?? []).map(({ p50Ms }) => p50Ms)),
      p99Ms: median((latencies.get(name) ?? []).map(({ p99Ms }) => p99Ms)),
    };
  });
  const [baseline] = results;
  const withRatios = results.map((one) => ({
    ...one,
    ofBareChain: one.sagasPerSecond / (baseline?.sagasPerSecond ?? 1),
    latencyOfBareChain: one.p50Ms / (baseline?.p50Ms ?? 1),
  }));
  if (values.json) process.stdout.write(`${JSON.stringify({ sagas, rounds, concurrency, results: withRatios })}\n`);
  else print(withRatios);
} finally {
  await Promise.all([redis.stop(), server.stop()]);
}

function print(rows: readonly Readonly<Record<'sagasPerSecond' | 'workerCpu' | 'postgresCpu' | 'redisCpu' | 'p50Ms' | 'p99Ms' | 'ofBareChain' | 'latencyOfBareChain', number> & { name: string }>[]): void {
  const table = new Table({ head: ['system', 'sagas/s', 'of the bare chain', 'worker CPU s per 1,000', 'Postgres', 'Redis', 'p50 at 20/s', 'p99', 'p50 of the bare chain'] });
  for (const row of rows) {
    table.push([
      row.name,
      row.sagasPerSecond.toFixed(0),
      `${(100 * row.ofBareChain).toFixed(0)} %`,
      row.workerCpu.toFixed(2),
      row.postgresCpu.toFixed(2),
      row.redisCpu.toFixed(2),
      `${row.p50Ms.toFixed(1)} ms`,
      `${row.p99Ms.toFixed(1)} ms`,
      `${row.latencyOfBareChain.toFixed(1)} x`,
    ]);
  }
  process.stdout.write(`${table.toString()}\n`);
}

/** A database of the run's own, and the Redis that all share: each contender has its own prefix. */
async function freshPlace(name: string): Promise<Place> {
  const admin = postgres(server.url, { max: 1 });
  const database = name.replaceAll('-', '_');
  await admin.unsafe(`create database ${database}`);
  await admin.end();
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  const db = openDatabase(url.href, { max: 1 });
  await migrate(db, 'default');
  await db.close();
  return { databaseUrl: url.href, redisUrl: redis.url, concurrency, postgresPid: server.pid, redisPid: redis.pid };
}

/** Asks a contender in a process of its own. Its log goes nowhere, as a process's log goes somewhere. */
async function run(name: Name, ask: Ask): Promise<unknown> {
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

function median(numbers: readonly number[]): number {
  return numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
