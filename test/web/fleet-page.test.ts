// The page of the fleet: workers, queues, background work and charts; what is not known is not shown as zero.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { saveRequests } from '../../src/inventory/request-counts.ts';
import { readHistory } from '../../src/saga/history.ts';
import { startTcpProxy } from '../support/fault-proxy.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { placeSync } from './droplets-stage.ts';
import { backends, basic, bearer, credentials, droplet, openWebStage, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const reader = bearer(secrets.read);
const page = async (web: Web, path = '/fleet') => {
  const answer = await web.call('GET', path, { headers: reader });
  expect(answer.status).toBe(200);
  return answer.text;
};
const textOf = (html: string) => html.replaceAll(/<[^>]+>/g, ' ').replaceAll(/\s+/g, ' ');

const addWorker = (web: Web, name: string, secondsAgo: number) => web.db.sql`
  insert into arcadia.workers (id, name, host, pid, version, node_version, started_at, last_seen_at, concurrency, jobs)
  values (gen_random_uuid(), ${name}, 'host-7', 42, '0.1.0', 'v24.0.0', clock_timestamp() - interval '1 hour', clock_timestamp() - ${secondsAgo}::int * interval '1 second', 50, 3)`;

describe.each(backends)('on %s', (backend) => {
  let web: Web;
  beforeAll(async () => {
    web = await openWebStage(credentials, backend);
  });
  afterAll(() => web[Symbol.asyncDispose]());

  test('says that there is no worker, that nothing has run yet, and draws empty charts', async () => {
    // While the process starts, a part may be late.
    const text = await waitFor(async () => {
      const shown = textOf(await page(web));
      return !shown.includes('did not answer in time') && shown;
    }, { what: 'every part of the page' });
    expect(text).toContain('No worker has been seen lately');
    expect(text).toContain('Request budget not known No worker is running');
    expect(text).toContain('Reconciler does not run No worker is running');
    expect(text).toContain('Retention has not run yet');
    expect(text).toContain('Inventory sync has not run yet');
    expect(text).toContain('saga-steps 0 0 0 0 –');
    expect(text).toContain('Sagas per minute');
  });

  test('shows who works, since when and on how much; and that a worker shows no sign of life', async () => {
    await addWorker(web, 'host-7:42', 1);
    await addWorker(web, 'host-8:<b>', 3_600);
    // The page shares what was read within the last second.
    const html = await waitFor(async () => {
      const shown = await page(web);
      return shown.includes('host-7:42') && shown;
    }, { what: 'the workers to be shown' });
    expect(textOf(html)).toMatch(/host-7:42 host-7 0\.1\.0 1 h .* ago .* ago 3 of 50/);
    expect(textOf(html)).toMatch(/host-8:.* no sign of life not known/);
    expect(html).not.toContain('host-8:<b>');
    await web.db.sql`delete from arcadia.workers`;
  });

  test('shows in red what a person must see to, and beside it what goes on', async () => {
    await writeSagas(web.db, { count: 1, status: 'stuck', daysAgo: 0 });
    const html = await waitFor(async () => {
      const shown = await page(web);
      return shown.includes('needs attention</a></b>') && shown;
    }, { what: 'the card of the sagas' });
    expect(html).toContain('<li class="bad"><small>Sagas</small><b><a href="/sagas?status=stuck">1 needs attention</a></b><small>0 in progress</small></li>');
    await web.db.sql`delete from arcadia.sagas`;
  });

  test('shows when the account was last read, however many syncs failed since', async () => {
    await placeSync(web.db, { agoS: 7_200 });
    for (let count = 0; count < 12; count += 1) await placeSync(web.db, { agoS: 60, outcome: 'failed', error: 'no answer' });
    expect(textOf(await page(web))).toMatch(/Inventory sync sync 13 failed no answer · last complete 2 h \d+ min ago/);
    await web.db.sql`delete from arcadia.inventory_syncs`;
  });

  test('shows who spends the request budget, and what is left of it', async () => {
    await addWorker(web, 'host-9:1', 1);
    await saveRequests(web.db, { create: 12, read: 3 }, { minute: 235, hour: 4_800 });
    const text = await waitFor(async () => {
      const shown = textOf(await page(web));
      return shown.includes('host-9:1') && shown;
    }, { what: 'the worker to be shown' });
    expect(text).toMatch(/Request budget has room 235 left this minute and 4800 this hour, as of .* ago/);
    expect(text).toMatch(/Requests to DigitalOcean For Last minute Last hour creates \d+ 12 reads of droplets \d+ 3 /);
    expect(text).toContain('Requests to DigitalOcean per minute');
    await web.db.sql`delete from arcadia.workers`;
  });

  test('shows what waits in the queues, and who paused one: on the page, and in the strip', async () => {
    expect((await web.call('PUT', '/queues/api/queues/saga-steps/pause', { headers: basic() })).status).toBe(200);
    expect((await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: bearer(secrets.start) })).status).toBe(202);
    const text = await waitFor(async () => {
      const shown = textOf(await page(web));
      return shown.includes('paused by http:ada') && shown;
    }, { what: 'the pause to be shown' });
    expect(text).toMatch(/saga-steps paused by http:ada, \S+ \S+ ago (1|–) 0 0 0 .*ago/);
    expect(text).toContain('Queue saga-steps is paused. Workers do not take jobs from it. Paused by http:ada.');
    await web.call('PUT', '/queues/api/queues/saga-steps/resume', { headers: basic() });
    expect(textOf(await page(web))).not.toContain('paused by');
  });
});

