// The oldest Postgres that this machine has of those we promise to run on: from the migrations to a saga's end, without
// Redis, so that queues, request budget and observations are in it too.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import type { Config } from '../../src/platform/config.ts';
import type { Database } from '../../src/platform/db.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { createPostgresBudgetStore } from '../../src/do/budget-postgres.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../../src/queues/connection.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { encryptionKeys, keyRing } from '../support/keys.ts';
import { startOldestPostgres } from '../support/services-oldest-postgres.ts';

let postgres: EmbeddedPostgres;
let sandbox: Sandbox;
let db: Database;
let config: Config;

beforeAll(async () => {
  [postgres, sandbox] = await Promise.all([startOldestPostgres(), startSandbox({ activateAfterMs: 300, ratePerMinute: null, ratePerHour: null })]);
  db = openDatabase(postgres.url, { max: 4 });
  config = loadConfig({
    ARCADIA_ENV: 'test', DATABASE_URL: postgres.url, DIGITALOCEAN_TOKEN: 'x', DIGITALOCEAN_API_URL: sandbox.url, PORT: '0', RECONCILE_INTERVAL_MS: '1000', WAIT_POLL_INTERVAL_MS: '200',
    INVENTORY_SYNC_INTERVAL_MS: '60000', ARCADIA_ENCRYPTION_KEYS: encryptionKeys,
  });
  await migrate(db, config.environment);
  await migrateQueues(queueStoreOf(config));
});

afterAll(async () => {
  await db.close();
  await Promise.all([postgres.stop(), sandbox.close()]);
});

test('it is older than the one that the other tests run on', async () => {
  const [row] = await db.sql<{ version: number }[]>`select current_setting('server_version_num')::int as version`;
  expect(row?.version).toBeGreaterThanOrEqual(140_000);
  expect(row?.version).toBeLessThan(180_000);
});

test('a second migration does nothing', async () => {
  expect(await migrate(db, config.environment)).toEqual([]);
});

describe('the request budget', () => {
  const ask = { perMinute: 2, perHour: 100, keepMinute: 0, keepHour: 0, readsMinute: 1, readsHour: 10, isRead: false, turn: { requester: 'a'.repeat(16), own: '1', weight: 1 } };

  test('sends away who comes too much, where others use the token and nothing was ever held', async () => {
    const store = createPostgresBudgetStore(db, 'others');
    await store.correct(100, 10);
    expect((await store.draw(ask)).waitMs).toBe(0);
    const { waitMs, foreign } = await store.draw(ask);
    expect(foreign).toBeGreaterThan(0);
    // Until one of what others used leaves the hour.
    expect(waitMs).toBeGreaterThan(50_000);
    expect(waitMs).toBeLessThan(100_000);
  });

  test('holds after a 429', async () => {
    const store = createPostgresBudgetStore(db, 'held');
    await store.hold(90_000);
    const { waitMs } = await store.draw(ask);
    expect(waitMs).toBeGreaterThan(80_000);
    expect(waitMs).toBeLessThan(100_000);
  });

  test('is drawn from by workers of an older version too', async () => {
    const draw = async () => (await db.sql<{ waitMs: number; others: number }[]>`select wait_ms, others from arcadia.draw_request('older', 1, 100, 0, 0, interval '0')`)[0];
    await createPostgresBudgetStore(db, 'older').correct(100, 10);
    expect((await draw())?.waitMs).toBe(0);
    const second = await draw();
    expect(second?.others).toBeGreaterThan(0);
    expect(second?.waitMs).toBeGreaterThan(50_000);
  });
});

test('a droplet is provisioned, synced, searched for, shown and destroyed', async () => {
  const worker = await startWorker(config, silentLog);
  const web = await startWeb(config, silentLog);
  const client = openClient({ databaseUrl: postgres.url, queueStore: queueStoreOf(config), keyRing });
  try {
    const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', tags: ['Team'], user_data: '#!' };
    const { droplet_id: dropletId } = await (await client.provisionDroplet(input, { idempotencyKey: 'one' })).result();
    const [bySql] = await db.sql<{ id: string }[]>`select arcadia.start_saga('destroy_droplet', jsonb_build_object('droplet_id', ${dropletId}::bigint)) as id`;
    await client.handle(bySql?.id ?? '').result();
    expect((await client.list({ tag: 'team', text: 'WEB', dropletId })).map(({ status }) => status)).toEqual(['completed']);
    expect(sandbox.state().filter(({ alive }) => alive)).toEqual([]);
    for (const path of ['/sagas', `/sagas?q=${dropletId}`, `/sagas/${bySql?.id ?? ''}`, '/v1/sagas', '/v1/resources?deleted=true', '/v1/drift', '/v1/orphans', '/metrics', '/readyz']) {
      expect([path, (await fetch(`${web.url}${path}`)).status]).toEqual([path, 200]);
    }
  } finally {
    await client.close();
    await web.close();
    await worker.close();
  }
});
