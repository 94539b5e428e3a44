// The roles of ops/roles.sql have what each process needs, and no more: the file is run as it stands, but for the roles' names.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { silentLog } from '../../src/platform/log.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { runCommand, web as droplet } from '../support/fleet.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';
import { openAdmin } from '../support/admin-connection.ts';

const prefix = `arcadia_${randomBytes(4).toString('hex')}`;
const roles = ['migrate', 'worker', 'web', 'client', 'producer', 'reader'].map((role) => `${prefix}_${role}`);
const rolesFile = readFileSync(new URL('../../ops/roles.sql', import.meta.url), 'utf8').replaceAll(/arcadia_(?=migrate|worker|web|client|producer|reader)/g, `${prefix}_`);

let database: TestDatabase;
let sandbox: Sandbox;

/** Runs SQL as the tests' own user, in this database. */
async function asAdmin(url: string, ...statements: string[]): Promise<void> {
  const admin = openAdmin(url);
  try {
    for (const statement of statements) await admin.unsafe(statement);
  } finally {
    await admin.end({ timeout: 5 });
  }
}

const urlAs = (role: string): string => {
  const url = new URL(database.directUrl);
  url.username = `${prefix}_${role}`;
  url.password = 'secret';
  return url.href;
};

const environmentOf = (role: string) => ({
  ARCADIA_ENV: 'test',
  DATABASE_URL: urlAs(role),
  DIGITALOCEAN_TOKEN: 'sandbox',
  DIGITALOCEAN_API_URL: sandbox.url,
  WAIT_POLL_INTERVAL_MS: '100',
  RECONCILE_INTERVAL_MS: '500',
  DIGITALOCEAN_REQUESTS_PER_MINUTE: '100000',
  DIGITALOCEAN_REQUESTS_PER_HOUR: '1000000',
  PORT: '0',
});

beforeAll(async () => {
  [database, sandbox] = await Promise.all([createTestDatabase(), startSandbox({ activateAfterMs: 100, ratePerMinute: null, ratePerHour: null })]);
  await asAdmin(database.directUrl, rolesFile, ...roles.map((role) => `alter role ${role} password 'secret'`));
});
afterAll(async () => {
  await sandbox.close();
  await database.drop();
  await asAdmin(inject('services').databaseUrl, ...roles.map((role) => `drop role ${role}`));
});

test('migrate needs no right to create schemas where they are there', async () => {
  const ended = await runCommand(['migrate'], { PATH: process.env['PATH'], ...environmentOf('migrate') });
  expect([ended.code, ended.stderr]).toEqual([0, '']);
  const again = await runCommand(['migrate'], { PATH: process.env['PATH'], ...environmentOf('migrate') });
  expect([again.code, again.stdout]).toEqual([0, 'up to date (environment test)\n']);
  await asAdmin(database.directUrl, rolesFile);
});

test.each(['arcadia', 'bullmq'])('migrate says what to create where the schema %s is missing and it may not create it', async (schema) => {
  await using other = await createTestDatabase();
  if (schema === 'bullmq') await asAdmin(other.directUrl, `create schema arcadia authorization ${prefix}_migrate`);
  const url = new URL(urlAs('migrate'));
  url.pathname = `/${other.name}`;
  const ended = await runCommand(['migrate'], { PATH: process.env['PATH'], ...environmentOf('migrate'), DATABASE_URL: url.href });
  expect([ended.code, ended.stderr]).toEqual([78, expect.stringContaining(`create schema ${schema} authorization`)]);
});

test('the file needs no superuser: a role that may create roles runs it, before and after migrate', async () => {
  await using other = await createTestDatabase();
  const names = rolesFile.replaceAll(prefix, `${prefix}_own`);
  const admin = `${prefix}_admin`;
  await asAdmin(other.directUrl, `create role ${admin} login createrole password 'secret'`, `alter database ${other.name} owner to ${admin}`);
  const url = new URL(other.directUrl);
  url.username = admin;
  url.password = 'secret';
  await asAdmin(url.href, names, `alter role ${prefix}_own_migrate password 'secret'`);
  const asMigrate = new URL(url);
  asMigrate.username = `${prefix}_own_migrate`;
  const ended = await runCommand(['migrate'], { PATH: process.env['PATH'], ...environmentOf('migrate'), DATABASE_URL: asMigrate.href });
  expect([ended.code, ended.stderr]).toEqual([0, '']);
  await asAdmin(url.href, names);
  await other.drop();
  await asAdmin(inject('services').databaseUrl, `drop owned by ${admin}`, ...roles.map((role) => `drop role ${role.replace(prefix, `${prefix}_own`)}`), `drop role ${admin}`);
});

