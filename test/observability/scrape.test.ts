// What Prometheus gets while a store hangs: the scrape that would raise the alarm. And how ends of sagas are counted.
import { expect, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { startTcpProxy } from '../support/fault-proxy.ts';
import { openFleet, web as droplet } from '../support/fleet.ts';
import { parseMetrics } from '../support/parse-metrics.ts';
import { waitFor } from '../support/wait-for.ts';
import { patience } from '../support/patience.ts';

// Through the cluster, the addresses of its nodes lead past a proxy.
const throughProxy = (url: string, port: number): string => {
  const changed = new URL(url);
  changed.hostname = '127.0.0.1';
  changed.port = String(port);
  return changed.href;
};

async function scrape(url: string): Promise<{ ms: number; samples: Map<string, number> }> {
  const startedAt = performance.now();
  const text = await (await fetch(url)).text();
  return { ms: performance.now() - startedAt, samples: parseMetrics(text) };
}

const told = (samples: ReadonlyMap<string, number>) => ['sagas_stuck', 'token_refused', 'queue_paused', 'users_file_broken'].map((name) => samples.get(`arcadia_condition{name="${name}"}`));

test('a store that hangs costs no scrape: web and worker answer within 2 s and say what did not', async () => {
  await using fleet = await openFleet('redis');
  await using postgres = await startTcpProxy(Number(new URL(fleet.databaseUrl).port));
  const { REDIS_URL = '' } = fleet.environment();
  await using redis = await startTcpProxy(Number(new URL(REDIS_URL).port));
  const stores = { DATABASE_URL: throughProxy(fleet.databaseUrl, postgres.port), ...(REDIS_URL.includes(',') ? {} : { REDIS_URL: throughProxy(REDIS_URL, redis.port) }) };
  const worker = await fleet.startWorker({ ...stores, WORKER_METRICS_PORT: '0' });
  const web = await startWeb(loadConfig(fleet.environment({ ...stores, PORT: '0' })), silentLog);
  const ofWorker = /"metrics":"([^"]+)"/.exec(worker.output())?.[1] ?? '';
  const ofWeb = `${web.url}/metrics`;
  expect((await scrape(ofWeb)).samples.get('arcadia_scrape_ok{source="postgres"}')).toBe(1);

  postgres.hold();
  // The last scrape is kept for two seconds.
  const hung = await waitFor(async () => {
    const { ms, samples } = await scrape(ofWeb);
    expect(ms).toBeLessThan(2_000 * patience());
    return samples.get('arcadia_scrape_ok{source="postgres"}') === 0 && samples;
  }, { what: 'a scrape without Postgres' });
  expect(hung.get('arcadia_condition{name="postgres_away"}')).toBe(1);
  // What is not known does not end an alert.
  expect(told(hung)).toEqual([undefined, undefined, 0, 0]);
  expect(hung.get('arcadia_condition{name="queue_store_full"}')).toBe(0);
  expect(hung.get('arcadia_ready{check="postgres"}')).toBe(0);
  expect(hung.get('arcadia_scrape_ok{source="queues"}')).toBe(1);
  expect(hung.get('bullmq_job_count{queue="saga-steps", state="waiting"}')).toBe(0);
  expect((await scrape(ofWorker)).ms).toBeLessThan(2_000 * patience());
  postgres.thaw();
  await waitFor(async () => (await scrape(ofWeb)).samples.get('arcadia_scrape_ok{source="postgres"}') === 1, { what: 'Postgres to be read again' });

  redis.hold();
  const without = await waitFor(async () => {
    const { ms, samples } = await scrape(ofWeb);
    expect(ms).toBeLessThan(2_000 * patience());
    return samples.get('arcadia_scrape_ok{source="queues"}') === 0 && samples;
  }, { what: 'a scrape without Redis' });
  expect(without.get('arcadia_condition{name="queue_store_away"}')).toBe(1);
  expect(told(without)).toEqual([0, 0, undefined, 0]);
  expect(without.get('arcadia_condition{name="queue_store_full"}')).toBeUndefined();
  expect(without.get('arcadia_scrape_ok{source="postgres"}')).toBe(1);
  expect((await scrape(ofWorker)).ms).toBeLessThan(2_000 * patience());
  redis.thaw();
  worker.signal('SIGKILL');
  await web.close();
});

test('each end of a saga is counted once, by saga and status, with how long the saga took', async () => {
  await using fleet = await openFleet('redis', { activateAfterMs: 0 });
  const worker = await startWorker(loadConfig(fleet.environment()), silentLog);
  const web = await startWeb(loadConfig(fleet.environment({ PORT: '0' })), silentLog);
  try {
    const made = await fleet.client.provisionDroplet(droplet);
    await made.result();
    const failed = await fleet.client.provisionDroplet({ ...droplet, region: 'sfo1' });
    await failed.result().catch(() => undefined);
    const told = parseMetrics(await worker.metrics());
    const ends = (saga: string, status: string) => told.get(`arcadia_saga_ends_total{saga="${saga}",status="${status}"}`);
    expect([ends('provision_droplet', 'completed'), ends('provision_droplet', 'compensated'), ends('provision_droplet', 'stuck'), ends('destroy_droplet', 'completed')]).toEqual([1, 1, 0, 0]);
    const labels = 'saga="provision_droplet",status="completed"';
    expect(told.get(`arcadia_saga_duration_seconds_count{${labels}}`)).toBe(1);
    expect(told.get(`arcadia_saga_duration_seconds_sum{${labels}}`)).toBeGreaterThan(0);
    expect(told.get(`arcadia_saga_duration_seconds_sum{${labels}}`)).toBeLessThan(60);
    expect(told.get('arcadia_saga_duration_seconds_count{saga="destroy_droplet",status="stuck"}')).toBe(0);

    // One that no worker took ends where it is cancelled.
    await worker.close();
    const { sagaId } = await fleet.client.provisionDroplet(droplet);
    await fetch(`${web.url}/v1/sagas/${sagaId}/cancel`, { method: 'POST' });
    const ofWeb = await waitFor(async () => {
      const { samples } = await scrape(`${web.url}/metrics`);
      return samples.get('arcadia_saga_ends_total{saga="provision_droplet",status="compensated"}') === 1 && samples;
    }, { what: 'the end to be counted' });
    expect(ofWeb.get('arcadia_saga_ends_total{saga="provision_droplet",status="completed"}')).toBe(0);
  } finally {
    await web.close();
  }
});
