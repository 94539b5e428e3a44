// Measures the cost of a large database: a new saga beside a million finished and 5,000 waiting ones, compared in the same run
// with a saga in an empty database; the list of sagas and its search; and retention while sagas are started.
//
//   node bench/growth.ts [--finished 1000000] [--waiting 5000] [--expired 100000] [--sagas 10000] [--rounds 3]
//     [--quiet 15] [--small] [--json]
//     --quiet: seconds of starts without retention, as the baseline for starts during retention
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { z } from 'zod';
import type { Database } from '../src/platform/db.ts';
import { openDatabase } from '../src/platform/db.ts';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { hasResource } from '../src/inventory/expire.ts';
import type { JsonObject } from '../src/platform/json.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrate } from '../src/processes/migrate.ts';
import { sagaExpiry } from '../src/saga/expire.ts';
import { ofDroplet } from '../src/inventory/droplet-of-saga.ts';
import { readOverview } from '../src/saga/overview.ts';
import { retain } from '../src/saga/retention.ts';
import { searchSagas } from '../src/saga/search.ts';
import type { SagaFilter } from '../src/saga/filter.ts';
import { startSaga } from '../src/saga/start.ts';
import { countByStatus, readBacklog, readStepStats } from '../src/saga/stats.ts';
import { done } from '../src/saga/step.ts';
import { loadSaga, takeOverdue } from '../src/saga/store.ts';
import { writeSagas } from '../test/support/many-sagas.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import type { Ask, Throughput } from './engine/contender.ts';
import { throughputSchema } from './engine/contender.ts';
import { createDatabase } from './fleet.ts';
import { readOptions } from './options.ts';
import { median, report } from './report.ts';

const options = readOptions(
  { finished: 1_000_000, waiting: 5_000, expired: 100_000, sagas: 10_000, rounds: 3, quiet: 15 },
  { finished: 2_000, waiting: 10, expired: 500, sagas: 20, rounds: 1, quiet: 0.5 },
);
const { finished, waiting, expired, sagas, rounds } = options;

// Few enough that one statement finishes before its deadline.
const AT_ONCE = 20_000;
const EVENTS_EACH = 5;
const HOUR_MS = 3_600_000;