describe('with these roles', () => {
  test('a worker runs sagas that clients and the web start, and syncs', async () => {
    const worker = await startWorker(loadConfig(environmentOf('worker')), silentLog);
    onTestFinished(worker.close);
    const web = await startWeb(loadConfig(environmentOf('web')), silentLog);
    onTestFinished(web.close);
    const client = openClient({ databaseUrl: urlAs('client'), queueStore: { kind: 'postgres', databaseUrl: urlAs('client') } });
    onTestFinished(client.close);
    const statusOf = (sagaId: string) =>
      waitFor(
        async () => {
          const saga = await client.get(sagaId);
          return saga !== null && isAtRest(saga.status) && saga.status;
        },
        { what: `saga ${sagaId} to come to rest` },
      );

    const provisioned = await client.provisionDroplet(droplet, { requestedBy: 'billing' });
    expect(await statusOf(provisioned.sagaId)).toBe('completed');
    const bySql = postgres(urlAs('producer'), { max: 1 });
    onTestFinished(() => bySql.end());
    const [row] = await bySql<{ id: string }[]>`select arcadia.start_saga('provision_droplet', ${bySql.json({ ...droplet, name: 'by-sql' })}) as id`;
    expect(await statusOf(row?.id ?? '')).toBe('completed');
    const answer = await fetch(`${web.url}/v1/sagas/provision_droplet`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...droplet, name: 'by-web' }) });
    expect(answer.status).toBe(202);
    const started: unknown = await answer.json();
    const id = typeof started === 'object' && started !== null && 'sagaId' in started ? String(started.sagaId) : '';
    expect(await statusOf(id)).toBe('completed');
    const [made] = sandbox.state({ name: droplet.name });
    expect(await statusOf((await client.destroyDroplet(made?.id ?? 0)).sagaId)).toBe('completed');

    for (const path of ['/sagas', '/leases', '/leases/approve', '/readyz', '/metrics', '/v1/resources']) expect([path, (await fetch(`${web.url}${path}`)).status]).toEqual([path, 200]);
    expect((await client.cancel(id, 'tester')).kind).toBe('refused');
    const sync = await runCommand(['sync', '--json'], { PATH: process.env['PATH'], ...environmentOf('worker') });
    expect([sync.stderr, sync.code]).toEqual(['', 0]);
  });

  test('a reader sees how each saga is, and nothing of what was asked for', async () => {
    const reader = postgres(urlAs('reader'), { max: 1 });
    onTestFinished(() => reader.end());
    const rows = await reader<{ name: string; status: string }[]>`select id, name, status, error, context, requested_by, started_by, created_at, finished_at from arcadia.sagas where name = 'destroy_droplet'`;
    expect(rows).toMatchObject([{ status: 'completed', started_by: `sql:${prefix}_client` }]);
    for (const table of ['saga_events', 'audit', 'cloud_resources', 'workers']) await reader.unsafe(`select * from arcadia.${table}`);
    // A column that a later version adds is decided about: it is granted, or stands here.
    const hidden = await reader<{ name: string }[]>`select attname as name from pg_attribute where attrelid = 'arcadia.sagas'::regclass and attnum > 0 and not attisdropped
      and not has_column_privilege(attrelid, attname, 'select') order by attname`;
    expect(hidden.map(({ name }) => name)).toEqual(['given_input', 'input', 'input_checked', 'memo', 'sealed_user_data', 'user_data_fingerprint']);
  });

  test.each([
    ['client', 'delete from arcadia.sagas'],
    ['client', 'select * from arcadia.cloud_resources'],
    ['client', 'select * from arcadia.audit'],
    ['web', 'delete from arcadia.sagas'],
    ['web', 'update arcadia.audit set actor = null'],
    ['web', "update arcadia.circuits set cause = ''"],
    ['web', "insert into arcadia.cloud_provisioned default values"],
    ['web', 'update arcadia.cloud_provisioned set resource_id = resource_id'],
    ['web', 'update arcadia.cloud_provisioned set saga_id = saga_id'],
    ['web', 'update arcadia.cloud_provisioned set protected = false'],
    ['web', 'update arcadia.cloud_provisioned set lease_until = now()'],
    ['web', "update arcadia.cloud_orphans set category = 'surplus'"],
    ['web', 'update arcadia.provision_leases set lease_until = now()'],
    ['web', "update arcadia.outcome_subscriptions set target = ''"],
    ['web', 'update arcadia.ready_callbacks set token_hash = null'],
    ['web', 'update arcadia.sagas set created_at = now()'],
    ['client', "update arcadia.sagas set created_at = '2020-01-01'"],
    ['client', "update arcadia.sagas set started_by = 'sql:other'"],
    ['client', "update arcadia.sagas set name = 'destroy_droplet'"],
    ['client', "insert into arcadia.sagas (id, saga8, name, status, steps, input, created_at) values (gen_random_uuid(), '', '', 'pending', '{}', '{}', now())"],
    ['client', 'select arcadia.lease_brake()'],
    ['reader', 'select arcadia.is_protected(1)'],
    ['producer', 'select arcadia.is_protected(1)'],
    ['producer', 'select arcadia.lease_brake()'],
    ['producer', "select arcadia.secret_fields('provision_droplet')"],
    ['producer', "select arcadia.without_secrets('x', '{\"a\": 1}')"],
    ['web', "insert into arcadia.audit (actor, action, database_role) values ('x', 'y', 'z')"],
    ['client', "insert into arcadia.audit (actor, action, database_role) values ('x', 'y', 'z')"],
    ['worker', "insert into arcadia.audit (actor, action, database_role) values ('x', 'y', 'z')"],
    ['worker', "update arcadia.audit set actor = 'x'"],
    ['reader', 'select * from arcadia.cloud_drift'],
    ['worker', 'drop table arcadia.sagas'],
    ['worker', "insert into arcadia.saga_definitions values ('x', '{y}')"],
    ['producer', 'select id from arcadia.sagas'],
    ['producer', 'select * from arcadia.environment'],
    ['producer', "insert into arcadia.audit (actor, action) values ('x', 'y')"],
    ['reader', 'select * from arcadia.sagas'],
    ['reader', 'select input from arcadia.sagas'],
    ['reader', 'select given_input from arcadia.sagas'],
    ['reader', 'select sealed_user_data from arcadia.sagas'],
    ['reader', 'select * from arcadia.cloud_provisioned'],
    ['reader', "select arcadia.start_saga('destroy_droplet', '{}')"],
    ['reader', "update arcadia.sagas set status = 'stuck'"],
  ])('%s may not %s', async (role, statement) => {
    await expect(asAdmin(urlAs(role), statement)).rejects.toThrow(/permission denied|must be owner/);
  });

  test.each([
    'update arcadia.cloud_provisioned set spec = spec, released_at = released_at, lease_approved_at = null, lease_approved_by = null where false',
    'update arcadia.cloud_drift set resolved_at = clock_timestamp(), resolution = null where false',
    'update arcadia.ready_callbacks set answered_at = clock_timestamp(), answer = null, log = null where false',
    'update arcadia.resent_callbacks set answered_at = clock_timestamp(), answer = null, log = null where false',
    'select * from arcadia.lease_brake()',
  ])('web may %s', async (statement) => {
    await expect(asAdmin(urlAs('web'), statement)).resolves.toBeUndefined();
  });

  test('nobody may call a function without a grant, and a producer may call four', async () => {
    const admin = openAdmin(database.directUrl);
    onTestFinished(() => admin.end({ timeout: 5 }));
    const functions = await admin<{ name: string; isPublic: boolean; isForProducers: boolean }[]>`
      select p.proname as name, exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl where acl.grantee = 0) as "isPublic",
        has_function_privilege(${`${prefix}_producer`}, p.oid, 'execute') as "isForProducers"
      from pg_proc p where p.pronamespace = 'arcadia'::regnamespace order by name`;
    expect(functions.filter(({ isPublic }) => isPublic)).toEqual([]);
    expect(functions.filter(({ isForProducers }) => isForProducers).map(({ name }) => name)).toEqual(['renew_lease', 'set_protection', 'start_saga', 'start_saga_with_priority']);
  });

  test("each command of a role's row in the manual runs as that role, and each that needs a database has a row", async () => {
    const worker = await startWorker(loadConfig(environmentOf('worker')), silentLog);
    onTestFinished(worker.close);
    const ran: string[] = [];
    const as = (role: string) => async (...args: string[]) => {
      ran.push(`${role} ${args[0] === 'provision' && args.includes('--dry-run') ? 'provision --dry-run' : (args[0] ?? '')}`);
      const ended = await runCommand([...args, '--json'], { PATH: process.env['PATH'], ...environmentOf(role) });
      expect([args, ended.stdout + ended.stderr]).toEqual([args, expect.not.stringMatching(/permission denied|must be owner/)]);
      return { code: ended.code, json: z.record(z.string(), z.unknown()).catch({}).parse(ended.stdout.startsWith('{') ? JSON.parse(ended.stdout) : {}) };
    };
    const [client, web] = [as('client'), as('web')];
    const idOf = ({ json }: Awaited<ReturnType<typeof client>>) => z.string().parse(json['id'] ?? json['sagaId']);
    const asked = ['--region', droplet.region, '--size', droplet.size, '--image', droplet.image];

    const made = await client('provision', '--name', 'by-command', ...asked, '--ttl', '2h');
    expect(made.code).toBe(0);
    const dropletId = String(sandbox.state({ name: 'by-command' })[0]?.id);
    const foreignId = String(sandbox.addForeignDroplet({ name: 'by-hand' }).id);
    for (const args of [['sagas'], ['saga', idOf(made)], ['protect', dropletId], ['unprotect', dropletId], ['renew', dropletId, '--ttl', '3h'], ['adopt', foreignId], ['destroy', dropletId]]) {
      expect([args, (await client(...args)).code]).toEqual([args, 0]);
    }
    const refused = await client('start', 'provision_droplet', '--input', JSON.stringify({ ...droplet, name: 'never-made', region: 'nowhere' }));
    expect(refused.code).toBe(1);
    expect((await client('rerun', idOf(refused), '--detach')).code).toBe(0);
    await asAdmin(database.directUrl, `update arcadia.sagas set status = 'stuck', wake_at = null where id = '${idOf(made)}'`);
    expect((await client('retry', idOf(made))).code).toBe(0);
    await client('cancel', idOf(made));

    for (const args of [['status'], ['doctor'], ['drift'], ['orphans'], ['leases'], ['outcomes']]) {
      expect([args, (await web(...args)).code]).toEqual([args, 0]);
    }
    expect((await web('provision', '--dry-run', '--name', 'planned', ...asked)).code).toBe(0);
    for (const args of [['drift', 'accept', '1'], ['orphans', '--destroy', '--yes'], ['orphans', 'acknowledge', '1'], ['orphans', 'unacknowledge', '1'], ['leases', '--ended', '--destroy', '--yes'], ['outcomes', 'resume', 'webhook']]) await web(...args);
    expect((await as('worker')('sync')).code).toBe(0);

    const manual = readFileSync(new URL('../../docs/reference/postgres.md', import.meta.url), 'utf8');
    const commandsOf = (role: string) => [...(new RegExp(`^\\| .arcadia_${role}. \\| ([^|]*)`, 'm').exec(manual)?.[1] ?? '').matchAll(/`([a-z -]+)`/g)].map(([, name]) => `${role} ${name}`);
    const documented = ['client', 'web', 'worker'].flatMap(commandsOf);
    // What has no end is started above as it is.
    expect([...new Set(ran)].toSorted()).toEqual(documented.filter((name) => !['web web', 'worker worker'].includes(name)).toSorted());
    const { stdout } = await runCommand(['--help'], { PATH: process.env['PATH'] });
    const all = [...stdout.slice(stdout.indexOf('Commands:')).matchAll(/^ {2}([a-z][a-z-]*)/gm)].map(([, name = '']) => name);
    const ofNoRole = ['complete', 'demo', 'dev', 'hash-password', 'help', 'migrate', 'sandbox', 'smoke'];
    expect(all.filter((name) => !documented.some((one) => one.endsWith(` ${name}`))).toSorted()).toEqual(ofNoRole);
  }, 120_000);
});
