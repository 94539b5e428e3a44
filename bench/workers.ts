// Measures what a second worker process adds: sagas of three steps, enqueued before the clock starts and run by one worker and
// by two. Steps that do nothing keep the cores busy. Steps that wait, as for a response of DigitalOcean, leave them idle.
//
//   node bench/workers.ts [--workers 1,2] [--sagas 20000] [--rounds 3] [--step-ms 20] [--small] [--json]
//     A worker runs 20 waiting steps at once, and 200 of those that do not wait.
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { loadConfig } from '../src/platform/config.ts';
import { openDatabase } from '../src/platform/db.ts';
import type { Database } from '../src/platform/db.ts';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { directIo } from '../src/platform/io.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrate } from '../src/processes/migrate.ts';
import type { QueueConnection } from '../src/queues/connection.ts';
import { openQueueConnection, queueStoreOf } from '../src/queues/connection.ts';
import { queueNames } from '../src/queues/jobs.ts';
import { openStepQueues } from '../src/queues/step-queues.ts';
import { startSaga } from '../src/saga/start.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { noOpCatalog } from './engine/no-op.ts';
import { createDatabase } from './fleet.ts';
import { readOptions } from './options.ts';
import { median, report } from './report.ts';

const STARTS_AT_ONCE = 50;
// Keeps the reconciler away from sagas that are enqueued before the clock starts.
const SLACK_MS = 600_000;
// A saga whose steps wait takes much longer, so fewer of them are enough.
const WAITING_SHARE = 5;

type Row = Readonly<{ stepMs: number; workers: number; sagas: number; sagasPerSecond: number; ofOneWorker: number; idleCores: number }>;
type Round = Readonly<{ sagasPerSecond: number; idleCores: number }>;

const options = readOptions({ workers: '1,2', sagas: 20_000, rounds: 3, 'step-ms': 20 }, { sagas: 20, rounds: 1, 'step-ms': 1 });
const counts = options.workers.split(',').map(Number);
if (counts.some((count) => !Number.isInteger(count) || count < 1)) throw new Error(`--workers takes numbers, such as 1,2, not "${options.workers}"`);

const redis = await startPrivateRedis({ appendonly: 'yes', appendfsync: 'everysec' });
const postgres = await startEmbeddedPostgres({ settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on' } });
try {
  const rows = [...(await compare({ stepMs: 0, concurrency: 200, sagas: options.sagas })), ...(await compare({ stepMs: options['step-ms'], concurrency: 20, sagas: Math.ceil(options.sagas / WAITING_SHARE) }))];
  report({ part: 'workers', cores: cpus().length, rounds: options.rounds, rows }, [tableOf(rows)], options);
} finally {
  await Promise.all([redis.stop(), postgres.stop()]);
}

async function compare(asked: { stepMs: number; concurrency: number; sagas: number }): Promise<Row[]> {
  const rounds = new Map<number, Round[]>(counts.map((workers) => [workers, []]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const [workers, done] of rounds) {
      const measured = await measure(`w${asked.stepMs}_${workers}_${round}`, { ...asked, workers });
      process.stderr.write(`round ${round}, ${asked.stepMs} ms a step, ${workers} workers: ${JSON.stringify(measured)}\n`);
      done.push(measured);
    }
  }
  const medians = [...rounds].map(([workers, done]) => ({ workers, sagasPerSecond: median(done.map((one) => one.sagasPerSecond)), idleCores: median(done.map((one) => one.idleCores)) }));
  return medians.map((one) => ({ ...one, stepMs: asked.stepMs, sagas: asked.sagas, ofOneWorker: one.sagasPerSecond / (medians[0]?.sagasPerSecond ?? 1) }));
}

async function measure(name: string, { stepMs, concurrency, sagas, workers }: { stepMs: number; concurrency: number; sagas: number; workers: number }): Promise<Round> {
  const env = {
    PATH: process.env['PATH'],
    DATABASE_URL: await createDatabase(postgres.url, name),
    REDIS_URL: redis.url,
    QUEUE_PREFIX: `{${name}}`,
    DIGITALOCEAN_TOKEN: 'none',
    DIGITALOCEAN_API_URL: 'http://127.0.0.1:1',
    WORKER_CONCURRENCY: String(concurrency),
  };
  const db = openDatabase(env.DATABASE_URL, { max: 10 });
  const connection = openQueueConnection(queueStoreOf(loadConfig(env)), silentLog);
  const children: ChildProcess[] = [];
  try {
    await migrate(db, 'default');
    // The start of a process is not part of the measurement.
    const steps = connection.queue(queueNames.steps);
    await steps.pause();
    await preload(db, connection, sagas);
    const program = fileURLToPath(new URL('engine/no-op-worker.ts', import.meta.url));
    for (let index = 0; index < workers; index += 1) children.push(fork(program, [String(stepMs)], { env }));
    const ended = children.map((child) => once(child, 'exit').then(() => Promise.reject(new Error('a worker ended'))));
    await Promise.race([Promise.all(children.map((child) => once(child, 'message'))), ...ended]);
    const [idleFrom, from] = [idleSeconds(), performance.now()];
    await steps.resume();
    await Promise.race([untilDone(db), ...ended]);
    const seconds = (performance.now() - from) / 1_000;
    return { sagasPerSecond: sagas / seconds, idleCores: (idleSeconds() - idleFrom) / seconds };
  } finally {
    for (const child of children) child.removeAllListeners('exit').kill('SIGKILL');
    await connection.close();
    await db.close();
  }
}

async function preload(db: Database, connection: QueueConnection, sagas: number): Promise<void> {
  const queues = openStepQueues(connection, directIo);
  let left = sagas;
  const startSome = async () => {
    while ((left -= 1) >= 0) {
      const { firstJob } = await startSaga(db, noOpCatalog({}), { name: 'no_op', input: {} }, SLACK_MS);
      if (firstJob !== null) await queues.enqueue(firstJob);
    }
  };
  await Promise.all(Array.from({ length: STARTS_AT_ONCE }, startSome));
}

async function untilDone(db: Database): Promise<void> {
  for (;;) {
    const left = await db.sql`select 1 from arcadia.sagas where wake_at is not null limit 1`;
    if (left.length === 0) return;
    await delay(10);
  }
}

function idleSeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.idle, 0) / 1_000;
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({ head: ['ms a step', 'sagas', 'workers', 'sagas/s', 'of one worker', `cores idle, of ${cpus().length}`] });
  for (const row of rows) table.push([row.stepMs, row.sagas, row.workers, row.sagasPerSecond.toFixed(0), `${row.ofOneWorker.toFixed(2)} x`, row.idleCores.toFixed(2)]);
  return table.toString();
}
