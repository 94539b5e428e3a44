// What commands print reaches whoever reads it, however slowly; and a reader that goes away is no error.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import stringWidth from 'string-width';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, web as droplet } from '../support/fleet.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Typed } from '../support/terminal.ts';
import { arcadia, plain, runShell, startOnTerminal as startOnTerminalOf, startShell } from '../support/terminal.ts';

const SAGAS = 1_000;

let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('postgres');
  await writeSagas(fleet.db, { count: SAGAS + 10, status: 'completed', daysAgo: 1 });
});
afterAll(() => fleet[Symbol.asyncDispose]());

const shell = (line: string, environment = fleet.environment()) => runShell(line, environment);
const startOnTerminal = (command: string) => startOnTerminalOf(fleet.environment(), command);

describe('a slow reader gets', () => {
  test('all of the data', async () => {
    const { stdout, stderr } = await shell(`${arcadia} sagas --json --limit ${SAGAS} | (sleep 1; cat)`);
    expect(stderr).toBe('');
    expect(stdout.length).toBeGreaterThan(200_000);
    expect(JSON.parse(stdout)).toHaveLength(SAGAS);
  });

  test('all of a table', async () => {
    const { stdout } = await shell(`${arcadia} sagas --limit ${SAGAS} | (sleep 1; cat)`);
    expect(stdout.trimEnd().split('\n')).toHaveLength(SAGAS + 1);
  });

  test.each(['--help', 'provision --help', 'complete zsh'])('all of %s, behind what is in the pipe already', async (args) => {
    const [whole, late] = await Promise.all([shell(`${arcadia} ${args}`), shell(`{ head -c 65536 /dev/zero | tr '\\0' ' '; ${arcadia} ${args}; } | (sleep 1; cat)`)]);
    expect(whole.stdout).not.toBe('');
    expect(late.stdout.trimStart()).toBe(whole.stdout);
  });

  test.each([
    ['sagas', { DATABASE_URL: undefined }, 'DATABASE_URL: not set'],
    ['saga 1', {}, 'expected the id of a saga'],
    ['sagas', { DATABASE_URL: 'postgres://arcadia@127.0.0.1:9/arcadia' }, 'ECONNREFUSED'],
  ])('the error of %s', async (args, changes, message) => {
    const { stdout } = await shell(`{ head -c 65536 /dev/zero | tr '\\0' ' ' >&2; ${arcadia} ${args}; } 2>&1 | (sleep 1; cat)`, fleet.environment(changes));
    expect(stdout).toContain(message);
  });

  test('the last line of a worker that was stopped', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const go = join(folder, 'go');
    const worker = startShell(`${fullPipe} | (until [ -e '${go}' ]; do sleep 0.05; done; cat)`, fleet.environment());
    await stopAtWork(worker);
    // So long the reader stands still.
    await delay(1_500);
    expect(worker.output()).toBe('');
    await writeFile(go, '');
    expect(await worker.ended).toBe(0);
    const lines = worker.output().trim().split('\n').map((line): unknown => JSON.parse(line));
    expect(lines.at(0)).toMatchObject({ msg: 'worker ready' });
    expect(lines.at(-1)).toMatchObject({ msg: 'worker stopped' });
  });
});

// The pipe is full before the worker writes its first line.
const fullPipe = `sh -c 'echo $$ >&2; head -c 65536 /dev/zero | tr "\\0" "\\n"; exec ${arcadia.replaceAll("'", '')} worker'`;

/** Lets a worker whose pid is the first thing on stderr do something, then tells it to stop; resolves with its pid. */
async function stopAtWork(worker: Typed): Promise<number> {
  const { sagaId } = await fleet.client.provisionDroplet(droplet);
  await fleet.atRest(sagaId);
  const pid = Number(worker.errors().split('\n', 1)[0]);
  process.kill(pid, 'SIGTERM');
  return pid;
}

test('a worker whose reader stands still for good ends at the second signal', async () => {
  const worker = startShell(`{ ${fullPipe}; echo "ended: $?" >&2; } | sleep 600`, fleet.environment());
  const pid = await stopAtWork(worker);
  await delay(1_500);
  expect(worker.errors()).not.toContain('ended');
  process.kill(pid, 'SIGTERM');
  await waitFor(() => worker.errors().includes('ended: 143'), { what: 'the worker to end', deadlineMs: 2_000 });
});

