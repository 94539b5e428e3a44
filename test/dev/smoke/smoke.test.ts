// The smoke against the sandbox: what it says it will do, and what it does. The sandbox's ledger is the witness.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { lockFolder } from '../../../src/dev/smoke/folder.ts';
import { parseProfile, settingsOfProfile } from '../../../src/sandbox/profile.ts';
import { runCommand } from '../../support/fleet.ts';
import { patience } from '../../support/patience.ts';
import type { SmokeStage } from './stage.ts';
import { TOKEN, openSmokeStage, receiptSchema } from './stage.ts';

vi.setConfig({ testTimeout: 300_000 });

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

async function listTags(stage: SmokeStage): Promise<string[]> {
  const answer = await fetch(`${stage.sandbox.url}/v2/tags?per_page=200`, { headers: { authorization: `Bearer ${TOKEN}` } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the sandbox's own
  const { tags } = (await answer.json()) as { tags: { name: string }[] };
  return tags.map(({ name }) => name);
}
