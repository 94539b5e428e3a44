// What a database of millions of sagas costs: each migration with its locks, the start of a saga and its steps, the pages, the
// state of the fleet, a pass of the reconciler over all that wait, and retention.
//
//   node bench/many.ts [--finished 1000000] [--events 6] [--waiting 100000] [--expired 50000] [--calls 500] [--from 20]
//     [--retention-seconds 30] [--reconciled 20000] [--small] [--json]
//     --events: of each finished saga; 6 as a real provision has, or 2: the first and the last
//     --from: the version of the schema that is filled; the migrations after it are measured
//     --reconciled: how many of the waiting sagas are due at once in the reconciler's pass
//
// Ends with exit code 1 where a limit is missed: see `limits`.
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { dropletApp } from '../src/droplets/app.ts';
import { readFleetFacts } from '../src/fleet/facts.ts';
import { hasResource } from '../src/inventory/expire.ts';
import { loadConfig } from '../src/platform/config.ts';
import type { Database, ReservedSql } from '../src/platform/db.ts';
import { openDatabase, reserveConnection } from '../src/platform/db.ts';
import { directIo } from '../src/platform/io.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrate } from '../src/processes/migrate.ts';
import { startWeb } from '../src/processes/web.ts';
import { openQueueConnection } from '../src/queues/connection.ts';
import { openStepQueues } from '../src/queues/step-queues.ts';
import { sagaExpiry } from '../src/saga/expire.ts';
import { reconcile } from '../src/saga/reconciler.ts';
import { retain } from '../src/saga/retention.ts';
import { startSaga } from '../src/saga/start.ts';
import { countByStatus, readBacklog } from '../src/saga/stats.ts';
import { createSagaStore, loadSaga } from '../src/saga/store.ts';
import { decide } from '../src/saga/transition.ts';
import { writeProvisions } from '../test/support/many-provisions.ts';
import { migrateTo, migrationFolder } from '../test/support/migrate-to.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { createDatabase, dropletInput } from './fleet.ts';
import { readOptions } from './options.ts';
import { median, report } from './report.ts';

const options = readOptions(
  { finished: 1_000_000, events: 6, waiting: 100_000, expired: 50_000, calls: 500, from: 20, 'retention-seconds': 30, reconciled: 20_000 },
  { finished: 2_000, waiting: 300, expired: 600, calls: 20, from: 20, 'retention-seconds': 10, reconciled: 300 },
);
const { finished, events, waiting, expired, calls, from, reconciled } = options;

// What an operator expects. Times in milliseconds. With --small nothing is held to them.
const limits = { pageMs: 50, passMs: 1_000, growth: 1.5, retainedPerSecond: 500 };

const HOUR_MS = 3_600_000;
const ROUNDS = 9;
const policy = { stepAttempts: 5, stepBackoffMs: 1_000, compensationAttempts: 20 };

const redis = await startPrivateRedis({ appendonly: 'yes', appendfsync: 'everysec' });
const server = await startEmbeddedPostgres({
  settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', wal_level: 'minimal', max_wal_senders: '0', max_wal_size: '4GB', shared_buffers: '1GB' },
});
try {
  const few = await open('few');
  await migrate(few.db, 'default');
  await fill(few.db, { finished: 1_000, expired: 0, waiting: Math.min(waiting, 2 * calls) });
  const many = await open('many');
  await migrateOn(many.db, from);
  await fill(many.db, { finished, expired, waiting });
  const migrations = await measureMigrations(many.db);
  const engine = await measureEngine(few.db, many.db);
  const reads = await measureReads(many);
  const reconciler = await measureReconciler(many.db);
  const retention = await measureRetention(many.db);
  const missed = missedLimits({ engine, reads, reconciler, retention });
  report({ part: 'many', finished, events, waiting, migrations, engine, reads, reconciler, retention, missed }, tablesOf({ migrations, engine, reads, reconciler, retention }), options);
  if (missed.length > 0 && !options.small) {
    process.stderr.write(`limits missed:\n${missed.map((line) => `  ${line}\n`).join('')}`);
    process.exitCode = 1;
  }
  await Promise.all([few.db.close(), many.db.close()]);
} finally {
  await Promise.all([redis.stop(), server.stop()]);
}

