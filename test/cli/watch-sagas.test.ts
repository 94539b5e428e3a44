// `sagas --watch`: on a terminal, in a pipe, and while Postgres is away.
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import stringWidth from 'string-width';
import { z } from 'zod';
import { frameOf } from '../../src/cli/watch-sagas.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand, web as droplet } from '../support/fleet.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { arcadia, plain, startOnTerminal, startShell } from '../support/terminal.ts';
import { waitFor } from '../support/wait-for.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('postgres');
});
afterAll(() => fleet[Symbol.asyncDispose]());

const start = async (name: string) => (await fleet.client.provisionDroplet({ ...droplet, name })).sagaId;

/** What the last drawing shows. */
const screenOf = (output: string): string[] => plain(output.slice(output.lastIndexOf('\u001b[H'))).split('\n');

describe('on a terminal', () => {
  test('redraws the list within the terminal, tells of an outage, goes on after it, and ends quietly', async () => {
    await using proxy = await startTcpProxy(fleet.databaseUrl);
    const first = await start('first');
    const terminal = startOnTerminal(fleet.environment({ DATABASE_URL: proxy.through(fleet.databaseUrl) }), 'sagas --watch --every 1 --status pending', { rows: 24, columns: 80 });
    await waitFor(() => terminal.output().includes(first), { what: 'the first drawing' });
    expect(screenOf(terminal.output())[0]).toMatch(/^Read at \d\d:\d\d:\d\d UTC, again every 1 s\. Ctrl-C ends it\.$/);

    const second = await start('second');
    await waitFor(() => screenOf(terminal.output()).some((line) => line.startsWith(second)), { what: 'the new saga' });

    proxy.down();
    await waitFor(() => screenOf(terminal.output())[0]?.startsWith('Not up to date'), { what: 'the outage' });
    expect(screenOf(terminal.output())[0]).toMatch(/^Not up to date since \d\d:\d\d:\d\d UTC, trying again\. Postgres cannot be reached/);
    // What was read last stays.
    expect(screenOf(terminal.output()).join('\n')).toContain(second);
    proxy.up();
    const third = await start('third');
    await waitFor(() => screenOf(terminal.output()).some((line) => line.startsWith(third)), { what: 'the list after the outage' });
    expect(screenOf(terminal.output())[0]).toMatch(/^Read at /);
    for (const line of terminal.output().split('\u001b[H').flatMap((drawing) => plain(drawing).split('\n'))) expect(stringWidth(line)).toBeLessThanOrEqual(80);

    terminal.type('\u0003');
    expect(await terminal.ended).toBe(130);
    // The terminal is as it was, and nothing is said.
    expect(terminal.output()).toMatch(/\u001b\[\?25h\u001b\[\?1049l(?:\^C)?\s*$/); // oxlint-disable-line no-control-regex
    expect(terminal.output()).not.toContain('arcadia:');
  });

  test('ends at once on Ctrl-C while Postgres is away', async () => {
    await using proxy = await startTcpProxy(fleet.databaseUrl);
    const terminal = startOnTerminal(fleet.environment({ DATABASE_URL: proxy.through(fleet.databaseUrl) }), 'sagas --watch --every 1', { rows: 24, columns: 80 });
    await waitFor(() => terminal.output().includes('Read at'), { what: 'the first drawing' });
    proxy.down();
    await waitFor(() => terminal.output().includes('Not up to date'), { what: 'the outage' });
    terminal.type('\u0003');
    expect(await terminal.ended).toBe(130);
    expect(terminal.output()).not.toContain('arcadia:');
  });

  const rows = Array.from({ length: 30 }, (_, index) => `saga ${index} ${'x'.repeat(60)}`).join('\n');
  const frame = (height: number, trouble: string | null = null, { width = 40, isCut = false } = {}) => frameOf({ listing: { sagas: [], leases: new Map(), holds: new Map(), lastAnswers: new Map(), isCut }, at: new Date(Date.UTC(2026, 0, 1, 7, 1, 14)), trouble, everyMs: 2_000, width, height }, () => rows);

  test('has no more lines than the terminal, and says how many are left out', () => {
    expect(frame(10)).toHaveLength(10);
    expect(frame(10).at(-1)).toBe('… and 23 more: this terminal has 10 lin…');
    expect(frame(50)).toHaveLength(32);
    expect(frame(24, null, { width: 120, isCut: true })[0]).toBe('Read at 07:01:14 UTC, again every 2 s. Ctrl-C ends it. Showing the newest 0; there are more: --limit shows up to 1000');
    expect(frame(24, 'no')[0]).toBe('Not up to date since 07:01:14 UTC, tryi…');
  });
});

const lines = (output: string): string[] => output.trimEnd().split('\n');

describe('in a pipe', () => {
  test('prints the list, then a line for each saga that is new or has changed, and no control characters', async () => {
    const one = await start('one');
    const command = startShell(`exec ${arcadia} sagas --watch --every 1 --name provision_droplet`, fleet.environment());
    await waitFor(() => command.output().includes(one), { what: 'the list' });
    const before = lines(command.output()).length;
    const two = await start('two');
    await waitFor(() => command.output().includes(two), { what: 'the new saga' });
    await fleet.client.cancel(one, 'test');
    await waitFor(() => lines(command.output()).length === before + 2, { what: 'the change' });
    expect(lines(command.output()).slice(before)).toEqual([expect.stringMatching(new RegExp(`^${two}  provision_droplet  waiting`)), expect.stringMatching(new RegExp(`^${one}  provision_droplet  rolled back`))]);
    expect(command.output()).not.toContain('\u001b');
    process.kill(command.pid, 'SIGINT');
    expect(await command.ended).toBe(130);
    expect(command.errors()).toBe('');
  });

  test('with --json prints a document a line', async () => {
    const command = startShell(`exec ${arcadia} sagas --watch --every 1 --json --text documented`, fleet.environment());
    onTestFinished(() => void process.kill(command.pid, 'SIGKILL'));
    const id = await start('documented');
    await waitFor(() => command.output().includes(id), { what: 'the saga' });
    const [only] = lines(command.output()).map((line) => z.object({ saga: z.object({ id: z.uuid(), leaseUntil: z.null() }) }).parse(JSON.parse(line)));
    expect(only?.saga.id).toBe(id);
  });

  test('tells of an outage once, and of its end, on stderr', async () => {
    await using proxy = await startTcpProxy(fleet.databaseUrl);
    const command = startShell(`exec ${arcadia} sagas --watch --every 1`, fleet.environment({ DATABASE_URL: proxy.through(fleet.databaseUrl) }));
    await waitFor(() => command.output() !== '', { what: 'the list' });
    proxy.down();
    await waitFor(() => command.errors().includes('Not up to date since'), { what: 'the outage' });
    proxy.up();
    await waitFor(() => command.errors().includes('Up to date again at'), { what: 'its end' });
    expect(command.errors().match(/^Not up to date/gm)).toHaveLength(1);
    process.kill(command.pid, 'SIGTERM');
    expect(await command.ended).toBe(143);
  });

  test('ends when its reader has gone', async () => {
    const command = startShell(`{ ${arcadia} sagas --watch --every 1; echo "ended: $?" >&2; } | head -n 1`, fleet.environment());
    await waitFor(() => command.output() !== '', { what: 'the list' });
    for (let index = 0; index < 3; index += 1) await start(`late-${index}`);
    await waitFor(() => command.errors() !== '', { what: 'its end' });
    expect(command.errors()).toBe('ended: 141\n');
  });
});

test('--every without --watch, and a Postgres that was never there, are errors', async () => {
  const [every, away] = await Promise.all([runCommand(['sagas', '--every', '5'], fleet.environment()), runCommand(['sagas', '--watch'], fleet.environment({ DATABASE_URL: 'postgres://arcadia@127.0.0.1:9/arcadia' }))]);
  expect([every.code, every.stderr]).toEqual([2, 'arcadia: --every: expected --watch too\n']);
  expect(away.code).toBe(1);
  expect(away.stderr).toContain('ECONNREFUSED');
});
