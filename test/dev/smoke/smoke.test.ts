// The smoke against the sandbox: what it says it will do, what it does, what it leaves after it was killed. The sandbox's
// ledger is the witness.

import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { lockFolder } from '../../../src/dev/smoke/folder.ts';
import { parseProfile, settingsOfProfile } from '../../../src/sandbox/profile.ts';
import { runCommand } from '../../support/fleet.ts';
import { patience } from '../../support/patience.ts';
import type { CrashAt } from './crashing-smoke.ts';
import type { SmokeStage } from './stage.ts';
import { TOKEN, ageCreates, openSmokeStage, receiptSchema } from './stage.ts';

vi.setConfig({ testTimeout: 300_000, maxConcurrency: 3 });

const isFull = process.env['ARCADIA_CRASH_FULL'] === '1';
const seed = Number(process.env['ARCADIA_CRASH_SEED'] ?? Math.floor(Date.now() / 86_400_000));

const receiptOf = (stdout: string) => receiptSchema.parse(JSON.parse(stdout));
const smokeArgs = ['smoke', '--region', 'fra1', '--size', 's-1vcpu-1gb'];

test('without --yes, above --max-usd, or without a token, nothing is done, and it says how to go on', async () => {
  await using stage = await openSmokeStage('embedded');
  const run = (...more: string[]) => runCommand([...smokeArgs, '--state-dir', stage.folder, ...more], stage.environment);
  const plan = await run();
  expect(plan.code).toBe(2);
  expect(plan.stdout).toContain('It makes 1 droplet (s-1vcpu-1gb, debian-12-x64, fra1; 0.00893 USD an hour)');
  expect(plan.stdout).toContain('It costs 0.0100 USD at most');
  expect(plan.stderr).toBe('Nothing was done. Add `--max-usd 0.01 --yes` to do it.\n');
  const dear = await run('--hard', '--max-usd', '0.03', '--yes', '--json');
  expect([dear.code, JSON.parse(dear.stdout)]).toMatchObject([2, { plan: { mostUsd: 0.04, droplets: 2 }, refused: 'Nothing was done: it may cost 0.0400 USD, more than --max-usd 0.03.' }]);
  expect((await run('--size', 's-none')).stderr).toContain('--size: DigitalOcean has no size "s-none"');
  const tokenless = await runCommand(smokeArgs, { ...stage.environment, DIGITALOCEAN_TOKEN: '' });
  expect([tokenless.code, tokenless.stderr.includes('DIGITALOCEAN_TOKEN: not set')]).toEqual([78, true]);
  expect(stage.sandbox.ledger().filter(({ method }) => method !== 'GET')).toEqual([]);
});

test('with --hard on its own Postgres, each act ends with one droplet that is gone; receipt and ledger agree, no tag of ours is left, and the lags can be played', async () => {
  // Long enough to be seen by who looks, on whatever machine.
  const p = patience();
  await using stage = await openSmokeStage('embedded', { activateAfterMs: 900 * p, faults: { earlyDelete: '422', tagIndexLagMs: 400 * p, goneLagMs: 500 * p } });
  const exit = await stage.smoke({ ARCADIA_SMOKE_HARD: '1' });
  // With what it said, so that a failure tells more.
  expect({ ...exit }).toMatchObject({ code: 0 });
  const receipt = receiptOf(exit.stdout);
  expect(receipt.acts.map(({ act, ok }) => [act, ok])).toEqual([['provision', true], ['cancel', true], ['killed-worker', true], ['lost-answer', true]]);
  expect(stage.problems(receipt)).toEqual([]);
  expect(receipt.droplets).toHaveLength(4);
  const known = ['prod', 'managed-by-arcadia-cloud', 'arcadia-saga-id-00000000-0000-4000-8000-000000000000'];
  // Waves are everybody's, and another fleet works in this account.
  expect((await listTags(stage)).filter((tag) => !known.includes(tag) && !tag.startsWith('arcadia-wave-'))).toEqual([]);
  const profile = parseProfile(await readFile(receipt.profile ?? '', 'utf8'));
  expect(profile.droplets.map(({ act }) => act)).toEqual(['provision', 'cancel', 'killed-worker', 'lost-answer']);
  const { activateAfterMs, faults } = settingsOfProfile(profile);
  expect(activateAfterMs).toMatchObject({ minMs: expect.any(Number) });
  // By the other witness: a deletion was refused, or came too late for that.
  const wasPending = stage.sandbox.ledger().some(({ method, status }) => method === 'DELETE' && status === 422);
  expect((faults.pendingEventMs ?? 0) > 0).toBe(wasPending);
  expect(faults.tagIndexLagMs).toBeGreaterThan(0);
  expect(faults.goneLagMs).toBeGreaterThan(0);
  const written = await readFile(join(stage.folder, 'smoke.json'), 'utf8');
  expect([exit.stdout, exit.stderr, written].some((text) => text.includes(TOKEN))).toBe(false);
});