type Opened = Readonly<{ url: string; db: Database }>;

async function open(name: string): Promise<Opened> {
  const url = await createDatabase(server.url, name);
  return { url, db: openDatabase(url, { max: 10, timeoutMs: 3_600_000 }) };
}

async function migrateOn(db: Database, version: number): Promise<void> {
  await db.sql`create schema if not exists arcadia`;
  await migrateTo((statement) => db.sql.unsafe<Record<string, unknown>[]>(statement), version);
}

async function fill(db: Database, { finished: ended, expired: old, waiting: open }: { finished: number; expired: number; waiting: number }): Promise<void> {
  const began = performance.now();
  await writeProvisions(db, { finished: ended, expired: old, waiting: open, stuck: Math.min(200, Math.ceil(ended / 100)), resourceEvery: 10, allEvents: events > 2 });
  const [size] = await db.sql<{ size: string }[]>`select pg_size_pretty(pg_database_size(current_database())) as size`;
  progress(`${ended} finished sagas, ${open} that wait: ${size?.size}, in ${secondsSince(began)} s`);
}

type Migration = Readonly<{ file: string; seconds: number; locks: string; standstillMs: number }>;

/** Applies one migration after another, each in a transaction, while a saga moves on and others start. */
async function measureMigrations(db: Database): Promise<Migration[]> {
  const files = (await readdir(migrationFolder)).toSorted();
  const measured: Migration[] = [];
  const connection = await reserveConnection(db);
  const probe = startProbe(db);
  for (const file of files.filter((name) => Number.parseInt(name, 10) > from)) {
    const began = performance.now();
    await connection`begin`;
    await migrateTo((statement) => connection.unsafe<Record<string, unknown>[]>(statement), Number.parseInt(file, 10));
    const locks = await readLocks(connection);
    await connection`commit`;
    const ended = performance.now();
    await delay(300);
    measured.push({ file, seconds: (ended - began) / 1_000, locks, standstillMs: probe.longestBetween(began, ended) });
    progress(JSON.stringify(measured.at(-1)));
  }
  connection.release();
  await probe.stop();
  await migrate(db, 'default');
  await db.sql`vacuum (analyze, parallel 0)`;
  return measured;
}

/** The locks of this transaction that keep the writes of others waiting. */
async function readLocks(connection: ReservedSql): Promise<string> {
  const rows = await connection<{ name: string; mode: string }[]>`
    select relation::regclass::text as name, string_agg(mode, ', ' order by mode) as mode from pg_locks join pg_class on pg_class.oid = relation
    where pid = pg_backend_pid() and granted and relkind = 'r' and relnamespace = 'arcadia'::regnamespace and relation::regclass::text = any('{arcadia.sagas,arcadia.saga_events,arcadia.audit,arcadia.cloud_resources,arcadia.cloud_provisioned}')
      and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    group by 1 order by 1`;
  return rows.map(({ name, mode }) => `${name.replace('arcadia.', '')}: ${mode.replaceAll('Lock', '')}`).join('; ') || 'none';
}

/** A saga that moves on and one that starts, every few milliseconds, in words that every version of the schema knows. */
function startProbe(db: Database) {
  const samples: { from: number; to: number }[] = [];
  const state = { isOver: false };
  const measured = async (write: () => Promise<unknown>) => {
    while (!state.isOver) {
      const began = performance.now();
      await write();
      samples.push({ from: began, to: performance.now() });
      await delay(20);
    }
  };
  const start = () => db.sql<{ id: string }[]>`
    with made as (insert into arcadia.sagas (id, saga8, name, status, steps, input, wake_at)
      select id, left(id::text, 8), 'probe', 'running', '{wait}', '{}', clock_timestamp() + interval '1 hour' from (select gen_random_uuid() as id) as new on conflict do nothing returning id),
    event as (insert into arcadia.saga_events (saga_id, seq, kind) select id, 0, 'saga_created' from made)
    insert into arcadia.audit (actor, action, saga_id) select 'probe', 'saga_created', id from made returning saga_id as id`;
  const move = async () => {
    const [saga] = await db.sql<{ id: string }[]>`select id from arcadia.sagas where name = 'probe' order by created_at desc limit 1`;
    if (saga === undefined) return;
    await db.sql`
      with moved as (update arcadia.sagas set revision = revision + 1, updated_at = clock_timestamp() where id = ${saga.id} returning id, revision)
      insert into arcadia.saga_events (saga_id, seq, kind) select id, revision, 'step_retried' from moved`;
  };
  const running = Promise.all([measured(start), measured(move)]);
  return {
    longestBetween: (began: number, ended: number) => Math.max(0, ...samples.filter(({ from: one, to }) => one < ended && to > began).map(({ from: one, to }) => to - one)),
    stop: async () => {
      state.isOver = true;
      await running;
      await db.sql`delete from arcadia.sagas where name = 'probe'`;
    },
  };
}