test('a worker whose reader went away goes on, and ends without a word', async () => {
  const worker = startShell(`{ sh -c 'echo $$ >&2; exec ${arcadia.replaceAll("'", '')} worker'; echo "ended: $?" >&2; } | true`, fleet.environment());
  await stopAtWork(worker);
  await worker.ended;
  expect(worker.errors()).toMatch(/^\d+\nended: 0\n$/);
});

describe('a reader that has seen enough', () => {
  test.each(['sagas --json --limit 1000', 'sagas --limit 1000'])('ends %s as it ends other programs, without a word', async (args) => {
    const { stdout, stderr } = await shell(`{ ${arcadia} ${args}; echo "ended: $?" >&2; } | head -c 10`);
    expect(stdout).toHaveLength(10);
    expect(stderr).toBe('ended: 141\n');
  });

  test('ends provision, whose saga goes on', async () => {
    const { stdout, stderr } = await shell(`{ ${arcadia} provision --name headed --region fra1 --size s-1vcpu-1gb --image debian-12-x64; echo "ended: $?" >&2; } | head -n 1`);
    expect(stdout).toMatch(/^provisioning headed \(saga .*\)\n$/);
    expect(stderr).toBe('ended: 141\n');
  });

  test('on stderr is missed by nobody', async () => {
    expect(await shell(`{ ${arcadia} sagas --colour 3>&1 2>&1 >&3 | true; } 2>&1`)).toMatchObject({ code: 0, stdout: '', stderr: '' });
  });

  test.each(['>&-', '2>&-', '>&- 2>&-', '<&-'])('or none from the start (%s) is no error', async (redirection) => {
    const { code, stderr } = await shell(`${arcadia} sagas --limit 1 ${redirection}`);
    expect([code, stderr]).toEqual([0, '']);
  });
});

test.skipIf(process.platform !== 'linux')('output that cannot be written is an error', async () => {
  expect(await shell(`${arcadia} sagas --limit 1000 > /dev/full`)).toEqual({ code: 1, stdout: '', stderr: 'arcadia: the output cannot be written: ENOSPC: no space left on device, write\n' });
});

const sagaIdIn = (output: string) => /\(saga ([0-9a-f-]{36})\)/.exec(output)?.[1];

const goesOn = (sagaId: string) => `\nStopped watching. Saga ${sagaId} continues.\n  Follow it again:         arcadia saga ${sagaId} --follow\n  Look at it:              arcadia saga ${sagaId}\n  Cancel and roll it back: arcadia cancel ${sagaId}\n`;

const idsIn = (text: string) => text.match(/[0-9a-f]{8}-[0-9a-f-]{27}/g);

