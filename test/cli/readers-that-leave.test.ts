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
  'smoke --region fra1 --size s-1vcpu-1gb --state-dir FOLDER',
];

// `worker`, `web`, `sandbox` and `dev` are servers: they go on. `rerun` prints what `start` prints, and this saga has nothing to run again.
const others = ['worker', 'web', 'sandbox', 'dev', 'rerun', 'help'];

// Two commands run at once, and a smoke wants its folder for itself.
const lineOf = (args: string, reader: string) => args.replace('ID', saga).replace('DROPLET', droplets).replace('FOLDER', join(folder, reader));

test('no command is missing here', async () => {
  const { stdout } = await runCommand(['--help'], { PATH: process.env['PATH'] });
  const commands = [...stdout.slice(stdout.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name);
  expect(commands.length).toBeGreaterThan(25);
  expect(commands.filter((name) => name !== undefined && !others.includes(name) && !printing.some((line) => line.startsWith(name)))).toEqual([]);
});

// Some complain of something else: there is nothing to cancel here. Of their output they say nothing.
const quiet = (codes: string) => new RegExp(String.raw`^(?!arcadia: )(?:.*\n)?ended: (?:${codes})\n$`);

test.each(printing)('%s', async (args) => {
  const command = (reader: string) => runShell(`{ echo secret-word-of-16 | ${arcadia} ${lineOf(args, reader.split(' ', 1)[0] ?? '')}; echo "ended: $?" >&2; } | ${reader}`, fleet.environment());
  // Nobody reads at all, before the command writes.
  const [head, none] = await Promise.all([command('head -n 1'), command('true')]);
  expect(head.stdout.split('\n').length).toBeLessThanOrEqual(2);
  expect(head.stderr).toMatch(quiet('0|1|2|141'));
  const printsNothing = args.startsWith('outcomes resume');
  expect(none.stderr).toMatch(quiet(printsNothing ? '1' : '141'));
  for (const { stderr } of [head, none]) expect(stderr).not.toMatch(/EPIPE|^\s+at /m);
});

test.skipIf(process.platform !== 'linux').each(['--version', 'migrate', 'doctor --json', 'sagas', 'complete bash'])('%s to a full disk is an error', async (args) => {
  expect(await runShell(`${arcadia} ${args} > /dev/full`, fleet.environment())).toEqual({ code: 1, stdout: '', stderr: 'arcadia: the output cannot be written: ENOSPC: no space left on device, write\n' });
});
