// `arcadia doctor`, as a process: everything well, one thing wrong at a time, and nothing there at all.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { reserveConnection } from '../../src/platform/db.ts';
import { generateKey } from '../../src/platform/key-ring.ts';
import { HOUR_MS, createShiftedClock } from '../support/shifted-clock.ts';
import { claimQueues, openFleet, runCommand } from '../support/fleet.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { createTestDatabase } from '../support/services-postgres.ts';

const report = z.object({ ok: z.boolean(), findings: z.array(z.object({ check: z.string(), level: z.string(), text: z.string(), action: z.string().nullable() })) });

async function diagnose(environment: NodeJS.ProcessEnv) {
  const { code, stdout, stderr } = await runCommand(['doctor', '--json'], environment);
  const { findings } = report.parse(JSON.parse(stdout));
  return { code, stderr, findings, of: (check: string) => findings.filter((finding) => finding.check === check) };
}

/** A port that takes connections and never says a word. */
async function openBlackHole(): Promise<number> {
  const server = createServer(() => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on a port
  return (server.address() as AddressInfo).port;
}

test('all is well: a line for each check, exit code 0, and no secret in it', async () => {
  await using fleet = await openFleet('redis');
  await fleet.startWorker();
  const { code, stdout } = await runCommand(['doctor'], fleet.environment({ DIGITALOCEAN_TOKEN: 'dop_v1_doctor_canary' }));
  expect({ code, stdout }).toMatchObject({ code: 0 });
  for (const line of ['OK   configuration: valid; environment test', 'OK   postgres: reachable, PostgreSQL', 'OK   migrations: none due', 'OK   request budget: ', 'OK   workers: 1 alive, version', 'OK   digitalocean: ', 'OK   token scopes: ', 'OK   clock of postgres: ', 'OK   clock of digitalocean: ']) {
    expect(stdout).toContain(line);
  }
  expect(stdout).toMatch(/^OK {3}queues: in (Redis|Valkey) \d+\.\d+\.\d+, reachable, none paused$/m);
  expect(stdout).toMatch(/^OK {3}request budget: \d+ of \d+ requests are left this minute, \d+ of \d+ this hour$/m);
  expect(stdout).not.toContain('canary');
});

test('nothing is configured: it says what is not set, and checks the rest', async () => {
  const { PATH, HOME } = process.env;
  const { code, stderr, of } = await diagnose({ PATH, HOME });
  expect([code, stderr]).toEqual([1, '']);
  expect(of('configuration').map(({ level, text }) => [level, text])).toEqual([
    ['fail', 'DATABASE_URL is not set'],
    ['warn', 'DIGITALOCEAN_TOKEN is not set: DigitalOcean is not checked'],
    ['ok', 'REDIS_URL is not set: the queues are in Postgres'],
    ['warn', 'ARCADIA_ENCRYPTION_KEYS is not set: sagas with user_data are refused'],
  ]);
  expect(of('versions')).toHaveLength(1);
});

test('published secrets with the real DigitalOcean are failures, as worker and web do not start with them', async () => {
  const { PATH, HOME } = process.env;
  const { code, of } = await diagnose({ PATH, HOME, DASHBOARD_USER: 'dev', DASHBOARD_PASSWORD: 'development-password', API_TOKENS: 'first:read:development-api-token' });
  expect(code).toBe(1);
  const failures = of('configuration').filter(({ level, text }) => level === 'fail' && !text.startsWith('DATABASE_URL'));
  expect(failures.map(({ text, action }) => [text.split(':')[0], action])).toEqual([
    ['DASHBOARD_PASSWORD', 'Until then, `worker` and `web` do not start.'],
    ['API_TOKENS', 'Until then, `worker` and `web` do not start.'],
  ]);
  expect(of('configuration').map(({ text }) => text)).not.toContain('valid; environment default');
});

test('the published key behind one of your own is a warning, with the real DigitalOcean alone', async () => {
  const { PATH, HOME } = process.env;
  const keys = { ARCADIA_ENCRYPTION_KEYS: `${generateKey()},ZGV2ZWxvcG1lbnQga2V5LCBub3QgYSBzZWNyZXQhISE=` };
  const aboutKeys = async (more: NodeJS.ProcessEnv) => (await diagnose({ PATH, HOME, ...keys, ...more })).of('configuration').filter(({ text }) => text.startsWith('ARCADIA_ENCRYPTION_KEYS'));
  expect(await aboutKeys({})).toMatchObject([{ level: 'warn', text: 'ARCADIA_ENCRYPTION_KEYS: one of the keys behind the first is published in compose.yaml, so anybody can open what it sealed' }]);
  expect(await aboutKeys({ DIGITALOCEAN_TOKEN: 'sandbox' })).toEqual([]);
});

test('a variable that cannot be used is named, and the rest is checked without it', async () => {
  await using fleet = await openFleet('postgres');
  const { code, of } = await diagnose(fleet.environment({ REDIS_URL: 'http://x', WAIT_MAX_POLLS: 'many' }));
  expect(code).toBe(1);
  const wrong = of('configuration').filter(({ level }) => level === 'fail');
  expect(wrong.map(({ text }) => text.split(':')[0])).toEqual(['REDIS_URL', 'WAIT_MAX_POLLS']);
  expect(of('migrations')).toMatchObject([{ level: 'ok' }]);
  expect(of('digitalocean')).toMatchObject([{ level: 'ok' }]);
});

test('the users file is checked, and its bad line named', async () => {
  const { PATH, HOME } = process.env;
  const folder = mkdtempSync(join(tmpdir(), 'arcadia-users-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'users');
  writeFileSync(file, 'rita:read\nstan:admin');
  const broken = await diagnose({ PATH, HOME, DASHBOARD_USERS_FILE: file });
  expect(broken.of('users file')).toMatchObject([{ level: 'fail', text: expect.stringContaining('DASHBOARD_USERS_FILE: line 2: expected name:role:hash') }]);
  writeFileSync(file, 'rita:read');
  expect((await diagnose({ PATH, HOME, DASHBOARD_USERS_FILE: file })).of('users file')).toMatchObject([{ level: 'ok' }]);
});

const account = (status: string, message: string) => ({ account: { droplet_limit: 25, uuid: 'b6f', email: 'a@example.com', status, status_message: message } });

describe('one thing is wrong', () => {
  test('Redis is away, or Postgres takes connections and is silent: told within seconds, the others are checked', async () => {
    await using fleet = await openFleet('postgres');
    const port = await openBlackHole();
    const withoutRedis = await diagnose(fleet.environment({ REDIS_URL: 'redis://127.0.0.1:9' }));
    expect([withoutRedis.code, withoutRedis.of('queues')]).toMatchObject([1, [{ level: 'fail', text: expect.stringContaining('Redis cannot be reached') }]]);
    expect([withoutRedis.of('postgres'), withoutRedis.of('request budget')]).toMatchObject([[{ level: 'ok' }], []]);
    const startedAt = performance.now();
    const silent = await diagnose(fleet.environment({ DATABASE_URL: `postgres://u:canary@127.0.0.1:${port}/db` }));
    expect(performance.now() - startedAt).toBeLessThan(25_000);
    expect([silent.code, silent.of('postgres'), silent.of('digitalocean'), silent.of('request budget')]).toMatchObject([1, [{ level: 'fail' }], [{ level: 'ok' }], []]);
    expect(JSON.stringify(silent.findings)).not.toContain('canary');
    const refused = await diagnose(fleet.environment({ DATABASE_URL: 'postgres://u:p@127.0.0.1:9/db' }));
    expect(refused.of('postgres')).toMatchObject([{ level: 'fail', text: expect.stringContaining('cannot be reached') }]);
  });

  test('the queues are those of another database, or of none: a failure says what to set, and nothing is written there', async () => {
    await using fleet = await openFleet('redis');
    await claimQueues(fleet);
    await using other = await openFleet('redis');
    const { REDIS_URL: url = '', QUEUE_PREFIX: prefix = '' } = other.environment();
    const redis = connectTestRedis(url);
    onTestFinished(() => redis.disconnect());
    expect((await diagnose(fleet.environment())).of('queues')).toMatchObject([{ level: 'ok' }]);
    const unclaimed = await diagnose(fleet.environment({ QUEUE_PREFIX: prefix }));
    expect([unclaimed.code, unclaimed.of('queues'), unclaimed.of('request budget')]).toMatchObject([1, [{ level: 'fail', text: expect.stringContaining(`under QUEUE_PREFIX ${prefix} belong to no database`), action: expect.stringContaining('as the workers have them') }], []]);
    expect(await redis.keys(`${prefix}*`)).toEqual([]);
    await claimQueues(other, 'another/database');
    const ofAnother = await diagnose(fleet.environment({ QUEUE_PREFIX: prefix }));
    expect([ofAnother.code, ofAnother.of('queues'), ofAnother.of('request budget')]).toMatchObject([1, [{ level: 'fail', text: expect.stringContaining(`under QUEUE_PREFIX ${prefix} belong to another database`) }], []]);
  });

  test('migrations are due: it names them and the command', async () => {
    const database = await createTestDatabase();
    onTestFinished(() => database.drop());
    await using fleet = await openFleet('postgres');
    const { code, of } = await diagnose(fleet.environment({ DATABASE_URL: database.url }));
    expect(code).toBe(1);
    expect(of('migrations')).toMatchObject([{ level: 'fail', text: expect.stringMatching(/^\d+ due: 0001\.do\.sagas\.sql/), action: 'Run `arcadia migrate`.' }]);
    expect(of('queues')).toMatchObject([{ level: 'fail', action: 'Run `arcadia migrate`.' }]);
  });

  test('a database is read-only: a message of several lines is one line without a literal \\n', async () => {
    await using fleet = await openFleet('redis');
    await fleet.db.sql.unsafe(`alter database ${new URL(fleet.directUrl).pathname.slice(1)} set default_transaction_read_only = on`);
    const { stdout } = await runCommand(['doctor'], fleet.environment());
    expect(stdout).toMatch(/^FAIL environment: DATABASE_URL: its sessions are set so .* cannot change it: default_transaction_read_only is on; expected off\. Change it for this role/m);
    const { of } = await diagnose(fleet.environment());
    expect(of('environment')[0]?.text).not.toContain(String.raw`\n`);
    expect(stdout).not.toContain(String.raw`\n`);
  });

  test('a table is locked: it says what Postgres said, not that a migration is due', async () => {
    await using fleet = await openFleet('postgres');
    const locked = await reserveConnection(fleet.db);
    await locked`begin`;
    await locked`lock table arcadia.circuits in access exclusive mode`;
    const { code, of } = await diagnose(fleet.environment());
    await locked`rollback`;
    locked.release();
    expect([code, of('migrations'), of('workers')]).toMatchObject([1, [{ level: 'ok', text: 'none due' }], [{ level: 'fail', text: expect.stringMatching(/^the tables cannot be read: .*(statement timeout|did not answer within)/), action: expect.stringContaining('pg_locks') }]]);
    expect(of('workers')[0]?.action).not.toContain('migrate');
  });

  test('no worker is alive; one is of another version', async () => {
    await using fleet = await openFleet('postgres');
    expect((await diagnose(fleet.environment())).of('workers')).toMatchObject([{ level: 'fail', text: 'none is alive', action: 'Start one: `arcadia worker`.' }]);
    await fleet.db.sql`insert into arcadia.workers (id, name, host, pid, version, node_version, concurrency, jobs) values (gen_random_uuid(), 'old:1', 'h', 1, '0.0.1', '24.0.0', 1, 0)`;
    const { code, of } = await diagnose(fleet.environment());
    expect([code, of('workers')]).toMatchObject([0, [{ level: 'warn', text: expect.stringContaining('old:1 (0.0.1)') }]]);
  });

  test('the token is refused; it lacks a scope', async () => {
    await using fleet = await openFleet('postgres', { token: 'right' });
    expect((await diagnose(fleet.environment({ DIGITALOCEAN_TOKEN: 'wrong_canary' }))).of('digitalocean')).toMatchObject([{ level: 'fail', text: expect.stringContaining('refuses the token'), action: 'Set a valid DIGITALOCEAN_TOKEN.' }]);
    fleet.sandbox.setFaults({ rules: [{ match: { path: '/v2/tags' }, effect: { status: 403 } }] });
    expect((await diagnose(fleet.environment({ DIGITALOCEAN_TOKEN: 'right' }))).of('token scopes')).toMatchObject([{ level: 'fail', text: 'the token probably lacks tag:read' }]);
  });

  test('the token lacks scopes that only some droplets need: a warning names the fields', async () => {
    await using fleet = await openFleet('postgres');
    fleet.sandbox.setFaults({ rules: [{ match: { path: '^/v2/(account/keys|vpcs|volumes|projects)$' }, effect: { status: 403 } }] });
    const { of } = await diagnose(fleet.environment());
    const text = 'the token probably lacks ssh_key:read (only for ssh_keys), vpc:read (only for vpc_uuid), block_storage:read (only for volumes), project:read (only for project)';
    expect(of('token scopes')).toMatchObject([{ level: 'warn', text, action: 'Add the scopes if droplets use these fields.' }]);
    fleet.sandbox.setFaults({ rules: [{ match: { path: '^/v2/account$' }, effect: { status: 403 } }] });
    const without = await diagnose(fleet.environment());
    expect([without.of('digitalocean'), without.of('token scopes')]).toMatchObject([[{ level: 'warn', text: expect.stringContaining('account:read is missing') }], [{ level: 'ok', text: expect.stringContaining('images, actions, ssh_keys, vpcs, volumes, projects') }]]);
  });

  test('a process without a token, such as the web, is fit: a warning says what is not checked', async () => {
    await using fleet = await openFleet('postgres');
    await fleet.startWorker();
    const { code, of } = await diagnose(fleet.environment({ DIGITALOCEAN_TOKEN: '' }));
    expect([code, of('configuration')]).toMatchObject([0, expect.arrayContaining([{ check: 'configuration', level: 'warn', text: 'DIGITALOCEAN_TOKEN is not set: DigitalOcean is not checked', action: 'Set it for workers and `sync`. `web` needs none.' }])]);
  });

  test('the account is locked, or warned', async () => {
    await using fleet = await openFleet('postgres');
    fleet.sandbox.setFaults({ rules: [{ match: { path: '/v2/account' }, effect: { status: 200, body: account('locked', 'Please pay.') } }] });
    expect((await diagnose(fleet.environment())).of('digitalocean')).toMatchObject([{ level: 'fail', text: expect.stringContaining('the account is locked: Please pay.') }]);
    fleet.sandbox.setFaults({ rules: [{ match: { path: '/v2/account' }, effect: { status: 200, body: account('warning', '') } }] });
    expect((await diagnose(fleet.environment())).of('digitalocean')).toMatchObject([{ level: 'warn', text: expect.stringContaining('the account has a warning') }]);
  });

  test('the token is of another account than the droplets on record: a failure says what to do', async () => {
    await using fleet = await openFleet('postgres');
    await fleet.startWorker();
    expect((await diagnose(fleet.environment())).of('digitalocean')).toMatchObject([{ level: 'ok' }]);
    fleet.sandbox.setFaults({ rules: [{ match: { path: '^/v2/account$' }, effect: { status: 200, body: account('active', '') } }] });
    const { code, of } = await diagnose(fleet.environment({ DIGITALOCEAN_TOKEN: 'of-another' }));
    expect([code, of('digitalocean')]).toMatchObject([1, [{ level: 'fail', text: expect.stringMatching(/^DIGITALOCEAN_TOKEN is of the account b6f, but this database's droplets are in the account [0-9a-f]{40}/), action: expect.stringContaining('Set the token that belongs to this database') }]]);
  });

  test('each answer of DigitalOcean takes two seconds: told what it says, not that there was none', async () => {
    await using fleet = await openFleet('postgres');
    fleet.sandbox.setFaults({ rules: [{ match: {}, effect: { holdAnswerMs: 2_000 } }] });
    const { of } = await diagnose(fleet.environment());
    expect([...of('digitalocean'), ...of('token scopes')]).toMatchObject([{ level: 'ok' }, { level: 'ok' }]);
  });

  test('no request is left of the hour', async () => {
    await using fleet = await openFleet('postgres');
    expect((await diagnose(fleet.environment({ DIGITALOCEAN_REQUESTS_PER_HOUR: '1' }))).of('request budget')).toMatchObject([{ level: 'warn', text: expect.stringContaining('0 of 1 this hour') }]);
  });

  test('the clock of this machine is an hour ahead: held against Postgres and against DigitalOcean', async () => {
    await using fleet = await openFleet('postgres');
    await using clock = await createShiftedClock(HOUR_MS);
    const { of } = await diagnose({ ...fleet.environment(), ...clock.environment });
    for (const check of ['clock of postgres', 'clock of digitalocean']) {
      expect(of(check)).toMatchObject([{ level: 'warn', text: expect.stringMatching(/is 3(599|60\d)\.\d s ahead of/), action: 'Set the clock (NTP).' }]);
    }
  });
});
