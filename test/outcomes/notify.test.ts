// NOTIFY, findings and leases as outcomes, and the receivers of the documentation.
import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { findPort } from '../../src/dev/free-port.ts';
import { driftOutcomes, leaseOutcomes, orphanOutcomes } from '../../src/inventory/outcomes.ts';
import { readBatch } from '../../src/outcomes/log.ts';
import { readOutcomes } from '../../src/outcomes/read-outcomes.ts';
import { takeLease } from '../../src/outcomes/lease.ts';
import { ensureSubscription, listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import { notifyTarget, payloadOf } from '../../src/outcomes/targets.ts';
import type { Outcome } from '../../src/saga/outcome-source.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { openAdmin } from '../support/admin-connection.ts';
import { endOf, spawnBound } from '../support/child-process.ts';
import { catalogOf, createEngineDatabase, fakeStep } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';
import { SECRET, bodySchema, openOutcomeStage } from './stage.ts';

const plain = catalogOf(fakeStep('one'), fakeStep('two'));

test('whoever listens on arcadia_outcomes hears of each end, in order', async () => {
  await using stage = await openOutcomeStage('redis', plain);
  const listener = openAdmin(stage.engine.directUrl);
  onTestFinished(() => listener.end());
  const heard: string[] = [];
  await listener.listen('arcadia_outcomes', (payload) => heard.push(bodySchema.parse(JSON.parse(payload)).data.saga_id ?? ''));
  await stage.tell({});
  await waitFor(async () => (await listSubscriptions(stage.engine.db)).length === 1, { what: 'the subscription', everyMs: 20 });
  const ids = [await stage.end(), await stage.end(), await stage.end()];
  await waitFor(() => heard.length >= 3, { what: 'three notifications' });
  expect(heard).toEqual(ids);
});

test('switched off, nothing is notified, and nothing is read for it', async () => {
  await using stage = await openOutcomeStage('redis', plain);
  const listener = openAdmin(stage.engine.directUrl);
  onTestFinished(() => listener.end());
  const heard: string[] = [];
  await listener.listen('arcadia_outcomes', (payload) => heard.push(payload));
  await stage.tell({ queue: 'told', notify: false });
  await waitFor(async () => (await listSubscriptions(stage.engine.db)).length > 0, { what: 'the subscription', everyMs: 20 });
  await stage.end();
  const queue = stage.connection.queue('told');
  onTestFinished(() => queue.close());
  await waitFor(async () => (await queue.count()) === 1, { what: 'the job' });
  expect((await listSubscriptions(stage.engine.db)).map(({ name }) => name)).toEqual(['queue']);
  // It arrives before what is notified after it.
  await stage.engine.db.sql`select pg_notify('arcadia_outcomes', 'the last')`;
  await waitFor(() => heard.includes('the last'), { what: 'the last notification' });
  expect(heard).toEqual(['the last']);
});

test('a notification says what the webhook says, of every end, and is read with the log', async () => {
  const database = await createEngineDatabase();
  const db = openDatabase(database.url, { max: 2 });
  const listener = openAdmin(database.directUrl);
  onTestFinished(async () => {
    await listener.end();
    await db.close();
    await database.drop();
  });
  const heard: string[] = [];
  await listener.listen('arcadia_outcomes', (payload) => heard.push(payload));
  await ensureSubscription(db, { name: 'notify', target: 'a test' });
  const reader = { subscription: 'notify', holder: randomUUID() };
  await takeLease(db, reader, 60_000);
  const error = { code: 'broken', message: 'it broke', step: 'create_droplet', retryable: false };
  const told = async (name: string, status: string, { input = {}, context = {}, detail = {}, now = status }: { input?: object; context?: object; detail?: object; now?: string }) => {
    const id = randomUUID();
    await db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, revision, input, context, error, wake_at)
      values (${id}, ${id.slice(0, 8)}, ${name}, ${now}, '{create_droplet}', 1, ${JSON.stringify(input)}::text::jsonb, ${JSON.stringify(context)}::text::jsonb, ${JSON.stringify(error)}::text::jsonb, null)`;
    await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, step, detail) values (${id}, 1, 'step_completed', 'create_droplet', ${JSON.stringify({ ...detail, status })}::text::jsonb)`;
    return `${id}/1`;
  };
  const input = { name: 'web \n 1', user_data: 'secret', password: 'not ours' };
  const ids = [
    await told('provision_droplet', 'completed', { input, context: { droplet_id: 4711, public_ipv4: '192.0.2.1', 'effect.sends': 1 } }),
    await told('provision_droplet', 'compensated', { input, context: { droplet_id: 4711, unproven_droplets: [8] } }),
    await told('provision_droplet', 'stuck', { input, detail: { code: 'refused', message: 'no \u2028 more', retryable: true }, now: 'compensating' }),
    await told('of_another_version', 'completed', { input, context: { anything: 1, user_data: 'secret' } }),
  ];
  const source = sagaOutcomes(catalog);
  const statements: string[] = [];
  const watched: Pick<Database, 'run'> = { run: (name, statement) => { statements.push(name); return db.run(name, statement); } };
  const target = notifyTarget({ db: watched, sources: [source] }, 'notify');
  const batch = await readBatch(watched, reader, [source], 100, { withFacts: target.needsBodies });
  if (batch === null) throw new Error('nothing to read');
  await target.take(reader, batch);
  await waitFor(() => heard.length >= ids.length, { what: 'the notifications' });
  const bodies = await source.read(db, ids);
  expect(heard.toSorted()).toEqual(ids.map((id) => JSON.stringify(bodies.get(id))).toSorted());
  expect(heard.join()).not.toContain('secret');
  const codes = heard.flatMap((payload) => bodySchema.parse(JSON.parse(payload)).data.error?.code ?? []);
  expect(new Set(codes)).toEqual(new Set(['broken', 'refused']));
  expect(statements).toEqual(['outcomes.look', 'outcomes.advance']);
});

