// Metrics and readiness: what a monitor sees, on real services and at the edges.
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { reserveConnection } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { mergeMetrics } from '../../src/web/metrics.ts';
import type { QueueHead } from '../../src/queues/dashboard.ts';
import { watchQueues } from '../../src/web/queue-watch.ts';
import { checkReadiness } from '../../src/web/readiness.ts';
import { parseMetrics } from '../support/parse-metrics.ts';
import { waitFor } from '../support/wait-for.ts';
import { backends, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';

const conditionsOf = (answer: { json: () => unknown }) => statusAnswer.parse(answer.json()).conditions.map(({ name }) => name);
const statusAnswer = z.looseObject({ conditions: z.array(z.looseObject({ name: z.string() })) });

describe.each(backends)('/metrics, queues on %s', (backend) => {
  test('can be read by the letter, and tells of sagas, steps and queues', async () => {
    await using web = await openWebStage({}, backend);
    const sagaId = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet }));
    await web.db.sql`update arcadia.sagas set created_at = now() - interval '100 seconds', wake_at = now() - interval '7 seconds' where id = ${sagaId}`;
    await web.db.sql`
      insert into arcadia.saga_events (saga_id, seq, at, kind, step) values
        (${sagaId}, 1, clock_timestamp(), 'saga_started', 'create_droplet'),
        (${sagaId}, 2, clock_timestamp() + interval '2 seconds', 'step_completed', 'create_droplet'),
        (${sagaId}, 3, clock_timestamp() + interval '5 seconds', 'step_postponed', 'wait_droplet_active'),
        (${sagaId}, 4, clock_timestamp() + interval '12 seconds', 'step_completed', 'wait_droplet_active')`;
    const answer = await web.call('GET', '/metrics');
    expect(answer.headers.get('content-type')).toContain('text/plain');
    expect(answer.text.endsWith('\n')).toBe(true);
    const samples = parseMetrics(answer.text);
    expect(samples.get('arcadia_sagas{name="provision_droplet",status="pending"}')).toBe(1);
    expect(samples.get('arcadia_sagas{name="destroy_droplet",status="stuck"}')).toBe(0);
    expect(samples.get('arcadia_sagas_stuck')).toBe(0);
    expect(samples.get('arcadia_sagas_unfinished')).toBe(1);
    expect(samples.get('arcadia_oldest_unfinished_saga_age_seconds')).toBeGreaterThanOrEqual(100);
    expect(samples.get('arcadia_reconciler_overdue_seconds')).toBeGreaterThanOrEqual(7);
    expect(samples.get('arcadia_step_outcomes{step="wait_droplet_active",outcome="completed"}')).toBe(1);
    expect(samples.get('arcadia_step_duration_seconds{step="wait_droplet_active",outcome="completed",quantile="0.5"}')).toBeCloseTo(10, 1);
    for (const queue of ['sagas', 'saga-steps', 'saga-compensations']) {
      expect(samples.get(`bullmq_job_count{queue="${queue}", state="waiting"}`)).toBe(queue === 'saga-steps' ? 1 : 0);
    }
    expect(samples.get('arcadia_scrape_ok{source="postgres"}')).toBe(1);
    expect(samples.get('arcadia_scrape_ok{source="queues"}')).toBe(1);
    expect([...samples.keys()].some((key) => key.startsWith('nodejs_'))).toBe(true);
    expect((await web.call('GET', '/readyz')).status).toBe(200);
    expect((await web.call('GET', '/healthz')).json()).toEqual({ status: 'ok' });
  });
});

test('merging keeps one HELP and one TYPE a metric, and its samples together', () => {
  const merged = mergeMetrics([
    '# HELP a First\n# TYPE a gauge\na{q="1"} 1\n# HELP h Hist\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1',
    '# HELP a Other words\n# TYPE a gauge\na{q="2"} 2\n\n# a remark\nb 3\n',
  ]);
  expect(merged).toBe('# HELP a First\n# TYPE a gauge\na{q="1"} 1\na{q="2"} 2\n# HELP h Hist\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\nb 3\n');
});

