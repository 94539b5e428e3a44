// The smoke on a database that others use too: it neither takes their work nor tells their receivers.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { openClient } from '../../../src/client/open-client.ts';
import { findOthersWork } from '../../../src/dev/smoke/others.ts';
import { workerSettings } from '../../../src/dev/smoke/worker-settings.ts';
import { environmentSchema } from '../../../src/platform/config-schema.ts';
import { openDatabase } from '../../../src/platform/db.ts';
import { silentLog } from '../../../src/platform/log.ts';
import { openQueueConnection } from '../../../src/queues/connection.ts';
import { createEngineDatabase } from '../../support/engine.ts';
import { runCommand } from '../../support/fleet.ts';
import { waitFor } from '../../support/wait-for.ts';
import type { SmokeStage } from './stage.ts';
import { openSmokeStage, receiptSchema } from './stage.ts';

vi.setConfig({ testTimeout: 300_000 });

const theirs = { name: 'theirs-1', region: 'fra1', size: 's-8vcpu-16gb', image: 'debian-12-x64' } as const;
const smokeArgs = ['smoke', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--max-usd', '0.01', '--yes'];

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(closing.splice(0).map((close) => close()));
});

test('sagas of others that wait in the database are not run: the smoke is refused, and says whose they are', async () => {
  await using stage = await openSmokeStage('given');
  const client = clientOf(stage);
  const sagas = [];
  for (const number of [1, 2, 3]) sagas.push(await client.provisionDroplet({ ...theirs, name: `theirs-${number}` }));
  const { code, stderr } = await runCommand([...smokeArgs, '--state-dir', stage.folder], stage.environment);
  expect([code, stderr]).toEqual([2, expect.stringContaining(`3 unfinished sagas (the oldest: provision_droplet ${sagas[0]?.sagaId})`)]);
  expect(stderr).toContain('Let `arcadia worker` finish it, or cancel it');
  expect(stage.sandbox.ledger().filter(({ method }) => method !== 'GET')).toEqual([]);
  expect((await client.get(sagas[0]?.sagaId ?? ''))?.status).toBe('pending');
});

test('requests in the queue, leases that end soon and surplus droplets are work of others; long and protected leases are none', async () => {
  const database = await createEngineDatabase('smoke');
  const db = openDatabase(database.url, { max: 2 });
  const queues = { kind: 'postgres', databaseUrl: database.url } as const;
  const connection = openQueueConnection(queues, silentLog);
  const queue = connection.queue('sagas');
  try {
    await db.sql`insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) select 'digitalocean', n, 'droplet', 'theirs-' || n, 'active' from generate_series(1, 4) n`;
    await db.sql`
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected, lease_until)
      select id, '{}', 'test', gen_random_uuid(), name = 'theirs-1', now() + case name when 'theirs-2' then interval '30 days' else interval '1 hour' end from arcadia.cloud_resources where name <> 'theirs-4'`;
    expect(await findOthersWork(db, queues, '00000000')).toEqual(['1 lease ending within a day']);
    await db.sql`insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync) select id, 'surplus', 'its saga was rolled back', now(), 1, 1 from arcadia.cloud_resources where name = 'theirs-4'`;
    await queue.add('provision_droplet', { input: theirs });
    expect(await findOthersWork(db, queues, '00000000')).toEqual(['1 request in the queue sagas', '1 lease ending within a day', '1 surplus droplet']);
  } finally {
    await queue.close();
    await connection.close();
    await db.close();
    await database.drop();
  }
});

