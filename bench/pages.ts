// Measures the pages with 10,000 droplets and 100,000 sagas: the response time of each page over HTTP, as a browser requests it.
//
//   node bench/pages.ts [--droplets 10000] [--gone 50000] [--finished 100000] [--rounds 15] [--small] [--json]
import Table from 'cli-table3';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { dropletApp } from '../src/droplets/app.ts';
import { loadConfig } from '../src/platform/config.ts';
import type { Database } from '../src/platform/db.ts';
import { openDatabase } from '../src/platform/db.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrate } from '../src/processes/migrate.ts';
import { startWeb } from '../src/processes/web.ts';
import { writeDroplets } from '../test/support/many-droplets.ts';
import { writeSagas } from '../test/support/many-sagas.ts';
import { startPrivateRedis } from '../test/support/services-redis-server.ts';
import { createDatabase } from './fleet.ts';
import { readOptions } from './options.ts';
import { median, report } from './report.ts';

const options = readOptions({ droplets: 10_000, gone: 50_000, finished: 100_000, rounds: 15 }, { droplets: 500, gone: 100, finished: 500, rounds: 2 });
const { droplets, gone, finished, rounds } = options;

const AT_ONCE = 20_000;

const redis = await startPrivateRedis();
const server = await startEmbeddedPostgres({});
try {
  const url = await createDatabase(server.url, 'pages');
  const db = openDatabase(url, { max: 4, timeoutMs: 600_000 });
  await migrate(db, 'default');
  await fill(db);
  const web = await startWeb(loadConfig({ ARCADIA_ENV: 'default', DATABASE_URL: url, REDIS_URL: redis.url, PORT: '0' }), silentLog, { app: dropletApp });
  try {
    const [some] = await db.sql<{ providerId: string; sagaId: string }[]>`select provider_id, saga_id from arcadia.cloud_resources r join arcadia.cloud_provisioned p on p.resource_id = r.id where deleted_at is null order by r.id limit 1`;
    const paths = {
      'all droplets': '/droplets',
      'the last page': `/droplets?page=${Math.ceil(droplets / 50)}`,
      'by price': '/droplets?sort=-price',
      'by address': '/droplets?sort=address',
      'by age': '/droplets?sort=-age',
      'of a region': '/droplets?region=fra1',
      'of a tag': '/droplets?tag=team-1',
      'of a requester': '/droplets?requester=user-1',
      'drifted': '/droplets?state=drifted',
      'not managed': '/droplets?state=foreign',
      'gone': '/droplets?state=gone',
      'by a part of a name': '/droplets?q=droplet-77',
      'by the beginning of an address': '/droplets?q=10.0.3.',
      'by a name that nothing has': '/droplets?q=no-such-thing',
      'one droplet': `/droplets/${some?.providerId}`,
      'orphans': '/droplets/orphans',
      "the list of sagas": '/sagas',
      "sagas by name": '/sagas?sort=saga',
      "sagas by id": '/sagas?sort=-about',
      'the fleet, last hour': '/fleet',
      'the fleet, last week': '/fleet?span=week',
      'leases': '/leases',
      'audit': '/audit',
      "the saga of a droplet": `/sagas/${some?.sagaId}`,
    };
    const pages: { name: string; medianMs: number; mostMs: number; bytes: number }[] = [];
    for (const [name, path] of Object.entries(paths)) pages.push(await measure(name, `${web.url}${path}`));
    report({ part: 'pages', droplets, gone, finished, rounds, pages }, [tableOf(pages)], options);
  } finally {
    await web.close();
    await db.close();
  }
} finally {
  await Promise.all([redis.stop(), server.stop()]);
}

async function fill(db: Database): Promise<void> {
  // Some of them within the week that the charts show.
  for (let left = finished; left > 0; left -= AT_ONCE) await writeSagas(db, { count: Math.min(AT_ONCE, left), status: 'completed', daysAgo: left > AT_ONCE ? 10 : 3, eventsEach: 5 });
  await writeDroplets(db, { present: droplets, gone });
  await db.sql`vacuum analyze`;
}

async function measure(name: string, url: string): Promise<{ name: string; medianMs: number; mostMs: number; bytes: number }> {
  const times: number[] = [];
  let bytes = 0;
  for (let round = -2; round < rounds; round += 1) {
    const from = performance.now();
    const response = await fetch(url, { headers: { accept: 'text/html' } });
    bytes = (await response.text()).length;
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    // The first two rounds fill caches and prepare statements.
    if (round >= 0) times.push(performance.now() - from);
  }
  return { name, medianMs: median(times), mostMs: Math.max(...times), bytes };
}

function tableOf(pages: readonly { name: string; medianMs: number; mostMs: number; bytes: number }[]): string {
  const table = new Table({ head: ['page', 'median ms', 'most ms', 'KiB'] });
  for (const { name, medianMs, mostMs, bytes } of pages) table.push([name, medianMs.toFixed(1), mostMs.toFixed(1), (bytes / 1_024).toFixed(0)]);
  return table.toString();
}
