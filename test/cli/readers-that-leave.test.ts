// `arcadia … | head -1`: every command that prints ends when its reader has gone, as other programs do: without a word, and
// with 141.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { textOf } from '../../src/platform/json.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand, web as droplet } from '../support/fleet.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { arcadia, runShell } from '../support/terminal.ts';

let fleet: Fleet;
let saga: string;
let droplets: string;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
  fleet = await openFleet('postgres', { activateAfterMs: 100 });
  await writeSagas(fleet.db, { count: 300, status: 'completed', daysAgo: 1 });
  await fleet.startWorker();
  saga = (await fleet.client.provisionDroplet({ ...droplet, lease: { ttl_s: 86_400 } })).sagaId;
  droplets = textOf((await fleet.atRest(saga)).context['droplet_id']);
}, 120_000);
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const provision = 'provision --name x --region fra1 --size s-1vcpu-1gb --image debian-12-x64';
const smoke = 'smoke --region fra1 --size s-1vcpu-1gb --state-dir FOLDER';

/** Every command that prints, by its line. ID and DROPLET stand for those of a saga that is completed. */
const printing = [
  '--help', '--version', 'sagas --help', 'complete bash', 'complete -- sa',
  'migrate', 'migrate --json',
  'sagas', 'sagas --json', 'saga ID', 'saga ID --json', 'saga ID --follow', 'saga ID --follow --json',
  `${provision} --detach`, `${provision} --dry-run`, `${provision} --dry-run --json`, provision, 'start provision_droplet --input \'{"name":"x","region":"fra1","size":"s-1vcpu-1gb","image":"debian-12-x64"}\'',
  'adopt 99', 'destroy 99', 'destroy 99 --json', 'cancel ID --json', 'retry ID --json',
  'protect DROPLET', 'unprotect DROPLET', 'renew DROPLET --ttl 30d', 'leases', 'leases --json', 'leases --without', 'leases --ended',
  'sync', 'sync --json', 'drift', 'drift --json', 'drift --all', 'orphans', 'orphans --json',
  'outcomes', 'outcomes --json', 'outcomes resume none --json', 'status', 'status --json', 'doctor', 'doctor --json', 'hash-password', 'demo',
  smoke,
];

/** One line of each way of printing, whose reader leaves after the first line. That of all the others is gone before they begin. */
const waysOfPrinting = ['--help', 'complete bash', 'migrate', 'sagas', 'sagas --json', 'saga ID', 'saga ID --follow', 'saga ID --follow --json', provision, 'sync', 'status', 'doctor', 'hash-password', 'demo', smoke];

// `worker`, `web`, `sandbox` and `dev` are servers: they go on. `rerun` prints what `start` prints, and this saga has nothing to run again.
const others = ['worker', 'web', 'sandbox', 'dev', 'rerun', 'help'];

test('no command is missing here', async () => {
  const { stdout } = await runCommand(['--help'], { PATH: process.env['PATH'] });
  const commands = [...stdout.slice(stdout.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name);
  expect(commands.length).toBeGreaterThan(25);
  expect(commands.filter((name) => name !== undefined && !others.includes(name) && !printing.some((line) => line.startsWith(name)))).toEqual([]);
});

// Some complain of something else: there is nothing to cancel here. Of their output they say nothing.
const quiet = (codes: string) => new RegExp(String.raw`^(?!arcadia: )(?:.*\n)?ended: (?:${codes})\n$`);

test.each(printing)('%s, and nobody reads', async (args) => {
  const { stderr } = await runBefore('true', args);
  const printsNothing = args.startsWith('outcomes resume');
  expect(stderr).toMatch(quiet(printsNothing ? '1' : '141'));
  expect(stderr).not.toMatch(/EPIPE|^\s+at /m);
});

test.each(waysOfPrinting)('%s, and only its first line is read', async (args) => {
  const { stdout, stderr } = await runBefore('head -n 1', args);
  expect(stdout.split('\n').length).toBeLessThanOrEqual(2);
  expect(stderr).toMatch(quiet('0|1|2|141'));
  expect(stderr).not.toMatch(/EPIPE|^\s+at /m);
});

/** Runs a command before a reader; says how the command ended. */
async function runBefore(reader: string, args: string) {
  const line = args.replace('ID', saga).replace('DROPLET', droplets).replace('FOLDER', join(folder, reader.split(' ', 1)[0] ?? ''));
  return runShell(`{ echo secret-word-of-16 | ${arcadia} ${line}; echo "ended: $?" >&2; } | ${reader}`, fleet.environment());
}

test.skipIf(process.platform !== 'linux').each(['--version', 'migrate', 'doctor --json', 'sagas --limit 1000', 'complete bash'])('%s to a full disk is an error', async (args) => {
  expect(await runShell(`${arcadia} ${args} > /dev/full`, fleet.environment())).toEqual({ code: 1, stdout: '', stderr: 'arcadia: the output cannot be written: ENOSPC: no space left on device, write\n' });
});