test('a payload of NOTIFY stays below 8,000 bytes, whatever is in it', () => {
  const outcome: Outcome = {
    type: 'saga.stuck',
    timestamp: '2026-11-29T00:00:00.000Z',
    data: { id: 'a/1', saga_id: randomUUID(), name: 'fake', status: 'stuck', subject: { kind: 'droplet', name: '\u{1F4A7}'.repeat(3_000), id: '1' }, outputs: { text: 'x'.repeat(9_000) }, error: { code: 'broken', message: '\u{1F4A7}'.repeat(2_000), step: 'one', retryable: false } },
  };
  expect(Buffer.byteLength(payloadOf(outcome))).toBeLessThan(8_000);
  expect(JSON.parse(payloadOf(outcome))).toMatchObject({ truncated: true, data: { id: 'a/1', outputs: {} } });
  const long = { ...outcome, data: { ...outcome.data, subject: null, error: null } };
  expect(JSON.parse(payloadOf(long))).toEqual({ ...long, data: { ...long.data, outputs: {} }, truncated: true });
});

test('drift, orphans and leases that end are outcomes, and a renewal is none', async () => {
  const database = await createEngineDatabase();
  const db = openDatabase(database.url, { max: 2 });
  onTestFinished(async () => {
    await db.close();
    await database.drop();
  });
  await ensureSubscription(db, { name: 'trial', target: 'a test' });
  const reader = { subscription: 'trial', holder: randomUUID() };
  await takeLease(db, reader, 60_000);
  const sagaId = randomUUID();
  const [resource] = await db.sql<{ id: string }[]>`
    insert into arcadia.cloud_resources (id, provider, kind, provider_id, name, region, status) values (gen_random_uuid(), 'digitalocean', 'droplet', '4711', 'web-1', 'fra1', 'active') returning id`;
  await db.sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${resource?.id ?? ''}, 'size_slug', 's-1vcpu-1gb', 's-2vcpu-2gb')`;
  await db.sql`insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync) values (${resource?.id ?? ''}, 'unknown', 'nobody knows it', now(), 1, 1)`;
  for (const type of ['lease.ending', 'lease.renewed', 'lease.expired']) {
    await db.sql`insert into arcadia.lease_events (droplet_id, saga_id, generation, type, lease_until) values (4711, ${sagaId}, 1, ${type}, '2026-11-29T00:00:00Z')`;
  }
  const sources = [driftOutcomes, orphanOutcomes, leaseOutcomes];
  const batch = await readBatch(db, reader, sources, 10);
  const outcomes = await readOutcomes(db, sources, batch?.entries ?? []);
  const subject = { kind: 'droplet', name: 'web-1', id: '4711' };
  expect(batch?.entries.map(({ id }) => outcomes.get(id))).toMatchObject([
    { type: 'drift.found', data: { id: 'drift/1', subject, outputs: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' }, error: { code: 'drift_size_slug' } } },
    { type: 'orphan.found', data: { id: 'orphan/1', status: 'unknown', subject, error: { message: 'nobody knows it' } } },
    { type: 'lease.ending', data: { id: 'lease/1', saga_id: sagaId, status: 'ending', subject, outputs: { lease_until: '2026-11-29T00:00:00.000Z', lease_generation: 1 } } },
    { type: 'lease.expired', data: { id: 'lease/3', saga_id: sagaId, status: 'expired', subject } },
  ]);
  for (const { data } of outcomes.values()) expect(() => bodySchema.shape.data.parse(data)).not.toThrow();
});

test.each([
  ['js', process.execPath, ['--input-type=module', '-e']],
  ['python', 'python3', ['-c']],
])('the receiver of the documentation in %s takes what is signed, and each outcome once', async (language, program, options) => {
  const page = readFileSync(new URL('../../docs/how-to/outcomes.md', import.meta.url), 'utf8');
  const [, code = ''] = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(page) ?? [];
  const port = await findPort({ host: '127.0.0.1', port: 0 });
  const child = spawnBound(program, [...options, code], { cwd: fileURLToPath(new URL('../../', import.meta.url)), env: { PATH: process.env['PATH'], PORT: String(port), OUTCOME_WEBHOOK_SECRET: SECRET } });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await endOf(child);
  });
  const url = `http://127.0.0.1:${port}/`;
  const answered = async () => (await fetch(url, { method: 'POST', body: '{}' }).catch(() => null))?.status;
  expect(await waitFor(answered, { what: 'the receiver' })).toBe(401);
  await using stage = await openOutcomeStage('redis', plain);
  await stage.tell({ url });
  await waitFor(async () => (await listSubscriptions(stage.engine.db)).some(({ name }) => name === 'webhook'), { what: 'the subscription', everyMs: 20 });
  const id = await stage.end();
  await waitFor(() => output.includes(id), { what: 'the outcome' });
  await waitFor(async () => (await listSubscriptions(stage.engine.db)).every(({ waiting }) => waiting === 0), { what: 'its delivery' });
  expect(output).toBe(`saga.completed ${id}\n`);
});