type Times = Readonly<{ p50Ms: number; p99Ms: number }>;
type EngineTimes = Readonly<{ beside: string; start: Times; poll: Times; transition: Times; togetherMs: number }>;

/** One saga at a time, and the same number of transitions at once: in turns beside few and many, as the machine's speed changes. */
async function measureEngine(few: Database, many: Database): Promise<EngineTimes[]> {
  const runs = [await engineRun('few', few), await engineRun('many', many)];
  const eachInTurns = async (what: 'start' | 'poll' | 'move') => {
    const times = runs.map((): number[] => []);
    for (let call = 0; call < calls; call += 1) {
      for (const [index, run] of runs.entries()) times[index]?.push(await run[what](call));
    }
    return times.map(quantiles);
  };
  const [start, poll, transition] = [await eachInTurns('start'), await eachInTurns('poll'), await eachInTurns('move')];
  const measured: EngineTimes[] = [];
  for (const [index, { beside, together }] of runs.entries()) {
    const none = { p50Ms: Number.NaN, p99Ms: Number.NaN };
    measured.push({ beside, start: start[index] ?? none, poll: poll[index] ?? none, transition: transition[index] ?? none, togetherMs: await together() });
    progress(JSON.stringify(measured.at(-1)));
  }
  return measured;
}

async function engineRun(beside: string, db: Database) {
  const store = createSagaStore(db, { worker: 'bench:1', reconcileGraceMs: HOUR_MS });
  const open = await db.sql<{ id: string; revision: number }[]>`select id, revision from arcadia.sagas where wake_at is not null order by md5(id::text) limit ${2 * calls}`;
  const move = async (id: string) => {
    const loaded = await loadSaga(db, id);
    if (loaded === null) throw new Error(`saga ${id} is gone`);
    const transition = decide(loaded.saga, { kind: 'done', outputs: { public_ipv4: '198.18.0.9' }, note: 'droplet is active' }, policy, 0.5);
    if ('refused' in transition) throw new Error(transition.refused);
    return msOf(async () => {
      const result = await store.commit(transition);
      if (result !== 'applied') throw new Error(`saga ${id}: ${result}`);
    });
  };
  const saga = (call: number) => open[call] ?? { id: '', revision: 0 };
  return {
    beside,
    start: (call: number) => msOf(() => startSaga(db, dropletApp.catalog, { name: 'provision_droplet', input: { name: `new-${call}`, ...dropletInput } }, HOUR_MS)),
    poll: (call: number) => msOf(() => store.claim({ sagaId: saga(call).id, revision: saga(call).revision })),
    move: (call: number) => move(saga(call).id),
    /** Milliseconds for each of many that are written at once. */
    together: async () => {
      const rest = open.slice(calls);
      return (await msOf(() => Promise.all(rest.map(({ id }) => move(id))))) / Math.max(1, rest.length);
    },
  };
}

