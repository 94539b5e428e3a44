// Measures a sync of a large account: requests, time, memory, and its longest statement. The account is in the sandbox; sagas
// provisioned half of its droplets.
//
//   node --expose-gc bench/sync.ts [--droplets 10000] [--per-minute 250] [--small] [--json]
//     --per-minute: the fleet's request budget; the default is more than a sync needs
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { openDatabase } from '../src/platform/db.ts';
import { createLocalBudgetStore } from '../src/do/budget-local.ts';
import { createRequestBudget } from '../src/do/budget.ts';
import { createDigitalOceanClient } from '../src/do/client.ts';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import type { Io } from '../src/platform/io.ts';
import { directIo } from '../src/platform/io.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrate } from '../src/processes/migrate.ts';
import { syncInventory } from '../src/inventory/sync/sync-inventory.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Row = { sync: string; droplets: number; requests: number; seconds: number; longestStatementMs: number; statements: number; heapMb: number };

const options = readOptions({ droplets: 10_000, 'per-minute': 1_000 }, { droplets: 200 });
const { droplets, 'per-minute': perMinute } = options;
const resized = Math.ceil(droplets / 200);
const gone = Math.ceil(droplets / 10);

// In its own process, so that its memory is not counted.
const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const sandbox = fork(main, ['sandbox', '--port', '0', '--no-rate-limit', '--activate-after-ms', '0'], { execArgv: [], stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
const postgres = await startEmbeddedPostgres();
try {
  const url = await urlOf();
  const db = openDatabase(postgres.url, { max: 4 });
  await migrate(db, 'default');
  const ids = await fill(url);
  const rows = [await measure('the first', url)];
  await provision(ids.slice(0, droplets / 2));
  rows.push(await measure('with half of them provisioned', url));
  for (const id of ids.slice(0, resized)) await edit(url, id, { size_slug: 's-2vcpu-4gb' });
  for (const id of ids.slice(-gone)) await edit(url, id, { vanish: true });
  rows.push(await measure(`${resized} resized, ${gone} gone`, url));
  report({ part: 'sync', rows }, [tableOf(rows)], options);
  await db.close();

  async function provision(those: readonly number[]): Promise<void> {
    await db.sql`
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id)
      select id, '{"size_slug": "s-1vcpu-1gb", "region": "nyc3", "image": "debian-12-x64"}', 'bench', gen_random_uuid()
      from arcadia.cloud_resources where provider_id = any(${those.map(String)}::text[])`;
  }

  async function measure(sync: string, apiUrl: string): Promise<Row> {
    let longestStatementMs = 0;
    let statements = 0;
    let heap = 0;
    const io: Io = async (kind, name, operation) => {
      const startedAt = performance.now();
      try {
        return await directIo(kind, name, operation);
      } finally {
        if (kind === 'sql') {
          statements += 1;
          longestStatementMs = Math.max(longestStatementMs, performance.now() - startedAt);
          globalThis.gc?.();
          heap = Math.max(heap, process.memoryUsage().heapUsed);
        }
      }
    };
    const own = { ...db, run: <T>(name: string, statement: Parameters<typeof db.run<T>>[1]) => io('sql', name, () => db.run(name, statement)) };
    const budget = createRequestBudget({ store: createLocalBudgetStore(), perMinute, perHour: 1_000_000, io: directIo, log: silentLog });
    const digitalOcean = createDigitalOceanClient({ apiUrl, token: 'bench', timeoutMs: 10_000, budget }).at('sync');
    globalThis.gc?.();
    const heapBefore = process.memoryUsage().heapUsed;
    await fetch(`${apiUrl}/sandbox/ledger`, { method: 'DELETE' });
    const deps = { db: own, digitalOcean, worker: 'bench', settings: { adoptionGraceMs: 60_000, orphanGraceMs: 900_000, retryMs: 1_000 }, isPaused: async () => Promise.resolve(false), signal: new AbortController().signal, log: silentLog };
    const report = await syncInventory(deps, { intervalMs: null, requestedBy: 'bench' });
    if (report === null) throw new Error('another sync is under way');
    const { total } = (await (await fetch(`${apiUrl}/sandbox/ledger?summary=1`)).json()) as { total: number }; // oxlint-disable-line typescript/no-unsafe-type-assertion -- our own sandbox
    return {
      sync,
      droplets: report.summary.droplets,
      requests: total,
      seconds: Math.round(report.tookMs / 10) / 100,
      longestStatementMs: Math.round(longestStatementMs),
      statements,
      heapMb: Math.round((heap - heapBefore) / 1e5) / 10,
    };
  }
} finally {
  sandbox.kill('SIGTERM');
  await postgres.stop();
}

async function urlOf(): Promise<string> {
  if (sandbox.stdout === null) throw new Error('the sandbox has no stdout');
  const [said] = (await once(sandbox.stdout.setEncoding('utf8'), 'data')) as [string]; // oxlint-disable-line typescript/no-unsafe-type-assertion -- text, as its encoding is set
  return /ready at (\S+)/.exec(said)?.[1] ?? '';
}

async function fill(url: string): Promise<number[]> {
  const ids: number[] = [];
  for (let start = 0; start < droplets; start += 100) {
    const added = Array.from({ length: Math.min(100, droplets - start) }, async (_, index) => {
      const answer = await fetch(`${url}/sandbox/droplets`, { method: 'POST', body: JSON.stringify({ name: `web-${start + index}`, tags: ['web', 'env:bench'] }) });
      return ((await answer.json()) as { droplet: { id: number } }).droplet.id; // oxlint-disable-line typescript/no-unsafe-type-assertion -- our own sandbox
    });
    ids.push(...(await Promise.all(added)));
  }
  return ids;
}

async function edit(url: string, id: number, change: object): Promise<void> {
  await fetch(`${url}/sandbox/droplets/${id}`, { method: 'PATCH', body: JSON.stringify(change) });
}

function tableOf(rows: readonly Row[]): string {
  const table = new Table({ head: ['sync', 'droplets', 'requests', 's', 'statements', 'longest, ms', 'heap, MB'] });
  for (const row of rows) table.push([row.sync, row.droplets, row.requests, row.seconds, row.statements, row.longestStatementMs, row.heapMb]);
  return table.toString();
}
