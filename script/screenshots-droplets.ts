// Takes screenshots of the droplet pages for review after a change: `node script/screenshots-droplets.ts <folder>`. Each page at
// 1440 and 390 pixels, light and dark. It writes its rows straight into its own database.
import { mkdir } from 'node:fs/promises';
import { startEmbeddedPostgres } from '../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { dropletApp } from '../src/droplets/app.ts';
import { loadConfig } from '../src/platform/config.ts';
import type { Database } from '../src/platform/db.ts';
import { openDatabase } from '../src/platform/db.ts';
import { silentLog } from '../src/platform/log.ts';
import { migrateAll } from '../src/processes/run-app.ts';
import { startWeb } from '../src/processes/web.ts';
import { launchBrowser } from '../test/support/browser.ts';
import { placeDroplet, placeSync } from '../test/web/droplets-stage.ts';

const [folder = 'screenshots'] = process.argv.slice(2);
await mkdir(folder, { recursive: true });

const server = await startEmbeddedPostgres({});
const url = server.url;
const db = openDatabase(url, { max: 2 });
try {
  const config = loadConfig({ DATABASE_URL: url, PORT: '0' });
  await migrateAll(dropletApp, config, silentLog, { onForgotten: () => undefined, onBlocked: () => undefined });
  const web = await startWeb(config, silentLog, { app: dropletApp });
  const browser = await launchBrowser();
  try {
    const take = async (name: string, path: string, press: string | null = null) => {
      for (const width of [1_440, 390]) {
        for (const colorScheme of ['light', 'dark'] as const) {
          const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
          await page.goto(`${web.url}${path}`);
          if (press !== null) await page.getByText(press, { exact: true }).first().click();
          await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: press === null });
          await page.close();
        }
      }
      process.stdout.write(`${name}\n`);
    };
    await take('none', '/droplets');
    const { managed, foreign, surplus, unknown, gone } = await fill(db);
    await take('list', '/droplets');
    await take('totals', '/droplets?sort=-price', 'Totals by region, tag and requester');
    await take('filters', '/droplets?region=fra1&sort=-age&tag=shop');
    await take('nothing', '/droplets?q=nothing');
    await take('managed', `/droplets/${managed}`);
    await take('destroy', `/droplets/${managed}`, 'Destroy…');
    await take('foreign', `/droplets/${foreign}`);
    await take('adopt', `/droplets/${foreign}`, 'Adopt…');
    await take('surplus', `/droplets/${surplus}`);
    await take('unknown', `/droplets/${unknown}`);
    await take('acknowledge', `/droplets/${unknown}`, 'Acknowledge…');
    await take('gone', `/droplets/${gone}`);
    await take('orphans', '/droplets/orphans');
    await placeSync(db, { agoS: 4_000, outcome: 'failed', error: 'DigitalOcean returned 500 for GET /v2/droplets' });
    await db.sql`update arcadia.inventory_syncs set started_at = started_at - interval '3 hours', finished_at = finished_at - interval '3 hours' where outcome = 'complete'`;
    await take('outdated', '/droplets');
  } finally {
    await browser.close();
    await web.close();
  }
} finally {
  await db.close();
  await server.stop();
}

async function fill(to: Database): Promise<Record<'managed' | 'foreign' | 'surplus' | 'unknown' | 'gone', number>> {
  await placeSync(to, { agoS: 40 });
  const { dropletId: managed, sagaId } = await placeDroplet(to, { name: 'shop-1', tags: ['shop', 'production', 'managed-by-arcadia-cloud'], address: '203.0.113.10', leaseInS: 9_000, drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' }, ageS: 400_000 });
  await to.sql`insert into arcadia.audit (actor, action, saga_id, detail) values ('http:eve', 'lease_renewed', ${sagaId}, '{"reason": "the demo goes on"}')`;
  await placeDroplet(to, { name: 'shop-2', tags: ['shop'], isProtected: true, region: 'nyc3', size: 's-4vcpu-8gb', usdPerHour: 0.07143, address: '203.0.113.11', requestedBy: 'cli:bob' });
  const { dropletId: foreign } = await placeDroplet(to, { name: 'made-by-hand', requestedBy: null, usdPerHour: 0.02679, size: 's-2vcpu-2gb', region: 'ams3', address: '198.51.100.20' });
  const { dropletId: surplus } = await placeDroplet(to, { name: 'twice', requestedBy: null, orphan: 'surplus', orphanReason: 'its saga has another droplet', tags: ['managed-by-arcadia-cloud'] });
  const theirs = { requestedBy: null, orphan: 'unknown', orphanReason: 'this environment has no saga with that id: it belongs to another environment, or the saga was lost', tags: ['managed-by-arcadia-cloud'] } as const;
  const { dropletId: unknown } = await placeDroplet(to, { name: 'theirs-1', ...theirs });
  const { orphanId } = await placeDroplet(to, { name: 'theirs-2', ...theirs });
  await to.sql`update arcadia.cloud_orphans set acknowledged_at = now(), acknowledged_by = 'http:eve', acknowledged_reason = 'that of staging' where id = ${orphanId}`;
  const { dropletId: gone } = await placeDroplet(to, { name: 'vanished', goneAgoS: 600, drift: { field: 'existence', desired: 'present', actual: 'absent' } });
  await placeDroplet(to, { name: 'not-seen', absences: 1, seenAgoS: 2_000, leaseInS: -100 });
  await placeDroplet(to, { name: 'a-very-long-name-that-somebody-gave-to-a-droplet-because-nothing-keeps-them-from-it.example.internal', usdPerHour: null, tags: ['a-tag-that-is-quite-long-too-as-tags-may-be'], requestedBy: 'http:somebody-with-a-long-name@example.com' });
  for (let index = 1; index <= 30; index += 1) await placeDroplet(to, { name: `worker-${index}`, region: ['fra1', 'nyc3', 'ams3'][index % 3] ?? 'fra1', tags: ['workers'], address: `203.0.113.${100 + index}`, ageS: index * 7_000, leaseInS: index % 4 === 0 ? index * 1_000 : null });
  return { managed, foreign, surplus, unknown, gone };
}