test('tell of the inventory: drift, orphans and what they cost, how old the last sync is', async () => {
  await using web = await openWebStage();
  expect(parseMetrics((await web.call('GET', '/metrics')).text).get('arcadia_inventory_sync_age_seconds')).toBe(0);
  const resources = await web.db.sql<{ id: string }[]>`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, status)
    select 'digitalocean', number::text, 'droplet', 'web', 'active' from generate_series(1, 3) as number returning id`;
  const [first = '', second = '', third = ''] = resources.map(({ id }) => id);
  await web.db.sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${first}, 'image', 'a', 'b'), (${second}, 'image', 'a', 'b')`;
  await web.db.sql`
    insert into arcadia.cloud_orphans (resource_id, category, reason, price_usd_per_hour, created_at, first_sync, last_sync)
    values (${first}, 'surplus', '', 0.25, now(), 1, 1), (${second}, 'surplus', '', 0.5, now(), 1, 1)`;
  await web.db.sql`
    insert into arcadia.cloud_orphans (resource_id, category, reason, price_usd_per_hour, created_at, first_sync, last_sync, acknowledged_at, acknowledged_by)
    values (${third}, 'unknown', '', 1, now(), 1, 1, now(), 'ann')`;
  await web.db.sql`
    insert into arcadia.inventory_syncs (number, started_at, finished_at, outcome, lease_until, worker, summary) values
      (1, now() - interval '1 hour', now() - interval '1 hour', 'complete', now(), 'w', '{"held": 0}'),
      (2, now() - interval '100 seconds', now() - interval '60 seconds', 'complete', now(), 'w', '{"held": 7}'),
      (3, now() - interval '10 seconds', now() - interval '9 seconds', 'failed', now(), 'w', '{"held": 0}')`;
  await web.db.sql`insert into arcadia.spent_tags (saga_id) select gen_random_uuid() from generate_series(1, 4)`;
  const fresh = await waitFor(async () => {
    const samples = parseMetrics((await web.call('GET', '/metrics')).text);
    return samples.get('arcadia_inventory_droplets') === 3 && samples;
  }, { what: 'the scrape that is kept to be over' });
  expect(fresh.get('arcadia_drift_open{field="image"}')).toBe(2);
  expect(fresh.get('arcadia_drift_open{field="existence"}')).toBe(0);
  expect([fresh.get('arcadia_orphans{category="surplus"}'), fresh.get('arcadia_orphans{category="unknown"}'), fresh.get('arcadia_orphans{category="acknowledged"}')]).toEqual([2, 0, 1]);
  expect(fresh.get('arcadia_orphans_usd_per_hour{category="surplus"}')).toBe(0.75);
  expect([fresh.get('arcadia_orphans_held'), fresh.get('arcadia_inventory_failed_syncs')]).toEqual([7, 1]);
  expect(fresh.get('arcadia_spent_tags')).toBe(4);
  expect(fresh.get('arcadia_inventory_sync_duration_seconds')).toBe(40);
  expect(fresh.get('arcadia_inventory_sync_age_seconds')).toBeGreaterThanOrEqual(60);
});

test('what cannot be read in time leaves the other metrics of Postgres in place', async () => {
  await using web = await openWebStage({}, 'redis', silentLog);
  await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet });
  const other = await reserveConnection(web.db);
  try {
    await other`begin`;
    // The outcomes of steps are read from the events; nothing else is.
    await other`lock table arcadia.saga_events in access exclusive mode`;
    const samples = parseMetrics((await web.call('GET', '/metrics')).text);
    expect(samples.get('arcadia_scrape_ok{source="postgres"}')).toBe(0);
    expect(samples.get('arcadia_sagas{name="provision_droplet",status="pending"}')).toBe(1);
    expect([samples.get('arcadia_sagas_stuck'), samples.get('arcadia_sagas_unfinished')]).toEqual([0, 1]);
    expect([...samples.keys()].some((key) => key.startsWith('arcadia_step_outcomes'))).toBe(false);
  } finally {
    await other`rollback`;
    other.release();
  }
});

describe('jobs that stand still', () => {
  const head: QueueHead = { queue: 'saga-steps', isPaused: false, state: 'waiting', mark: 'a#0', delayMs: 0 };
  type World = { heads: readonly QueueHead[] };
  const watch = (world: World) => watchQueues({ heads: () => Promise.resolve(world.heads), paused: () => Promise.resolve([]), memory: () => Promise.resolve({ isFull: false, evictionPolicy: null }), ping: () => Promise.resolve() }, { jobStallMs: 100, sampleEveryMs: 10 });

  test('show while one is at the head and nobody takes it, and no longer once it moves', async () => {
    const world: World = { heads: [head] };
    const queues = watch(world);
    expect((await queues.observe()).stalled).toEqual([]);
    await waitFor(async () => (await queues.observe()).stalled.length > 0, { what: 'the stall to show', deadlineMs: 2_000 });
    // The same job, taken once more: a poll that was put back.
    world.heads = [{ ...head, mark: 'a#1' }];
    expect((await queues.observe()).stalled).toEqual([]);
    queues.close();
  });

  test('do not show for a queue that is paused, nor for a job that is to wait', async () => {
    const queues = watch({ heads: [{ ...head, isPaused: true }, { ...head, state: 'delayed', delayMs: 60_000 }] });
    await new Promise((resolve) => void setTimeout(resolve, 250));
    expect((await queues.observe()).stalled).toEqual([]);
    queues.close();
  });
});

const away = () => Promise.reject(new Error('redis://user:password@host is away'));
const there = () => Promise.resolve();
const queuesOf = async (ping: () => Promise<void>) => (await checkReadiness({ stats: { ping: there }, queues: { ping } }))[1];
const readonly = () => Promise.reject(new Error("READONLY You can't write against a read only replica."));
const unsaved = () => Promise.reject(new Error('Redis cannot be used (REDIS_URL): MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist on disk.'));

describe('/readyz', () => {
  test('is green without a worker, with sagas that nobody looks after: this process can serve', async () => {
    await using web = await openWebStage({}, 'redis', silentLog);
    const sagaId = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet }));
    await web.db.sql`update arcadia.sagas set wake_at = now() - interval '10 minutes' where id = ${sagaId}`;
    const answer = await web.call('GET', '/readyz');
    expect([answer.status, answer.json()]).toEqual([200, { status: 'ready', checks: ['postgres', 'queues'].map((name) => ({ name, ok: true, detail: 'answers and takes writes' })) }]);
  });

  test('is red when Postgres does not answer, and says no more than that', async () => {
    const [postgres] = await checkReadiness({ stats: { ping: away }, queues: { ping: there } });
    expect(postgres).toEqual({ name: 'postgres', ok: false, detail: 'does not answer, or takes no writes' });
  });

  test('is red when the queue store answers and takes no writes, and green while it is away for everybody', async () => {
    expect(await queuesOf(readonly)).toMatchObject({ name: 'queues', ok: false });
    expect(await queuesOf(unsaved)).toEqual({ name: 'queues', ok: false, detail: 'takes no writes' });
    expect(await queuesOf(away)).toMatchObject({ name: 'queues', ok: true, detail: 'does not answer: this process serves without it' });
  });
});

describe('/statusz', () => {
  test('tells of a fleet without a worker, of stuck sagas, and of a queue that is paused; all of it is in the metrics', async () => {
    await using web = await openWebStage();
    const sagaId = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet }));
    await web.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null where id = ${sagaId}`;
    await web.db.sql`insert into arcadia.workers (id, name, host, pid, version, node_version, concurrency, last_seen_at) values (gen_random_uuid(), 'a:1', 'a', 1, '1', '24', 50, now() - interval '43 seconds')`;
    const paused = await web.call('PUT', '/queues/api/queues/saga-steps/pause');
    expect(paused.status).toBe(200);
    const answer = await waitFor(async () => {
      const told = await web.call('GET', '/statusz');
      return conditionsOf(told).length === 3 && told;
    }, { what: 'three conditions' });
    expect(answer.status).toBe(200);
    expect(conditionsOf(answer)).toEqual(['no_worker', 'sagas_stuck', 'queue_paused']);
    expect(answer.text).toMatch(/No worker has been seen for 4\d s/);
    const samples = parseMetrics((await web.call('GET', '/metrics')).text);
    expect(['no_worker', 'sagas_stuck', 'queue_paused', 'token_refused'].map((name) => samples.get(`arcadia_condition{name="${name}"}`))).toEqual([1, 1, 1, 0]);
    expect(samples.get('arcadia_workers')).toBe(0);
  });

  test('tells everybody that something is the matter, and what it is only those who may read', async () => {
    await using web = await openWebStage(credentials);
    const [without, wrong, reader, starter] = await Promise.all([
      web.call('GET', '/statusz'),
      web.call('GET', '/statusz', { headers: bearer('wrong') }),
      web.call('GET', '/statusz', { headers: bearer(secrets.read) }),
      web.call('GET', '/statusz', { headers: bearer(secrets.start) }),
    ]);
    expect(wrong.status).toBe(401);
    for (const answer of [without, starter]) expect(answer.json()).toEqual({ status: 'attention', at: expect.any(String), conditions: [{ name: 'no_worker', severity: 'critical' }] });
    expect(reader.json()).toMatchObject({ status: 'attention', conditions: [{ name: 'no_worker', title: 'No worker is running', needsPerson: true }], workers: [] });
  });
});