describe('charts', () => {
  test('count what started and ended, and how long completed sagas took, for an hour, a day and a week', async () => {
    await using web = await openWebStage(credentials);
    await writeSagas(web.db, { count: 30, status: 'completed', daysAgo: 0 });
    await writeSagas(web.db, { count: 5, status: 'compensated', daysAgo: 0 });
    await web.db.sql`update arcadia.sagas set created_at = clock_timestamp() - interval '10 minutes', finished_at = clock_timestamp() - interval '9 minutes'`;
    await web.db.sql`update arcadia.sagas set finished_at = finished_at + interval '5 minutes' where id in (select id from arcadia.sagas where status = 'completed' limit 1)`;
    for (const span of ['hour', 'day', 'week']) {
      const html = await page(web, `/fleet?span=${span}`);
      expect(textOf(html)).toContain('started 35 completed 30 rolled back 5');
      expect(html).toContain('aria-label="Start to completion: provision_droplet. p50: ');
      expect(html).toContain(`aria-current="true">Last ${span}</a>`);
    }
    const { durations } = await readHistory(web.db, { seconds: 604_800, partSeconds: 604_800 }, []);
    expect(durations).toHaveLength(1);
    expect(Math.max(...(durations[0]?.parts ?? []).map((part) => part?.p99 ?? 0))).toBeCloseTo(360, 0);
    expect(Math.min(...(durations[0]?.parts ?? []).map((part) => part?.p50 ?? 1_000))).toBeCloseTo(60, 0);
    expect((await web.call('GET', '/fleet?span=year', { headers: reader })).status).toBe(400);
  });

  test('show how long provisions took until their droplet was active, also those that are not over or were rolled back later', async () => {
    await using web = await openWebStage(credentials);
    await writeSagas(web.db, { count: 4, status: 'running', daysAgo: 0 });
    await writeSagas(web.db, { count: 1, status: 'compensated', daysAgo: 0 });
    await web.db.sql`update arcadia.sagas set created_at = clock_timestamp() - interval '10 minutes'`;
    await web.db.sql`delete from arcadia.saga_events`;
    expect(await page(web)).not.toContain('Time to active');
    await web.db.sql`
      insert into arcadia.saga_events (saga_id, seq, at, kind, step, attempt, detail)
      select id, 7, created_at + (case when status = 'running' then 50 else 200 end) * interval '1 second', 'step_completed', 'wait_droplet_active', 1, '{}'::jsonb from arcadia.sagas
      union all select id, 8, clock_timestamp(), 'step_completed', 'register_droplet', 1, '{}'::jsonb from arcadia.sagas`;
    const milestone = { saga: 'provision_droplet', step: 'wait_droplet_active', label: 'active' };
    const { milestones } = await readHistory(web.db, { seconds: 604_800, partSeconds: 604_800 }, [milestone, { ...milestone, saga: 'destroy_droplet' }]);
    expect(milestones).toMatchObject([{ name: 'provision_droplet', label: 'active' }]);
    const known = milestones[0]?.parts.find((part) => part !== null);
    expect([known?.p50, known?.p99]).toEqual([expect.closeTo(50, 1), expect.closeTo(200, 1)]);
    // The page keeps a chart for a while: this one was not asked for yet.
    expect(await page(web, '/fleet?span=day')).toContain('aria-label="Time to active: provision_droplet. p50: ');
  });

  test('have a part for each moment of the span, and leave out what is older', async () => {
    await using web = await openWebStage(credentials);
    await writeSagas(web.db, { count: 10, status: 'completed', daysAgo: 3 });
    const { parts, durations } = await readHistory(web.db, { seconds: 3_600, partSeconds: 60 }, []);
    expect(parts).toHaveLength(60);
    expect(parts.every(({ started, completed, rolledBack }) => started + completed + rolledBack === 0)).toBe(true);
    expect(durations).toEqual([]);
    expect(parts.map(({ at }) => at.getTime() % 60_000)).toEqual(parts.map(() => 0));
  });
});

test('a queue store that hangs leaves the rest of the page as it is', async () => {
  const redis = createTestRedis();
  await using proxy = await startTcpProxy(Number(new URL(redis.url).port));
  const through = new URL(redis.url);
  through.hostname = '127.0.0.1';
  through.port = String(proxy.port);
  await using web = await openWebStage({ ...credentials, REDIS_URL: through.href, QUEUE_PREFIX: redis.prefix });
  await addWorker(web, 'host-7:42', 1);
  proxy.hold();
  const text = await waitFor(async () => {
    const startedAt = performance.now();
    const shown = textOf(await page(web));
    expect(performance.now() - startedAt).toBeLessThan(6_000);
    // What is known of the fleet comes with the next look at it.
    return shown.includes('the queue store did not answer in time') && shown;
  }, { what: 'the page without the queue store' });
  expect(text).toContain('Not known: the queue store did not answer in time.');
  expect(text).toContain('Sagas per minute');
  proxy.thaw();
  await redis.drop();
});
