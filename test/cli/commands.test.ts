// The command line, run as whoever types it runs it: a process of its own, with stdout on a pipe.

import { execFile, fork, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { openDatabase } from '../../src/platform/db.ts';
import { createEngineDatabase } from '../support/engine.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand } from '../support/fleet.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/;
const UNKNOWN_ID = '00000000-0000-4000-8000-000000000000';
const ISO = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;

const sagaDocument = z.object({
  id: z.uuid(),
  status: z.string(),
  input: z.record(z.string(), z.unknown()),
  context: z.record(z.string(), z.unknown()),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
});

// One worker serves all tests of the file: the commands are what is tested here.
let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('redis', { activateAfterMs: 300 });
  await fleet.startWorker();
});
afterAll(() => fleet[Symbol.asyncDispose]());

const arcadia = (...args: string[]) => runCommand(args, fleet.environment());
const provisionArgs = (name: string, more: Record<string, string> = {}): string[] => [
  'provision',
  ...Object.entries({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', ...more }).flatMap(([option, value]) => [`--${option}`, value]),
];

/** The one JSON document that stdout must be. */
function documentOf<T>(stdout: string, schema: z.ZodType<T>): T {
  expect(stdout.trimEnd().split('\n')).toHaveLength(1);
  return schema.parse(JSON.parse(stdout));
}

/** The account is full for this droplet alone: tests of one file share the sandbox. */
function refuse(name: string): void {
  const message = 'creating this/these droplet(s) will exceed your droplet limit';
  fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST', name }, effect: { status: 422, body: { id: 'unprocessable_entity', message } } }] });
  onTestFinished(() => fleet.sandbox.resetFaults());
}

describe('migrate', () => {
  test('brings an empty database up to date, and does nothing the second time', async () => {
    await using database = await createTestDatabase();
    const environment = fleet.environment({ DATABASE_URL: database.directUrl, REDIS_URL: undefined, DIGITALOCEAN_TOKEN: undefined });
    const first = await runCommand(['migrate'], environment);
    expect([first.code, first.stderr]).toEqual([0, '']);
    expect(first.stdout).toMatch(/^applied: .*sagas.* \(environment test\)$/m);
    const second = await runCommand(['migrate', '--json'], environment);
    expect(second.code).toBe(0);
    expect(documentOf(second.stdout, z.unknown())).toEqual({ environment: 'test', applied: [] });
  });

  test('names the sagas that SQL can start no more, as this app does not have them', async () => {
    await using database = await createEngineDatabase();
    const db = openDatabase(database.url, { max: 1 });
    onTestFinished(() => db.close());
    await db.sql`insert into arcadia.saga_definitions (name, steps) values ('open_site', '{reserve}')`;
    const ended = await runCommand(['migrate'], fleet.environment({ DATABASE_URL: database.directUrl, REDIS_URL: undefined }));
    expect([ended.code, ended.stderr]).toEqual([0, expect.stringContaining('SQL can no longer start open_site: this app does not have it, and a database has one app.')]);
  });

  test('run by two processes at once, both are content', async () => {
    await using database = await createTestDatabase();
    const environment = fleet.environment({ DATABASE_URL: database.directUrl, REDIS_URL: undefined });
    const both = await Promise.all([runCommand(['migrate'], environment), runCommand(['migrate'], environment)]);
    expect(both.map((ended) => [ended.code, ended.stderr])).toEqual([[0, ''], [0, '']]);
  });

  test("refuses another environment's database with exit code 78", async () => {
    const ended = await runCommand(['migrate'], fleet.environment({ ARCADIA_ENV: 'staging' }));
    expect([ended.code, ended.stdout]).toEqual([78, '']);
    expect(ended.stderr).toContain('ARCADIA_ENV is staging');
  });
});

test.each([
  ['provision', '--name', 'elsewhere', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64'],
  ['destroy', '1'],
  ['cancel', randomUUID()],
  ['retry', randomUUID()],
  ['sagas'],
  ['saga', randomUUID()],
])("%s refuses another environment's database with exit code 78, and asks nothing of it", async (...args) => {
  const ended = await runCommand(args, fleet.environment({ ARCADIA_ENV: 'staging' }));
  expect([ended.code, ended.stdout]).toEqual([78, '']);
  expect(ended.stderr).toContain('ARCADIA_ENV is staging, but this database belongs to the environment test');
  expect(await fleet.client.list({ text: 'elsewhere' })).toEqual([]);
});

test('dev with a token, and nowhere to keep its data: exit code 78, and what to do', async () => {
  const ended = await runCommand(['dev'], fleet.environment({ DATABASE_URL: undefined }));
  expect([ended.code, ended.stdout]).toEqual([78, '']);
  expect(ended.stderr).toContain('unset DIGITALOCEAN_TOKEN to use the sandbox, or set --data-dir or DATABASE_URL to keep the data');
});

describe('provision', () => {
  test('on a pipe: a line for each event, the result last, exit code 0', async () => {
    const ended = await arcadia(...provisionArgs('piped'));
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const lines = ended.stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(new RegExp(`^provisioning piped \\(saga ${UUID.source}\\)$`));
    for (const line of lines.slice(1, -1)) expect(line).toMatch(new RegExp(`^${ISO} \\S`));
    expect(ended.stdout).toMatch(/create_droplet completed: created droplet \d+/);
    expect(ended.stdout).toMatch(/wait_droplet_active completed/);
    expect(ended.stdout).toMatch(/register_droplet completed/);
    expect(lines.at(-1)).toMatch(/^droplet \d+ is ready at 198\.18\.\d+\.\d+$/);
    // Neither colours nor cursor movements.
    expect(ended.stdout).not.toContain('\u001b');
  });

  test('with --json: one document and nothing else, exit code 0', async () => {
    const ended = await arcadia(...provisionArgs('as-json', { tag: 'web' }), '--json');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const saga = documentOf(ended.stdout, sagaDocument);
    expect(saga).toMatchObject({ status: 'completed', error: null, input: { name: 'as-json', tags: ['web'] } });
    expect(saga.context['public_ipv4']).toMatch(/^198\.18\./);
  });

  test('rolled back: exit code 1, and the error says what DigitalOcean said, as text and as JSON', async () => {
    refuse('refused*');
    const [asText, asJson] = await Promise.all([arcadia(...provisionArgs('refused-1')), arcadia(...provisionArgs('refused-2'), '--json')]);
    expect([asText.code, asJson.code]).toEqual([1, 1]);
    expect(asText.stdout.trimEnd().split('\n').at(-1)).toMatch(/^rolled back: DigitalOcean: .*exceed your droplet limit/);
    const saga = documentOf(asJson.stdout, sagaDocument);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'digitalocean_rejected' } });
    expect(saga.error?.message).toContain('exceed your droplet limit');
  });

  test('with --detach: the id of the saga, at once; the saga goes on', async () => {
    const ended = await arcadia(...provisionArgs('detached'), '--detach');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    expect(ended.stdout).toMatch(new RegExp(`^${UUID.source}\n$`));
    expect((await fleet.atRest(ended.stdout.trim())).status).toBe('completed');
  });

  test('the same idempotency key gives the same saga; another input with it is refused', async () => {
    const args = [...provisionArgs('keyed', { 'idempotency-key': 'order-17' }), '--detach', '--json'];
    const [first, second] = [await arcadia(...args), await arcadia(...args)];
    const id = z.object({ sagaId: z.uuid() });
    expect(documentOf(second.stdout, id)).toEqual(documentOf(first.stdout, id));
    const other = await arcadia(...provisionArgs('other', { 'idempotency-key': 'order-17' }), '--detach');
    expect([other.code, other.stdout]).toEqual([1, '']);
    expect(other.stderr).toContain('order-17');
  });

  test('without a queue to be reached, the saga is accepted all the same', async () => {
    const ended = await runCommand([...provisionArgs('no-redis'), '--detach'], fleet.environment({ REDIS_URL: 'redis://127.0.0.1:9' }));
    expect(ended.code).toBe(0);
    expect((await fleet.atRest(ended.stdout.trim())).status).toBe('completed');
  });

  test.each([
    ['tcp:22', { tcp: 22, within_s: 90 }],
    ['http:8080/healthz?full', { http: { port: 8080, path: '/healthz?full' }, within_s: 90 }],
    ['http:80', { http: { port: 80 }, within_s: 90 }],
  ])('--ready %s, and the limits, stand in the input', async (ready, expected) => {
    const ended = await arcadia(...provisionArgs('ready-1', { ready, 'ready-within': '1m30s', wait: '1h' }), '--detach');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const saga = await fleet.client.get(ended.stdout.trim());
    expect(saga?.input).toMatchObject({ ready: expected, wait_s: 3_600 });
    await fleet.client.cancel(ended.stdout.trim(), 'test');
  });

  const wrong: [string, string[], RegExp][] = [
    ['a host name with blanks', provisionArgs('not a host'), /name: expected a host name/],
    ['a region that is no slug', provisionArgs('x', { region: 'fra 1' }), /region: expected the slug of a region/],
    ['a tag of ours', provisionArgs('x', { tag: 'arcadia-saga-12345678' }), /tags\.0: expected a tag/],
    ['a VPC that is no UUID', provisionArgs('x', { 'vpc-uuid': '1' }), /vpc_uuid: expected the UUID/],
    ['a missing option', ['provision', '--name', 'x'], /--region/],
    ['a way to be ready that is none', provisionArgs('x', { ready: 'ssh' }), /--ready: expected tcp:<port>, http:<port>\/<path> or callback; found "ssh"/],
    ['a port that is none', provisionArgs('x', { ready: 'tcp:99999' }), /ready\.tcp: expected a port: 1 to 65535/],
    ['a limit without --ready', provisionArgs('x', { 'ready-within': '10m' }), /--ready-within: expected --ready too/],
    ['a limit beyond a day', provisionArgs('x', { wait: '2d' }), /wait_s: expected at most 86400 seconds/],
    ['an unknown option', [...provisionArgs('x'), '--colour', 'red'], /--colour/],
    ['a file that is not there', provisionArgs('x', { 'user-data-file': '/nowhere/at-all' }), /--user-data-file: cannot read \/nowhere\/at-all/],
    ['an unknown command', ['provision-all'], /provision-all/],
  ];
  test.each(wrong)('%s: exit code 2, and the field is named', async (_what, args, message) => {
    const ended = await arcadia(...args);
    expect([ended.code, ended.stdout]).toEqual([2, '']);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr).not.toMatch(/^\s+at /m);
  });

  test('user data reaches the droplet, and is in no output of any command', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const file = join(folder, 'user-data');
    const canary = 'canary-5f1d2c';
    await writeFile(file, `#!/bin/sh\necho ${canary}\n`);
    const echo = { id: 'unprocessable_entity', message: `cannot boot with echo ${canary}` };
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST', name: 'refused-*' }, effect: { status: 422, body: echo } }] });
    onTestFinished(() => fleet.sandbox.resetFaults());
    const secretive = (name: string, ...more: string[]) => arcadia(...provisionArgs(name, { 'user-data-file': file }), ...more);
    const started = await secretive('secretive', '--detach');
    const sagaId = started.stdout.trim();
    expect((await fleet.atRest(sagaId)).status).toBe('completed');
    expect(fleet.sandbox.state({ name: 'secretive' })[0]?.userDataBytes).toBe(29);
    const refused = await secretive('refused-1');
    expect([refused.code, refused.stdout]).toEqual([1, expect.stringContaining('rolled back')]);
    const told = await Promise.all([
      arcadia('saga', sagaId, '--json'),
      arcadia('saga', sagaId),
      arcadia('sagas'),
      arcadia('sagas', '--json'),
      secretive('refused-2', '--json'),
      secretive('no good'),
    ]);
    for (const { stdout, stderr } of [started, refused, ...told]) expect(stdout + stderr).not.toContain(canary);
    expect(told[0].stdout).toContain('[sealed, 29 bytes]');
  });
});

