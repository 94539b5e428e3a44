// The state of a real fleet: workers that come, go and die, a token that is refused, and who is told of it where.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { runCommand } from '../support/fleet.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';

const report = z.looseObject({ status: z.string(), conditions: z.array(z.looseObject({ name: z.string(), title: z.string(), detail: z.string() })) });

test('workers sign in and out; one that is killed stops being seen, and what it had is shown as not taken', async () => {
  await using stage = await openFaultStage({ sandbox: { faults: { rules: [{ match: { method: 'POST' }, effect: { hang: true } }] } }, settings: { DIGITALOCEAN_TIMEOUT_MS: '20000', WORKER_LOCK_MS: '30000', ADOPTION_GRACE_MS: '40000' } });
  const web = await startWeb(loadConfig({ ...stage.env, PORT: '0' }), silentLog);
  onTestFinished(() => web.close());
  const seen = () => stage.db.sql<{ name: string; version: string; jobs: number; concurrency: number }[]>`select name, version, jobs, concurrency from arcadia.workers`;
  const inProcess = await stage.work();
  await waitFor(async () => (await seen()).length === 1, { what: 'the worker to sign in' });
  await inProcess.close();
  expect(await seen()).toHaveLength(0);

  const worker = stage.fork();
  await worker.ready();
  const [row] = await waitFor(async () => {
    const rows = await seen();
    return rows.length === 1 && rows;
  }, { what: 'the worker process to sign in' });
  expect(row).toMatchObject({ version: expect.stringMatching(/^\d+\.\d+\.\d+/), concurrency: 20 });
  const sagaId = await stage.provision('web-1');
  await waitFor(() => stage.sandbox.ledger().some(({ method }) => method === 'POST'), { what: 'the create to be sent' });
  const page = async () => (await fetch(`${web.url}/sagas/${sagaId}`, { headers: { accept: 'text/html' } })).text();
  expect(await page()).not.toContain('No worker');
  worker.signal('SIGKILL');
  await worker.exit();
  // As if some time had gone by.
  await stage.db.sql`update arcadia.workers set last_seen_at = last_seen_at - interval '43 seconds'`;
  const shown = await waitFor(async () => {
    const text = await page();
    return text.includes('No worker has been seen for') && text.includes('No worker has taken') && text;
  }, { what: 'the page to say that nobody is at it' });
  expect(shown).toContain('create_droplet · not taken');
  expect(shown).not.toContain('attempt live');
  const list = await (await fetch(`${web.url}/sagas`, { headers: { accept: 'text/html' } })).text();
  expect(list).toContain('no worker has taken it');

  const told = await runCommand(['status', '--json'], stage.env);
  expect(told.code).toBe(1);
  expect(report.parse(JSON.parse(told.stdout))).toMatchObject({ status: 'attention', conditions: [{ name: 'no_worker' }] });
});

test('a web whose queues are not those of the workers says so, though nothing that it sees is wrong', async () => {
  await using stage = await openFaultStage();
  await using other = createTestRedis();
  await stage.work();
  await waitFor(async () => (await stage.db.sql`select 1 from arcadia.workers`).length === 1, { what: 'the worker to sign in' });
  const statusOf = async (settings: NodeJS.ProcessEnv): Promise<unknown> => {
    const web = await startWeb(loadConfig({ ...stage.env, PORT: '0', ...settings }), silentLog);
    onTestFinished(() => web.close());
    return (await fetch(`${web.url}/statusz`)).json();
  };
  expect(await statusOf({})).toMatchObject({ status: 'ok', conditions: [] });
  const elsewhere = await statusOf({ QUEUE_PREFIX: other.prefix });
  expect(elsewhere).toMatchObject({ status: 'attention', conditions: [{ name: 'queues_differ' }] });
  expect(report.parse(elsewhere).conditions[0]?.detail).toContain(`${stage.env['QUEUE_PREFIX']}; this process has its own in Redis under QUEUE_PREFIX ${other.prefix}.`);
  expect(await statusOf({ REDIS_URL: '', QUEUE_PREFIX: '' })).toMatchObject({ conditions: [{ name: 'queues_differ' }] });
});

test('arcadia status ends with 0 while all is well, and with 1 and the scope that is missing while a person is needed', async () => {
  await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
  await stage.work({ probes: { firstMs: 600_000, maxMs: 600_000 } });
  await waitFor(async () => (await stage.db.sql`select 1 from arcadia.workers`).length === 1, { what: 'the worker to sign in' });
  const well = await runCommand(['status'], stage.env);
  expect([well.code, well.stdout]).toEqual([0, 'No problems. 1 worker, 0 sagas unfinished\n']);
  const folder = mkdtempSync(join(tmpdir(), 'arcadia-users-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'users'), 'rita:admin');
  const broken = await runCommand(['status'], { ...stage.env, DASHBOARD_USERS_FILE: join(folder, 'users') });
  expect([broken.code, broken.stdout]).toEqual([1, expect.stringContaining('The users file cannot be used. DASHBOARD_USERS_FILE: line 1: expected name:role:hash')]);
  stage.sandbox.setFaults({ forbiddenFields: ['vpc_uuid'] });
  for (const name of ['web-1', 'web-2']) await stage.provision(name, { vpc_uuid: '5a4981aa-9653-4bd1-bef5-d6bff52042e4' });
  await waitFor(async () => (await stage.db.sql`select 1 from arcadia.held_sagas`).length === 2, { what: 'both to be held' });
  const told = await runCommand(['status'], stage.env);
  expect(told.code).toBe(1);
  expect(told.stdout).toContain('DigitalOcean refuses POST /v2/droplets with vpc_uuid. The token probably lacks the scope vpc:read.');
  expect(told.stdout).toContain('2 sagas wait.');
  expect(told.stdout).toMatch(/\(since \d{4}-\S+Z, next check at \d{4}-\S+Z\)/);
});