async function msOf(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function quantiles(times: readonly number[]): Times {
  const sorted = times.toSorted((first, second) => first - second);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

type Read = Readonly<{ read: string; firstMs: number; medianMs: number; isPage: boolean }>;

/** Pages over HTTP, as a browser gets them, and what the command line reads. */
async function measureReads({ url, db }: Opened): Promise<Read[]> {
  const [some] = await db.sql<{ id: string; saga8: string; dropletId: string; name: string }[]>`
    select id, saga8, context->>'droplet_id' as droplet_id, input->>'name' as name from arcadia.sagas where name = 'provision_droplet' and status = 'completed' order by created_at limit 1`;
  const web = await startWeb(loadConfig({ ARCADIA_ENV: 'default', DATABASE_URL: url, REDIS_URL: redis.url, PORT: '0' }), silentLog, { app: dropletApp });
  const get = (path: string) => async () => {
    const response = await fetch(`${web.url}${path}`);
    await response.arrayBuffer();
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
  };
  const pages: Record<string, () => Promise<void>> = {
    'the list of sagas': get('/sagas'),
    'those that need attention': get('/sagas?status=stuck'),
    'those that were rolled back': get('/sagas?status=compensated'),
    'those of one requester': get('/sagas?requester=user-7'),
    'oldest first': get('/sagas?sort=-age'),
    "by the saga's id": get(`/sagas?q=${some?.id}`),
    'by its first 8 characters': get(`/sagas?q=${some?.saga8}`),
    "by the droplet's id": get(`/sagas?q=${some?.dropletId}`),
    "by the subject's name, one of the oldest": get(`/sagas?q=${some?.name}`),
    'by a part of many names': get('/sagas?q=web-77'),
    'by a name that nothing has': get('/sagas?q=no-such-name'),
    'one saga': get(`/sagas/${some?.id}`),
    'the fleet': get('/fleet'),
    'GET /v1/sagas': get('/v1/sagas'),
    'GET /v1/sagas?droplet_id=…': get(`/v1/sagas?droplet_id=${some?.dropletId}`),
    'GET /metrics': get('/metrics'),
  };
  const statements: Record<string, () => Promise<unknown>> = {
    'arcadia status': () => readFleetFacts(db),
    'metrics: sagas by name and status': () => countByStatus(db),
    'metrics: backlog': () => readBacklog(db),
  };
  try {
    const reads: Read[] = [];
    for (const [all, isPage] of [[pages, true], [statements, false]] as const) {
      for (const [read, once] of Object.entries(all)) {
        const times: number[] = [];
        for (let round = 0; round < ROUNDS; round += 1) {
          times.push(await msOf(() => once().catch((error: unknown) => progress(`${read}: ${String(error)}`))));
          await delay(options.small ? 0 : 150);
        }
        reads.push({ read, firstMs: times[0] ?? Number.NaN, medianMs: median(times.slice(1)), isPage });
        progress(JSON.stringify(reads.at(-1)));
      }
    }
    return reads;
  } finally {
    await web.close();
  }
}

/** All that wait have their job, and are due at once: as after an outage, or every grace period in the middle of a long wait. */
async function measureReconciler(db: Database) {
  const connection = openQueueConnection({ kind: 'redis', nodes: [redis.url], prefix: '{many}' }, silentLog);
  const queues = openStepQueues(connection, directIo);
  const store = createSagaStore(db, { worker: 'bench:1', reconcileGraceMs: HOUR_MS });
  /** Passes until nothing is overdue, one after the other as in a worker. */
  const passes = async () => {
    const began = performance.now();
    const all: { ms: number; overdue: number }[] = [];
    do {
      const from = performance.now();
      const { overdue } = await reconcile({ store, ensure: queues.ensure, log: silentLog });
      all.push({ ms: performance.now() - from, overdue });
    } while ((all.at(-1)?.overdue ?? 0) > 0);
    const sagas = all.reduce((sum, { overdue }) => sum + overdue, 0);
    const totalMs = performance.now() - began;
    return { sagas, totalMs, medianMs: median(all.map(({ ms }) => ms)), longestMs: Math.max(...all.map(({ ms }) => ms)), perSecond: (sagas / totalMs) * 1_000 };
  };
  const makeDue = () => db.sql`
    update arcadia.sagas set wake_at = clock_timestamp() where id in (select id from arcadia.sagas where wake_at is not null and status = 'running' order by created_at limit ${reconciled})`;
  try {
    await passes();
    const idle = await passes();
    await makeDue();
    const withoutJobs = await passes();
    progress(`reconciler, no job left: ${JSON.stringify(withoutJobs)}`);
    await makeDue();
    const withJobs = await passes();
    progress(`reconciler, each has its job: ${JSON.stringify(withJobs)}`);
    return { idle, withoutJobs, withJobs };
  } finally {
    await queues.close();
    await connection.close();
  }
}

/** Retention for a time, and starts beside it. */
async function measureRetention(db: Database) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), options['retention-seconds'] * 1_000);
  const passing = { isOver: false };
  const began = performance.now();
  const deleting = retain({ db, expiries: [sagaExpiry(db, 90, hasResource(90))], log: silentLog, signal: stop.signal, everyMs: 0 }).finally(() => {
    passing.isOver = true;
    clearTimeout(timer);
  });
  const times: number[] = [];
  while (!passing.isOver) {
    times.push(await msOf(() => startSaga(db, dropletApp.catalog, { name: 'provision_droplet', input: { name: 'beside', ...dropletInput } }, HOUR_MS)));
    await delay(10);
  }
  const deleted = (await deleting)?.['sagas'] ?? 0;
  const seconds = (performance.now() - began) / 1_000;
  return { deleted, seconds, perSecond: deleted / seconds, startBeside: quantiles(times) };
}