const limited = (...args: string[]) => runCommand(args, fleet.environment({ LEASE_MAX_S: '3600' }));
const refusal = (field: string, found: number) => `lease.${field}: expected at most 3600 seconds (LEASE_MAX_S), found ${found}`;
const sagasOf = async (name: string) => fleet.client.list({ text: name });

describe('a lease beyond LEASE_MAX_S', () => {
  test.each([
    { what: 'provision --ttl', args: ['--ttl', '2h'], message: refusal('ttl_s', 7_200) },
    { what: 'provision --max-ttl', args: ['--ttl', '30m', '--max-ttl', '1d'], message: refusal('max_s', 86_400) },
  ])('is refused by $what, and nothing is started', async ({ args, message }) => {
    const ended = await limited(...provisionArgs('too-long'), ...args);
    expect([ended.code, ended.stdout, ended.stderr]).toEqual([1, '', expect.stringContaining(message)]);
    expect(await sagasOf('too-long')).toEqual([]);
  });

  test('is refused by start, and by rerun', async () => {
    const input = { name: 'too-long-too', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', lease: { ttl_s: 7_200 } };
    const started = await limited('start', 'provision_droplet', '--input', JSON.stringify(input));
    expect([started.code, started.stderr]).toEqual([1, expect.stringContaining(refusal('ttl_s', 7_200))]);
    expect(await sagasOf('too-long-too')).toEqual([]);
    refuse('too-long-too');
    const before = await arcadia('start', 'provision_droplet', '--input', JSON.stringify(input), '--json');
    const { id } = documentOf(before.stdout, sagaDocument);
    const again = await limited('rerun', id);
    expect([again.code, again.stderr]).toEqual([1, expect.stringContaining(refusal('ttl_s', 7_200))]);
    expect(await sagasOf('too-long-too')).toHaveLength(1);
  });

  test.each([
    { what: 'adopt --ttl', args: ['--ttl', '2h'], message: refusal('ttl_s', 7_200) },
    { what: 'adopt --max-ttl', args: ['--ttl', '30m', '--max-ttl', '1d'], message: refusal('max_s', 86_400) },
  ])('is refused by $what, and nothing is started', async ({ args, message }) => {
    const { id } = fleet.sandbox.addForeignDroplet({ name: 'too-long-to-adopt' });
    const ended = await limited('adopt', String(id), ...args);
    expect([ended.code, ended.stdout, ended.stderr]).toEqual([1, '', expect.stringContaining(message)]);
    expect(await fleet.client.list({ dropletId: id })).toEqual([]);
  });

  test('and one within it is given', async () => {
    expect(await limited(...provisionArgs('long-enough'), '--ttl', '1h')).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('adopt', () => {
  test('takes a droplet that was made elsewhere under management, and says so', async () => {
    const { id } = fleet.sandbox.addForeignDroplet({ name: 'by-hand' });
    const ended = await arcadia('adopt', String(id), '--protected', '--json');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    expect(documentOf(ended.stdout, sagaDocument)).toMatchObject({ status: 'completed', context: { droplet_id: id } });
    expect(fleet.sandbox.state({ name: 'by-hand' })[0]?.tags).toContain('managed-by-arcadia-cloud');
    expect(await fleet.db.sql`select p.protected from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id where r.provider_id = ${String(id)} and p.released_at is null`).toEqual([{ protected: true }]);
  });

  test('gives it a lease only if it is told so, and the lease is renewed as any', async () => {
    const [leased, kept] = ['adopt-leased', 'adopt-kept'].map((name) => String(fleet.sandbox.addForeignDroplet({ name }).id));
    expect(await arcadia('adopt', leased ?? '', '--ttl', '1h', '--max-ttl', '2h')).toMatchObject({ code: 0, stderr: '' });
    expect(await arcadia('adopt', kept ?? '')).toMatchObject({ code: 0, stderr: '' });
    expect((await arcadia('leases')).stdout).toMatch(new RegExp(`^${leased} +adopt-leased +59 min .*left `, 'm'));
    expect((await arcadia('leases', '--without')).stdout).toMatch(new RegExp(`^${kept} +adopt-kept +no lease `, 'm'));
    expect(await arcadia('renew', leased ?? '', '--ttl', '7d')).toMatchObject({ code: 0, stdout: expect.stringMatching(/, in 1 h 59 min/) });
    expect(await arcadia('renew', kept ?? '', '--ttl', '1h')).toMatchObject({ code: 1, stderr: expect.stringContaining('has no lease') });
  });

  test('with --max-ttl alone is wrong usage', async () => {
    expect(await arcadia('adopt', '4711', '--max-ttl', '2h')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--max-ttl: expected --ttl too') });
  });
});

describe('destroy', () => {
  test('destroys a droplet that was provisioned, and says so', async () => {
    const made = documentOf((await arcadia(...provisionArgs('short-lived'), '--json')).stdout, sagaDocument);
    const dropletId = String(made.context['droplet_id']);
    const ended = await arcadia('destroy', dropletId, '--reason', 'test');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    expect(ended.stdout).toContain(`destroying droplet ${dropletId} (saga `);
    expect(ended.stdout.trimEnd().split('\n').at(-1)).toBe(`droplet ${dropletId} is destroyed`);
    expect(fleet.sandbox.state({ name: 'short-lived', alive: true })).toEqual([]);
  });

  test("leaves somebody else's droplet alone: exit code 1, and the reason", async () => {
    const { id } = fleet.sandbox.addForeignDroplet({ name: 'theirs' });
    const ended = await arcadia('destroy', String(id), '--json');
    expect(ended.code).toBe(1);
    expect(documentOf(ended.stdout, sagaDocument)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours' } });
    expect(fleet.sandbox.state({ name: 'theirs' })[0]?.alive).toBe(true);
  });

  test('of an id that never was destroys nothing, and says so: exit code 1', async () => {
    const ended = await arcadia('destroy', '99');
    expect(ended.code).toBe(1);
    expect(ended.stdout.trimEnd().split('\n').slice(-2).join('\n')).toMatch(/^nothing destroyed: there is no droplet 99, .*\nNothing was destroyed: droplet 99 is unknown\.$/);
  });

  test.each(['web-1', '0', '-5', '1.5', '12345678901234567890'])('of %s is wrong usage', async (dropletId) => {
    const ended = await arcadia('destroy', '--', dropletId);
    expect([ended.code, ended.stdout]).toEqual([2, '']);
    expect(ended.stderr).toMatch(/droplet/);
  });
});

describe('sagas and saga', () => {
  test('list sagas newest first, filtered and limited', async () => {
    refuse('filtered-out');
    const good = (await arcadia(...provisionArgs('filtered-in'), '--json')).stdout;
    const bad = (await arcadia(...provisionArgs('filtered-out'), '--json')).stdout;
    const [goodId, badId] = [documentOf(good, sagaDocument).id, documentOf(bad, sagaDocument).id];
    const sagas = z.array(sagaDocument);
    const [all, completed, compensated, one, table] = await Promise.all([
      arcadia('sagas', '--json'),
      arcadia('sagas', '--json', '--status', 'completed'),
      arcadia('sagas', '--json', '--status', 'compensated', '--name', 'provision_droplet'),
      arcadia('sagas', '--json', '--limit', '1'),
      arcadia('sagas', '--limit', '2'),
    ]);
    expect(documentOf(all.stdout, sagas).slice(0, 2).map((saga) => saga.id)).toEqual([badId, goodId]);
    expect(documentOf(completed.stdout, sagas)[0]?.id).toBe(goodId);
    expect(documentOf(compensated.stdout, sagas).map((saga) => saga.status)).toContain('compensated');
    expect(documentOf(compensated.stdout, sagas).map((saga) => saga.id)).not.toContain(goodId);
    expect(documentOf(one.stdout, sagas).map((saga) => saga.id)).toEqual([badId]);
    const lines = table.stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(new RegExp(`^${badId}  provision_droplet  rolled back .*filtered-out`));
  });

  test('show one saga with its timeline', async () => {
    const made = documentOf((await arcadia(...provisionArgs('shown'), '--json')).stdout, sagaDocument);
    // By the first 8 characters of its id, in whatever case.
    const shown = await arcadia('saga', made.id.slice(0, 8).toUpperCase());
    expect([shown.code, shown.stderr]).toEqual([0, '']);
    expect(shown.stdout).toMatch(new RegExp(`^saga +${made.id} \\(provision_droplet\\)$`, 'm'));
    expect(shown.stdout).toMatch(/^status +completed, revision 5$/m);
    expect(shown.stdout).toMatch(/^ {2}0 {2}\+.* saga created/m);
    expect(shown.stdout).toMatch(/^ {2}5 {2}\+.* register_droplet completed {2}\(.+:\d+\)$/m);
    const asJson = documentOf((await arcadia('saga', made.id, '--json')).stdout, z.object({ id: z.uuid(), events: z.array(z.object({ seq: z.int(), kind: z.string() })) }));
    expect(asJson.events.map((event) => event.seq)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('a saga that is not there: exit code 1', async () => {
    const ended = await arcadia('saga', UNKNOWN_ID, '--json');
    expect([ended.code, ended.stdout, ended.stderr]).toEqual([1, '', `saga ${UNKNOWN_ID} not found\n`]);
    const short = await arcadia('cancel', UNKNOWN_ID.slice(0, 8));
    expect([short.code, short.stdout]).toEqual([1, '']);
    expect(short.stderr).toContain(`saga ${UNKNOWN_ID.slice(0, 8)} not found`);
  });

  const wrong: [string[], string][] = [
    [['saga', 'web-1'], 'expected the id of a saga'],
    [['saga'], 'id'],
    [['sagas', '--status', 'done'], '--status: expected one of pending, running'],
    [['sagas', '--limit', '0'], 'from 1 to 1000'],
    [['sagas', '--limit', 'many'], 'from 1 to 1000'],
    [['sagas', 'extra'], 'argument'],
  ];
  test.each(wrong)('%j is wrong usage', async (args, message) => {
    const ended = await arcadia(...args);
    expect([ended.code, ended.stdout]).toEqual([2, '']);
    expect(ended.stderr).toContain(message);
  });
});

describe('every command', () => {
  const commands = ['migrate', 'worker', 'provision', 'destroy', 'sagas', 'saga', 'sandbox', 'dev', 'demo'];

  test('is in the help, and has a help of its own', async () => {
    const nothing = { PATH: process.env['PATH'], HOME: process.env['HOME'] };
    const help = await runCommand(['--help'], nothing);
    expect([help.code, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toContain('78 invalid configuration');
    for (const command of commands) {
      expect(help.stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
      const own = await runCommand([command, '--help'], nothing);
      expect([own.code, own.stderr]).toEqual([0, '']);
      expect(own.stdout).toContain(`Usage: arcadia ${command}`);
    }
  });

  const needy: string[][] = [['migrate'], ['worker'], provisionArgs('x'), ['destroy', '1'], ['sagas'], ['saga', UNKNOWN_ID]];
  test.each(needy)('%s without DATABASE_URL: exit code 78, and the variable is named', async (...args) => {
    const ended = await runCommand(args, fleet.environment({ DATABASE_URL: undefined }));
    expect([ended.code, ended.stdout]).toEqual([78, '']);
    expect(ended.stderr).toContain('DATABASE_URL: not set');
  });

  test('tells of all problems of the environment at once', async () => {
    const ended = await runCommand(['sagas'], fleet.environment({ DATABASE_URL: 'mysql://canary@db', WORKER_CONCURRENCY: 'many', LOG_LEVEL: 'loud' }));
    expect(ended.code).toBe(78);
    for (const variable of ['DATABASE_URL', 'WORKER_CONCURRENCY', 'LOG_LEVEL']) expect(ended.stderr).toContain(`${variable}: `);
    expect(ended.stderr).not.toContain('canary');
  });

  test('says when Postgres cannot be reached, without the password', async () => {
    const ended = await runCommand(['sagas'], fleet.environment({ DATABASE_URL: 'postgres://arcadia:canary@127.0.0.1:9/arcadia' }));
    expect([ended.code, ended.stdout]).toEqual([1, '']);
    expect(ended.stderr).toContain('ECONNREFUSED');
    expect(ended.stderr).not.toContain('canary');
  });
});

describe('worker', () => {
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
  /** Started as by a shell: without a channel. */
  const start = async (nodeOptions: string[] = []) => {
    const child = spawn(process.execPath, [...nodeOptions, main, 'worker'], { env: fleet.environment(), stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    await waitFor(() => output.includes('worker ready'), { what: 'the worker', deadlineMs: 40_000 });
    const { stdout } = await promisify(execFile)('ps', ['-o', 'args=', '-p', String(child.pid)]);
    return { child, args: stdout.trim() };
  };

  test('limits its heap when nobody else has, and stays the same process', async () => {
    const [ofItself, told] = await Promise.all([start(), start(['--max-semi-space-size=32'])]);
    // On a small machine V8 plans with less by itself.
    const isRoomy = getHeapStatistics().heap_size_limit > 1.25 * 2 ** 30;
    expect(ofItself.args.includes(`--max-semi-space-size=16 --max-old-space-size=1024 ${main}`)).toBe(isRoomy);
    expect(told.args).toContain(`--max-semi-space-size=32 ${main}`);
    const exited = once(ofItself.child, 'exit');
    ofItself.child.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  });
});

describe('sandbox', () => {
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

  test('serves the API on its own until it is told to stop', async () => {
    const child = fork(main, ['sandbox', '--port', '0', '--token', 'secret', '--faults', '{"dropletLimit": 0}'], {
      env: { PATH: process.env['PATH'] },
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      execArgv: [],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const url = await waitFor(() => /sandbox ready at (http:\/\/127\.0\.0\.1:\d+)\n/.exec(output)?.[1], { what: 'the sandbox' });
    const account = (token: string) => fetch(`${url}/v2/account`, { headers: { authorization: `Bearer ${token}` } });
    expect([(await account('secret')).status, (await account('other')).status]).toEqual([200, 401]);
    const body = JSON.stringify({ name: 'x', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
    const created = await fetch(`${url}/v2/droplets`, { method: 'POST', headers: { authorization: 'Bearer secret' }, body });
    expect(created.status).toBe(422);
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  });

  const wrong: [string[], string][] = [
    [['--port', '70000'], 'from 0 to 65535'],
    [['--port', '0', '--faults', '{'], 'JSON'],
    [['--port', '0', '--faults', '{"slowness": 1}'], 'slowness'],
  ];
  test.each(wrong)('with %j is wrong usage', async (args, message) => {
    const ended = await runCommand(['sandbox', ...args], { PATH: process.env['PATH'] });
    expect([ended.code, ended.stdout]).toEqual([2, '']);
    expect(ended.stderr).toContain(message);
  });
});