test('a second smoke in the same folder is refused while another process holds it', async () => {
  await using stage = await openSmokeStage('embedded');
  const unlock = await lockFolder(stage.folder);
  const second = await runCommand([...smokeArgs, '--state-dir', stage.folder, '--yes', '--max-usd', '1'], stage.environment);
  expect([second.code, second.stderr]).toEqual([2, expect.stringContaining('Another `arcadia smoke` is running')]);
  await unlock();
  await (await lockFolder(stage.folder))();
  expect(stage.sandbox.ledger().filter(({ method }) => method !== 'GET')).toEqual([]);
});

test('what cannot be destroyed is named, with exit code 1, and the next call finishes it', async () => {
  await using stage = await openSmokeStage('given');
  // Whoever holds the tag: the scope tag:delete is missing.
  stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE', path: '/v2/tags/' }, effect: { status: 403 } }] });
  const exit = await stage.smoke();
  const receipt = receiptOf(exit.stdout);
  expect(exit.code).toBe(1);
  expect(receipt.left).toEqual([expect.stringMatching(/^tag arcadia-saga-/), expect.stringMatching(/^tag arcadia-saga-/)]);
  stage.sandbox.resetFaults();
  const next = await stage.smoke();
  expect([next.code, receiptOf(next.stdout)]).toMatchObject([0, { run: receipt.run, finishedEarlierRun: true, left: [] }]);
});

// Of a full run, said at its end.
const inconclusive: CrashAt[] = [];
afterAll(() => {
  if (isFull) process.stdout.write(`smoke: ${inconclusive.length} kill points did not come up: ${inconclusive.map(({ name, occurrence }) => `${name} #${occurrence}`).join('; ')}\n`);
});

describe.concurrent('killed with SIGKILL at an I/O of its own, the next call finishes what it left', async () => {
  for (const at of await pickCases()) {
    test(`${at.position} ${at.name} #${at.occurrence}`, async () => {
      expect(await killAndFinish(at)).toEqual([]);
    });
  }
});

/** All effects of an undisturbed run: of each name, the first two. */
async function pickCases(): Promise<CrashAt[]> {
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-smoke-list-'));
  try {
    await using stage = await openSmokeStage('given');
    const list = join(folder, 'list');
    await appendFile(list, '');
    const exit = await stage.smoke({ ARCADIA_SMOKE_LIST: list });
    if (exit.code !== 0) throw new Error(`the smoke, undisturbed: ${exit.stdout} ${exit.stderr}`);
    const names = (await readFile(list, 'utf8')).trimEnd().split('\n');
    const distinct = [...new Set(names)];
    const all = distinct.flatMap((name) => {
      const count = Math.min(2, names.filter((one) => one === name).length);
      return Array.from({ length: count }, (_, index) => (['before', 'after'] as const).map((position) => ({ name, occurrence: index + 1, position }))).flat();
    });
    if (isFull) return all;
    // The create itself each day; of all others, two a day.
    const atCreate = all.filter(({ name, position }) => name === 'passed on POST /v2/droplets' && position === 'after');
    const others = all.filter((one) => !atCreate.includes(one));
    return [...atCreate, ...[0, 1].flatMap((index) => others[(seed + index * 37) % others.length] ?? [])];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function killAndFinish(at: CrashAt): Promise<string[]> {
  await using stage = await openSmokeStage('given');
  const killed = await stage.smoke({ ARCADIA_SMOKE_CRASH: JSON.stringify(at) });
  if (killed.signal !== 'SIGKILL') {
    if (killed.code !== 0 || !mayBeLeftOut(at)) return [`it was not killed: ${killed.code} ${killed.stderr}`];
    inconclusive.push(at);
    return stage.problems(receiptOf(killed.stdout));
  }
  // Done, and its receipt is printed: the next call is a new run.
  if (at.name === 'state: run is done' && at.position === 'after') return stage.problems(receiptOf(killed.stdout));
  let next = await stage.smoke(wasNotSent(at) ? { ARCADIA_SMOKE_LISTS_MS: '2000' } : {});
  if (wasNotSent(at) && next.code === 1) {
    // It cannot know that the create was not sent, so it waits for the droplet.
    if (receiptOf(next.stdout).unanswered.length !== 1) return [`no create is said to be without an answer: ${next.stdout}`];
    await ageCreates(stage.folder);
    next = await stage.smoke();
  }
  if (next.code !== 0) return [`the next call ended with ${next.code}: ${next.stdout} ${next.stderr}`];
  return stage.problems(receiptOf(next.stdout));
}

/** Killed after the create was recorded, before it was sent. */
function wasNotSent({ name, position }: CrashAt): boolean {
  return (name === 'state: create is sent' && position === 'after') || (name === 'passed on POST /v2/droplets' && position === 'before');
}

/** An I/O that does not come in each run: a second one of its kind, or a look that somebody took or not, as time allowed. */
function mayBeLeftOut({ name, occurrence }: CrashAt): boolean {
  return occurrence > 1 || name.startsWith('look: ') || name.startsWith('passed on GET ');
}

async function listTags(stage: SmokeStage): Promise<string[]> {
  const answer = await fetch(`${stage.sandbox.url}/v2/tags?per_page=200`, { headers: { authorization: `Bearer ${TOKEN}` } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the sandbox's own
  const { tags } = (await answer.json()) as { tags: { name: string }[] };
  return tags.map(({ name }) => name);
}
