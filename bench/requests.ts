// Counts the requests to DigitalOcean per provisioned droplet, from the sandbox's ledger: one saga alone, a hundred at once, a
// thousand at once. Each droplet becomes active after 30 s. Times are scaled down; the number of polls stays the same.
//
//   node bench/requests.ts [--sagas 1,100,1000] [--workers 2] [--scale 10] [--no-redis] [--small] [--json]
//     [--per-minute 250 --per-hour 5000]   rate limits that the sandbox enforces and the fleet knows
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { openClient } from '../src/client/open-client.ts';
import { loadConfig } from '../src/platform/config.ts';
import { openDatabase } from '../src/platform/db.ts';
import { startSandbox } from '../src/sandbox/server.ts';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { migrate } from '../src/processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../src/queues/connection.ts';
import { listSagas } from '../test/support/list-sagas.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { createDatabase } from './fleet.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Row = { sagas: number; completed: number; requests: number; perDroplet: number; limit: number | null; byRoute: Record<string, number>; throttled: number; seconds: number };

const ACTIVE_AFTER_MS = 30_000;
const POLL_INTERVAL_MS = 5_000;
const limits: Readonly<Record<number, number>> = { 1: 8, 100: 3.3, 1_000: 2.5 };

// A limit of 0 means no limit.
const options = readOptions(
  { sagas: '1,100,1000', workers: 2, scale: 10, 'no-redis': false, 'per-minute': 0, 'per-hour': 0 },
  { sagas: '2,5', workers: 1, scale: 50 },
);
const { scale, workers: workerCount } = options;
const perMinute = options['per-minute'] === 0 ? null : options['per-minute'];
const perHour = options['per-hour'] === 0 ? null : options['per-hour'];

const postgres = await startEmbeddedPostgres();
const redis = options['no-redis'] ? null : await startPrivateRedis();
try {
  const rows: Row[] = [];
  for (const [index, sagas] of options.sagas.split(',').map(Number).entries()) rows.push(await measure(sagas, `requests_${index}`));
  report({ part: 'requests', scale, workers: workerCount, rows }, [tableOf(rows)], options);
  process.exitCode = rows.every((row) => row.completed === row.sagas && (row.limit === null || row.perDroplet <= row.limit)) ? 0 : 1;
} finally {
  await redis?.stop();
  await postgres.stop();
}

async function measure(sagas: number, database: string): Promise<Row> {
  const sandbox = await startSandbox({ activateAfterMs: ACTIVE_AFTER_MS / scale, ratePerMinute: perMinute, ratePerHour: perHour });
  const databaseUrl = await createDatabase(postgres.url, database);
  const env = {
    PATH: process.env['PATH'],
    DATABASE_URL: databaseUrl,
    ...(redis === null ? {} : { REDIS_URL: redis.url }),
    QUEUE_PREFIX: `{${database}}`,
    DIGITALOCEAN_API_URL: sandbox.url,
    DIGITALOCEAN_TOKEN: 'bench',
    DIGITALOCEAN_REQUESTS_PER_MINUTE: String(perMinute ?? 1_000_000),
    DIGITALOCEAN_REQUESTS_PER_HOUR: String(perHour ?? 10_000_000),
    WAIT_POLL_INTERVAL_MS: String(POLL_INTERVAL_MS / scale),
    LOG_LEVEL: 'warn',
  };
  const config = loadConfig(env);
  const db = openDatabase(databaseUrl, { max: 2 });
  await migrate(db, 'default');
  await migrateQueues(queueStoreOf(config));
  const client = openClient({ databaseUrl, queueStore: queueStoreOf(config) });
  const workers = Array.from({ length: workerCount }, () => {
    const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
    return fork(main, ['worker'], { env, execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  });
  try {
    const startedAt = performance.now();
    const input = { region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
    await Promise.all(Array.from({ length: sagas }, (_, number) => client.provisionDroplet({ name: `web-${number}`, ...input })));
    let completed = 0;
    for (let ended = 0; ended < sagas; await delay(100)) {
      const all = await listSagas(db, { limit: sagas });
      ended = all.filter(({ finishedAt }) => finishedAt !== null).length;
      completed = all.filter(({ status }) => status === 'completed').length;
    }
    const { total, byRoute, byStatus } = sandbox.ledgerSummary();
    // Each worker reads the token's account once, when it starts. That request belongs to no droplet.
    const requests = total - (byRoute['GET /v2/account'] ?? 0);
    const seconds = Math.round(performance.now() - startedAt) / 1_000;
    return { sagas, completed, requests, perDroplet: Math.round((requests / sagas) * 100) / 100, limit: limits[sagas] ?? null, byRoute, throttled: byStatus['429'] ?? 0, seconds };
  } finally {
    for (const worker of workers) worker.kill('SIGTERM');
    await Promise.all(workers.filter(({ exitCode }) => exitCode === null).map((worker) => once(worker, 'exit')));
    await client.close();
    await db.close();
    await sandbox.close();
  }
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({ head: ['sagas at once', 'completed', 'requests', 'a droplet', 'limit', 'creates', 'single reads', 'list pages', '429', 's'] });
  for (const { sagas, completed, requests, perDroplet, limit, byRoute, throttled, seconds } of rows) {
    const of = (route: string) => byRoute[route] ?? 0;
    table.push([sagas, completed, requests, perDroplet, limit ?? '', of('POST /v2/droplets'), of('GET /v2/droplets/:id'), of('GET /v2/droplets?tag_name'), throttled, seconds]);
  }
  return table.toString();
}