type Figures = Readonly<{
  migrations: readonly Migration[];
  engine: readonly EngineTimes[];
  reads: readonly Read[];
  reconciler: Awaited<ReturnType<typeof measureReconciler>>;
  retention: Awaited<ReturnType<typeof measureRetention>>;
}>;

function missedLimits({ engine, reads, reconciler, retention }: Omit<Figures, 'migrations'>): string[] {
  const [few, many] = engine;
  const grown = (['start', 'poll', 'transition'] as const).flatMap((what) => {
    const ratio = (many?.[what].p50Ms ?? Number.NaN) / (few?.[what].p50Ms ?? Number.NaN);
    return ratio <= limits.growth ? [] : [`${what}: ${ratio.toFixed(2)} times that of a small database, at most ${limits.growth}`];
  });
  const slow = reads.filter(({ isPage, medianMs }) => isPage && medianMs > limits.pageMs).map(({ read, medianMs }) => `${read}: ${medianMs.toFixed(0)} ms, at most ${limits.pageMs}`);
  const pass = Object.entries(reconciler).flatMap(([name, { medianMs }]) => (medianMs > limits.passMs ? [`a pass of the reconciler, ${name}: ${medianMs.toFixed(0)} ms, at most ${limits.passMs}`] : []));
  const retained = retention.perSecond < limits.retainedPerSecond ? [`retention: ${retention.perSecond.toFixed(0)} sagas a second, at least ${limits.retainedPerSecond}`] : [];
  return [...grown, ...slow, ...pass, ...retained];
}

function both({ p50Ms, p99Ms }: Times): string {
  return `${p50Ms.toFixed(2)}, ${p99Ms.toFixed(2)}`;
}

function tablesOf({ migrations, engine, reads, reconciler, retention }: Figures): string[] {
  const migrated = new Table({ head: ['migration', 's', 'locks that writes wait for', 'a write waited at most, ms'] });
  for (const { file, seconds, locks, standstillMs } of migrations) migrated.push([file, seconds.toFixed(2), locks, standstillMs.toFixed(0)]);
  const engineTable = new Table({ head: ['p50, p99 in ms', 'start', 'read of a poll', 'transition', 'each of many at once'] });
  for (const { beside, start, poll, transition, togetherMs } of engine) engineTable.push([`beside ${beside}`, both(start), both(poll), both(transition), togetherMs.toFixed(2)]);
  const readTable = new Table({ head: ['read', 'first, ms', 'median, ms'] });
  for (const { read, firstMs, medianMs } of reads) readTable.push([read, firstMs.toFixed(0), medianMs.toFixed(1)]);
  const passes = new Table({ head: ['passes of the reconciler', 'sagas', 'all, s', 'sagas a second', 'a pass, median ms', 'longest'] });
  for (const [name, one] of Object.entries(reconciler)) passes.push([name, one.sagas, (one.totalMs / 1_000).toFixed(2), one.perSecond.toFixed(0), one.medianMs.toFixed(0), one.longestMs.toFixed(0)]);
  const retained = new Table({ head: ['retention', 'sagas', 's', 'a second', 'a start beside it, p50, p99 ms'] });
  retained.push(['deleted', retention.deleted, retention.seconds.toFixed(1), retention.perSecond.toFixed(0), both(retention.startBeside)]);
  return [migrated, engineTable, readTable, passes, retained].map(String);
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`);
}

function secondsSince(began: number): number {
  return Math.round((performance.now() - began) / 100) / 10;
}