test('a create of others that comes during the run is refused at the gate; the receipt names it, and the exit code is 1', async () => {
  await using stage = await openSmokeStage('given', { activateAfterMs: 4_000 });
  const running = stage.smoke();
  await waitFor(() => stage.sandbox.ledger().some(({ made }) => made.length > 0), { what: 'the droplet of the smoke', deadlineMs: 60_000 });
  const client = clientOf(stage);
  const { sagaId } = await client.provisionDroplet(theirs);
  const { code, stdout } = await running;
  const receipt = receiptSchema.parse(JSON.parse(stdout));
  expect(receipt.refused).toEqual([expect.stringContaining('POST /v2/droplets: droplet theirs-1 is not of the smoke test that runs on this database')]);
  expect([code, receipt.ok, receipt.left]).toEqual([1, false, []]);
  expect(stage.sandbox.ledger().flatMap(({ made }) => made)).toHaveLength(1);
  expect((await client.get(sagaId))?.error?.message).toContain('start it again once that is over');
});

test('the receivers, leases and retention of the environment are not those of the smoke worker', async () => {
  await using stage = await openSmokeStage('given');
  const posts: string[] = [];
  const receiver = createServer((request, response) => {
    posts.push(request.url ?? '');
    response.end();
  }).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const db = openDatabase(stage.environment['DATABASE_URL'] ?? '', { max: 2 });
  const notifications: string[] = [];
  const listening = await db.sql.listen('arcadia_outcomes', (payload) => void notifications.push(payload));
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on a port
    const { port } = receiver.address() as AddressInfo;
    const { code } = await stage.smoke({
      OUTCOME_WEBHOOK_URL: `http://127.0.0.1:${port}/outcomes`, OUTCOME_WEBHOOK_SECRETS: `whsec_${Buffer.alloc(32, 7).toString('base64')}`, OUTCOME_QUEUE: 'billing', LEASE_DEFAULT_S: '3600', LEASE_WARN_S: '3599',
    });
    expect([code, posts, notifications]).toEqual([0, [], []]);
    expect(await db.sql`select name from arcadia.outcome_subscriptions`).toEqual([]);
    expect(await db.sql`select lease_until from arcadia.cloud_provisioned`).toEqual([{ leaseUntil: null }]);
  } finally {
    await listening.unlisten();
    await db.close();
    receiver.close();
  }
});

test('every variable of the environment is overridden for the smoke worker, or known to be harmless', () => {
  const ofStores = ['DATABASE_URL', 'REDIS_URL', 'QUEUE_PREFIX', 'DATABASE_POOL_MAX', 'ARCADIA_ENV', 'ARCADIA_ENCRYPTION_KEYS'];
  const ofGate = ['DIGITALOCEAN_TOKEN', 'DIGITALOCEAN_API_URL'];
  const timings = ['DIGITALOCEAN_TIMEOUT_MS', 'WORKER_LOCK_MS', 'WAIT_POLL_INTERVAL_MS', 'STEP_BACKOFF_MS', 'ADOPTION_GRACE_MS', 'ORPHAN_GRACE_MS', 'RECONCILE_INTERVAL_MS', 'INVENTORY_SYNC_INTERVAL_MS'];
  const numbers = ['DIGITALOCEAN_REQUESTS_PER_MINUTE', 'DIGITALOCEAN_REQUESTS_PER_HOUR', 'WORKER_CONCURRENCY', 'WAIT_MAX_POLLS', 'STEP_ATTEMPTS', 'COMPENSATION_ATTEMPTS'];
  const ofListeners = ['PORT', 'HOST', 'TRUSTED_PROXIES', 'WEB_BASE_PATH', 'WEB_ALLOWED_HOSTS', 'WORKER_METRICS_OPEN', 'API_TOKENS_START_MAY_DESTROY'];
  const known = [...Object.keys(workerSettings), ...ofStores, ...ofGate, ...timings, ...numbers, ...ofListeners];
  expect(known.toSorted()).toEqual(Object.keys(environmentSchema.shape).toSorted());
});

function clientOf({ environment }: SmokeStage) {
  const databaseUrl = environment['DATABASE_URL'] ?? '';
  const client = openClient({ databaseUrl, queueStore: { kind: 'postgres', databaseUrl } });
  closing.push(() => client.close());
  return client;
}