describe('on a terminal', () => {
  beforeAll(async () => {
    const name = '東京'.repeat(20);
    await fleet.db.sql`
      with resource as (
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug) values ('digitalocean', '9001', 'droplet', ${name}, 'fra1', 'active', 's-1vcpu-1gb') returning id
      ), saga as (select id from arcadia.sagas limit 1), drifted as (
        insert into arcadia.cloud_drift (resource_id, field, desired, actual) select id, 'size', ${'s-4vcpu-8gb,'.repeat(9)}, 's-1vcpu-1gb' from resource
      )
      insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync, saga_id) select resource.id, 'unknown', ${'a long reason '.repeat(9)}, now(), 1, 1, saga.id from resource, saga`;
    await fleet.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null, finished_at = null, error = ${JSON.stringify({ code: 'x', message: 'why '.repeat(90), step: 'create_droplet', retryable: false })}::text::jsonb, input = input || jsonb_build_object('name', ${name}::text)
      where id in (select id from arcadia.sagas where status = 'completed' order by created_at desc limit 3)`;
  });

  test.each([
    ['sagas --limit 5', 80],
    ['sagas --status stuck', 80],
    ['drift', 80],
    ['orphans', 80],
    ['leases', 80],
    ['sagas --limit 5', 120],
  ])('%s wraps no row of %i columns, and cuts no id; in a pipe nothing is cut', async (command, columns) => {
    const terminal = startOnTerminalOf(fleet.environment(), command, { columns });
    expect(await terminal.ended).toBe(0);
    const lines = plain(terminal.output()).trimEnd().split('\n');
    for (const line of lines) expect(stringWidth(line)).toBeLessThanOrEqual(columns);
    const piped = await shell(`${arcadia} ${command}`);
    expect(idsIn(lines.join('\n'))).toEqual(idsIn(piped.stdout));
    expect(piped.stdout).not.toContain('…');
    const asWide = await shell(`COLUMNS=40 ${arcadia} ${command}`);
    expect(asWide.stdout).toBe(piped.stdout);
  });
});

describe('Ctrl-C in a terminal', () => {
  const droplet1 = '--name watched --region fra1 --size s-1vcpu-1gb --image debian-12-x64';
  const input = `'${JSON.stringify({ ...droplet, name: 'watched-2' })}'`;
  test.each([
    { command: `provision ${droplet1}`, shows: 'create_droplet' },
    { command: `provision ${droplet1} --json`, shows: null },
    { command: 'destroy 4712', shows: 'destroy_droplet' },
    { command: 'adopt 4713', shows: 'tag_droplet' },
    { command: `start provision_droplet --input ${input}`, shows: 'create_droplet' },
  ])('while $command follows its saga says that it goes on, and what to do; exit code 130', async ({ command, shows }) => {
    const before = new Set((await fleet.client.list({ status: 'pending', limit: 1_000 })).map(({ id }) => id));
    const terminal = startOnTerminal(command);
    const sagaId = await waitFor(async () => (await fleet.client.list({ status: 'pending', limit: 1_000 })).find(({ id }) => !before.has(id))?.id, { what: 'the saga' });
    if (shows === null) await delay(1_000);
    else await waitFor(() => terminal.output().includes(shows) && sagaIdIn(terminal.output()) === sagaId, { what: 'the display' });
    terminal.type('\u0003');
    expect(await terminal.ended).toBe(130);
    expect(plain(terminal.output())).toContain(goesOn(sagaId));
    expect(plain(terminal.output())).not.toMatch(/^\s+at /m);
    // The cursor is shown again.
    expect(terminal.output().lastIndexOf('\u001b[?25h')).toBeGreaterThanOrEqual(terminal.output().lastIndexOf('\u001b[?25l'));
    expect(await fleet.client.get(sagaId)).toMatchObject({ status: 'pending' });
  });

  test('while saga --follow follows, too; the command that it names follows again', async () => {
    const { sagaId } = await fleet.client.provisionDroplet(droplet);
    const terminal = startOnTerminal(`saga ${sagaId} --follow`);
    await waitFor(() => terminal.output().includes('wait_droplet_active'), { what: 'the display' });
    terminal.type('\u0003');
    expect(await terminal.ended).toBe(130);
    expect(plain(terminal.output())).toContain(goesOn(sagaId));
    const [, named = ''] = /Follow it again: +arcadia (.*)\r?\n/.exec(terminal.output()) ?? [];
    const again = startOnTerminal(named);
    await waitFor(() => again.output().includes('wait_droplet_active'), { what: 'the display again' });
    again.type('\u0003');
    expect(await again.ended).toBe(130);
  });

  test('at the question of orphans --destroy destroys nothing, without a word', async () => {
    await fleet.db.sql`
      with resource as (
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', '4711', 'droplet', 'left-over', 'active') returning id
      )
      insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync) select id, 'surplus', 'test', now(), 1, 1 from resource`;
    const terminal = startOnTerminal('orphans --destroy');
    await waitFor(() => terminal.output().includes('to confirm'), { what: 'the question' });
    terminal.type('\u0003');
    expect(await terminal.ended).toBe(130);
    expect(terminal.output()).not.toContain('arcadia:');
    expect(await fleet.db.sql`select 1 from arcadia.cloud_orphans where approved_at is not null`).toEqual([]);
  });

  test('stops a worker, which says so on the terminal', async () => {
    const terminal = startOnTerminal('worker');
    await waitFor(() => terminal.output().includes('worker ready'), { what: 'the worker', deadlineMs: 20_000 });
    terminal.type('\u0003');
    expect(await terminal.ended).toBe(0);
    expect(terminal.output()).toContain('worker stopped');
  });
});

test.each(['SIGINT', 'SIGTERM'] as const)('%s to a command that follows on a pipe says the same on stderr, and nothing more on stdout', async (signal) => {
  const { sagaId } = await fleet.client.provisionDroplet(droplet);
  const command = startShell(`exec ${arcadia} saga ${sagaId} --follow --json`, fleet.environment());
  await waitFor(() => command.output().includes('saga_created'), { what: 'the first event' });
  process.kill(command.pid, signal);
  expect(await command.ended).toBe(signal === 'SIGINT' ? 130 : 143);
  expect(command.errors()).toContain(`Saga ${sagaId} continues.`);
  expect(command.output().trim().split('\n').map((line): unknown => JSON.parse(line))).toHaveLength(1);
});