const redis = await startPrivateRedis({ appendonly: 'yes', appendfsync: 'everysec' });
const server = await startEmbeddedPostgres({ settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', max_wal_size: '8GB', shared_buffers: '512MB' } });
const grown = await createMigrated('grown');
try {
  await grow(grown.db);
  const costs = await compareCosts();
  const reads = await measureReads(grown.db);
  const retention = await measureRetention(grown.db);
  report({ part: 'growth', finished, waiting, expired, sagas, rounds, costs, reads, retention }, tablesOf(costs, reads, retention), options);
} finally {
  await grown.db.close();
  await Promise.all([redis.stop(), server.stop()]);
}

async function createMigrated(name: string): Promise<{ url: string; db: Database }> {
  const url = await createDatabase(server.url, name);
  const db = openDatabase(url, { max: 10, timeoutMs: 600_000 });
  await migrate(db, 'default');
  return { url, db };
}

async function grow(db: Database): Promise<void> {
  const from = performance.now();
  const write = async (count: number, daysAgo: number) => {
    for (let left = count; left > 0; left -= AT_ONCE) await writeSagas(db, { count: Math.min(AT_ONCE, left), status: 'completed', daysAgo, eventsEach: EVENTS_EACH });
  };
  await write(expired, 100);
  await write(finished - expired, 30);
  // The saga that the search below looks for; it is among the oldest.
  await db.sql`update arcadia.sagas set input = jsonb_set(input, '{name}', '"needle"') where id = (select id from arcadia.sagas order by created_at, id desc limit 1)`;
  await db.sql`vacuum analyze`;
  const [size] = await db.sql<{ size: string }[]>`select pg_size_pretty(pg_database_size(current_database())) as size`;
  process.stderr.write(`${finished} finished sagas: ${size?.size}, in ${seconds(from)} s\n`);
}

/** Alternates the runs, round by round, so that other load on the machine affects all of them alike. */
async function compareCosts() {
  const runs = {
    'an empty database': async (round: number) => {
      const empty = await createMigrated(`empty_${round}`);
      await empty.db.close();
      return run(empty.url, {});
    },
    'beside those that finished': () => run(grown.url, {}),
    'and those that wait, none due': () => run(grown.url, { BENCH_WAITING: String(waiting), BENCH_WAITING_MS: String(HOUR_MS) }),
    'and those that wait, looked at every 5 s': () => run(grown.url, { BENCH_WAITING: String(waiting), BENCH_WAITING_MS: '5000' }),
  };
  const measured = new Map<string, Throughput[]>();
  for (let round = 1; round <= rounds; round += 1) {
    for (const [name, measure] of Object.entries(runs)) {
      const throughput = await measure(round);
      await grown.db.sql`delete from arcadia.sagas where name = 'wait'`;
      measured.set(name, [...(measured.get(name) ?? []), throughput]);
      process.stderr.write(`round ${round}, ${name}: ${JSON.stringify(throughput)}\n`);
    }
  }
  const medians = [...measured].map(([name, all]) => {
    const of = (key: keyof Throughput) => median(all.map((one) => one[key]));
    return { name, sagasPerSecond: of('sagasPerSecond'), workerCpu: of('workerCpu'), postgresCpu: of('postgresCpu'), redisCpu: of('redisCpu') };
  });
  const [base] = medians;
  return medians.map((one) => ({ ...one, cpuRatio: base === undefined ? Number.NaN : cpuOf(one) / cpuOf(base) }));
}

async function run(databaseUrl: string, more: NodeJS.ProcessEnv): Promise<Throughput> {
  const program = fileURLToPath(new URL('engine/arcadia.ts', import.meta.url));
  const child = fork(program, { execArgv: [], env: { ...process.env, ...more }, stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'] });
  const ask: Ask = { kind: 'throughput', sagas, databaseUrl, redisUrl: redis.url, concurrency: 50, postgresPid: server.pid, redisPid: redis.pid };
  child.send(ask);
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('the measured process ended and said nothing')));
  ended.catch(() => undefined);
  const [reply]: unknown[] = await Promise.race([once(child, 'message'), ended]);
  return throughputSchema.parse(reply);
}

async function measureReads(db: Database) {
  const [some] = await db.sql<{ id: string; saga8: string; dropletId: string }[]>`select id, saga8, context->>'droplet_id' as droplet_id from arcadia.sagas where name = 'provision_droplet' limit 1 offset 1000`;
  const page = (filter: SagaFilter) => () => searchSagas(db, filter, { limit: 50 });
  const reads: Record<string, () => Promise<unknown>> = {
    'newest page': page({}),
    'page of the stuck': page({ status: ['stuck'] }),
    'page of the finished': page({ status: ['completed', 'compensated'] }),
    "by the saga's id": page({ query: some?.id }),
    'by its first 8 characters': page({ query: some?.saga8 }),
    "by the droplet's id": page({ field: ofDroplet(Number(some?.dropletId)) }),
    'by a common part of a name': page({ query: 'old-7' }),
    'by the name of one of the oldest': page({ query: 'needle' }),
    'by a name that nothing has': page({ query: 'no such thing' }),
    'counts by status': () => readOverview(db, {}),
    'counts of a search by name': () => readOverview(db, { query: 'needle' }),
    'metrics: sagas by name and status': () => countByStatus(db),
    'metrics: backlog': () => readBacklog(db),
    'metrics: steps of 15 minutes': () => readStepStats(db),
    'reconciler with nothing to do': () => takeOverdue(db, 200, 15_000),
  };
  const rows: { read: string; ms: number }[] = [];
  for (const [read, once] of Object.entries(reads)) {
    const times: number[] = [];
    for (let time = 0; time < 5; time += 1) {
      const from = performance.now();
      await once();
      times.push(performance.now() - from);
    }
    rows.push({ read, ms: median(times) });
  }
  return rows;
}

/** Starts and reads sagas one after another while retention deletes, and for the same time without retention. */
async function measureRetention(db: Database) {
  const noOp = { name: 'one', execute: () => Promise.resolve(done()), compensate: () => Promise.resolve(done()) };
  const catalog = { no_op: { input: z.custom<JsonObject>(), steps: [noOp] } };
  const callUntil = async (isOver: () => boolean) => {
    const times: number[] = [];
    while (!isOver()) {
      const from = performance.now();
      const { sagaId } = await startSaga(db, catalog, { name: 'no_op', input: {} }, HOUR_MS);
      await loadSaga(db, sagaId);
      times.push(performance.now() - from);
      await delay(5);
    }
    const sorted = times.toSorted((one, other) => one - other);
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
    return { calls: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
  };
  const quietUntil = performance.now() + options.quiet * 1_000;
  const without = await callUntil(() => performance.now() > quietUntil);
  const from = performance.now();
  const passing = { isOver: false };
  const deleting = retain({ db, expiries: [sagaExpiry(db, 90, hasResource(90))], log: silentLog, signal: new AbortController().signal, everyMs: 0 }).finally(() => (passing.isOver = true));
  const during = await callUntil(() => passing.isOver);
  return { deleted: (await deleting)?.['sagas'] ?? 0, seconds: seconds(from), without, during };
}

function tablesOf(costs: Awaited<ReturnType<typeof compareCosts>>, reads: Awaited<ReturnType<typeof measureReads>>, retention: Awaited<ReturnType<typeof measureRetention>>): string[] {
  const costTable = new Table({ head: ['a new saga', 'sagas/s', 'worker CPU s per 1,000', 'Postgres', 'Redis', 'CPU of the first'] });
  for (const one of costs) costTable.push([one.name, one.sagasPerSecond.toFixed(0), one.workerCpu.toFixed(2), one.postgresCpu.toFixed(2), one.redisCpu.toFixed(2), one.cpuRatio.toFixed(2)]);
  const readTable = new Table({ head: [`with ${finished} sagas`, 'ms'] });
  for (const { read, ms } of reads) readTable.push([read, ms.toFixed(1)]);
  const retentionTable = new Table({ head: [`${retention.deleted} sagas deleted in ${retention.seconds} s`, 'calls', 'p50 ms', 'p99 ms', 'max ms'] });
  for (const name of ['without', 'during'] as const) {
    const { calls, p50Ms, p99Ms, maxMs } = retention[name];
    retentionTable.push([`start and read a saga, ${name}`, calls, p50Ms.toFixed(1), p99Ms.toFixed(1), maxMs.toFixed(1)]);
  }
  return [costTable, readTable, retentionTable].map(String);
}

function cpuOf(one: Throughput): number {
  return one.workerCpu + one.postgresCpu + one.redisCpu;
}

function seconds(from: number): number {
  return Math.round((performance.now() - from) / 100) / 10;
}
