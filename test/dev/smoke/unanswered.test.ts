// Creates whose answers DigitalOcean never gave: the smoke does not say that all is well while a droplet of theirs may appear.

import { readdir } from 'node:fs/promises';
import { expect, test, vi } from 'vitest';
import { ageCreates, openSmokeStage, receiptSchema } from './stage.ts';

vi.setConfig({ testTimeout: 300_000 });

const quickLooks = { ARCADIA_SMOKE_LISTS_MS: '3000' };
const create = { method: 'POST', path: '/v2/droplets' } as const;
const receiptOf = (stdout: string) => receiptSchema.parse(JSON.parse(stdout));

test('a create without an answer keeps the run open until a list shows its droplet, which the next call destroys', async () => {
  await using stage = await openSmokeStage('embedded', { faults: { listLagMs: 600_000, tagIndexLagMs: 600_000, rules: [{ match: create, times: 1, effect: { lostAnswer: true } }] } });
  const first = await stage.smoke(quickLooks);
  const { unanswered, droplets, ok, left, run } = receiptOf(first.stdout);
  expect([first.code, ok, left]).toEqual([1, false, []]);
  expect(unanswered).toMatchObject([{ name: `arcadia-smoke-${run}-1` }]);
  // The second create was answered; its droplet is not taken for that of the first.
  expect(droplets.map(({ madeAt }) => madeAt > (unanswered[0]?.at ?? ''))).toEqual([true]);
  expect((await readdir(stage.folder)).filter((name) => name.startsWith('arcadia-smoke-postgres-'))).toEqual([`arcadia-smoke-postgres-${run}`]);
  stage.sandbox.resetFaults();
  const next = await stage.smoke(quickLooks);
  const receipt = receiptOf(next.stdout);
  expect([next.code, receipt.run, receipt.unanswered]).toEqual([0, run, []]);
  expect(stage.sandbox.ledger().flatMap(({ made }) => made)).toHaveLength(2);
  expect(stage.problems({ ...receipt, droplets: receipt.droplets.toSorted((a, b) => a.id - b.id) })).toEqual([]);
  expect((await readdir(stage.folder)).filter((name) => name.startsWith('arcadia-smoke-postgres-'))).toEqual([]);
});

test('a create that --max-usd does not pay for is not sent, though the one before it was not answered', async () => {
  await using stage = await openSmokeStage('given', { faults: { listLagMs: 600_000, tagIndexLagMs: 600_000, rules: [{ match: create, times: 1, effect: { lostAnswer: true } }] } });
  const { code, stdout } = await stage.smoke({ ...quickLooks, ARCADIA_SMOKE_MAX_USD: '0.04' });
  const { ok, refused, run } = receiptOf(stdout);
  expect([code, ok, refused]).toEqual([1, false, [expect.stringContaining(`droplet arcadia-smoke-${run}-1 would be number 2 of this run, and --max-usd pays for 1`)]]);
  expect(stage.sandbox.ledger().flatMap(({ made }) => made)).toHaveLength(1);
  stage.sandbox.resetFaults();
  await stage.smoke(quickLooks);
  expect(stage.sandbox.state({ alive: true }).map(({ name }) => name)).toEqual(['theirs', 'other-fleet']);
});

test('once its droplet can no longer appear, a create without an answer no longer keeps the run open', async () => {
  await using stage = await openSmokeStage('given', { faults: { rules: [{ match: create, times: 1, effect: { status: 504 } }] } });
  const first = await stage.smoke(quickLooks);
  expect([first.code, receiptOf(first.stdout).unanswered.length]).toEqual([1, 1]);
  const again = await stage.smoke(quickLooks);
  expect([again.code, receiptOf(again.stdout).unanswered]).toEqual([1, receiptOf(first.stdout).unanswered]);
  await ageCreates(stage.folder);
  const last = await stage.smoke(quickLooks);
  expect([last.code, receiptOf(last.stdout)]).toMatchObject([0, { run: receiptOf(first.stdout).run, unanswered: [], neverAppeared: [{}], ok: true }]);
});
