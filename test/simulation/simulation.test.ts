// Thousands of random schedules of faults, on the real steps and the real engine; and the proof that they would find a
// mechanism missing. `script/simulate` runs many more. ARCADIA_SIM_SEED and ARCADIA_SIM_RUNS choose others.
import { describe, expect, test } from 'vitest';
import { describeFinding, explore } from './explore.ts';
import { simulate } from './simulate.ts';
import { randomTape, recordedTape } from './tape.ts';
import type { Mechanism } from './violation.ts';

const seed = Number(process.env['ARCADIA_SIM_SEED'] ?? 20_300_101);
const schedules = Number(process.env['ARCADIA_SIM_RUNS'] ?? 2_000);
// A schedule takes about a millisecond; this is for a slow and busy machine.
const timeoutMs = 60_000 + schedules * 20;

describe('the engine, under random schedules of faults', () => {
  test(`leaves every saga at rest and every droplet with its saga (${schedules} schedules of seed ${seed})`, { timeout: timeoutMs }, async () => {
    const { found, counts, ends } = await explore({ seed, schedules });
    expect(found === null ? '' : describeFinding(found)).toBe('');
    if (schedules < 1_000) return;
    // A simulation in which nothing happens proves nothing.
    expect(essential.filter((what) => !counts.has(what))).toEqual([]);
    expect(commonEnds.filter((end) => (ends.get(end) ?? 0) < schedules / 20)).toEqual([]);
  });

  test('takes the same course from the same decisions, on a machine of any speed', async () => {
    const tape = randomTape(seed);
    const first: string[] = [];
    const again: string[] = [];
    await simulate(tape, { trace: (line) => first.push(line) });
    await simulate(recordedTape(tape.drawn), {
      trace: (line) => {
        again.push(line);
        // The machine is busy: what the code does after this comes later by every real clock.
        if (line.includes('update data')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
      },
    });
    expect(first.length).toBeGreaterThan(20);
    expect(again).toEqual(first);
  });
});

describe('effects of any foreign service', () => {
  test(`are there once where the saga completed, and not at all where it was rolled back (${schedules} schedules)`, { timeout: timeoutMs }, async () => {
    const { found, counts, ends } = await explore({ scenario: 'orders', seed, schedules });
    expect(found === null ? '' : describeFinding(found)).toBe('');
    if (schedules < 1_000) return;
    const happened = ['worker crashes', 'worker freezes', 'POST: done, reply lost', 'POST: done late, reply lost', 'list of orders lags', 'order found', 'cancel of a running saga'];
    expect(happened.filter((what) => !counts.has(what))).toEqual([]);
    expect(['place_orders completed', 'place_orders compensated', 'place_orders_in_turn completed', 'place_orders_in_turn compensated'].filter((end) => (ends.get(end) ?? 0) < schedules / 40)).toEqual([]);
  });

  test.each<{ without: Mechanism }>([{ without: 'intent' }, { without: 'settle window' }, { without: 'adoption by tag' }, { without: 'fencing' }])(
    'are doubled, or left, without $without: the simulation finds it',
    { timeout: timeoutMs },
    async ({ without }) => {
      const { found } = await explore({ scenario: 'orders', seed, schedules: 3_000, without });
      expect(found?.shrunkViolation).toMatch(/a second time|left|there is none|is at work on it/);
      await expect(simulate(recordedTape(found?.decisions ?? []), { scenario: 'orders' })).resolves.toBeDefined();
    },
  );
});

describe('leases', () => {
  // The whole of what is promised of them: ARCADIA_LEASE_RUNS=100000.
  const runs = Number(process.env['ARCADIA_LEASE_RUNS'] ?? 1_000);

  test(`are renewed or end: no droplet is renewed and destroyed, none expired and kept (${runs} schedules)`, { timeout: 60_000 + runs * 100 }, async () => {
    const { found, counts, ends } = await explore({ scenario: 'leases', seed, schedules: runs });
    expect(found === null ? '' : describeFinding(found)).toBe('');
    if (runs < 1_000) return;
    const happened = ['lease renewed', 'renewal refused', 'lease expired: droplet destroyed', 'lease expired: provision rolled back', 'several workers look for leases', 'cancel of a running saga', 'worker crashes', 'leases.expire: done, reply lost'];
    expect(happened.filter((what) => !counts.has(what))).toEqual([]);
    expect(['provision_droplet completed', 'destroy_droplet completed', 'destroy_droplet compensated'].filter((end) => (ends.get(end) ?? 0) < runs / 50)).toEqual([]);
  });

  test('are renewed and destroyed where a renewal does not look at what has expired: the simulation finds it', { timeout: timeoutMs }, async () => {
    const { found } = await explore({ scenario: 'leases', seed, schedules: 3_000, without: 'expiry mark' });
    expect(found?.shrunkViolation).toMatch(/is destroyed by \S+, \S+ s before its lease ends/);
    await expect(simulate(recordedTape(found?.decisions ?? []), { scenario: 'leases' })).resolves.toBeDefined();
  });
});

describe('adoptions', () => {
  const runs = Math.min(schedules, 1_500);

  test(`take a droplet or leave it as it was, and never one that others have (${runs} schedules)`, { timeout: timeoutMs }, async () => {
    const { found, counts, ends } = await explore({ scenario: 'adoptions', seed, schedules: runs });
    expect(found === null ? '' : describeFinding(found)).toBe('');
    if (runs < 1_000) return;
    const happened = [
      'adoption of a droplet that is being provisioned', 'tags of an adopted droplet lag', 'another fleet: kept', 'another fleet: gone', 'POST: done late, reply lost',
      'adoption rolled back: cancelled', 'adoption rolled back: droplet_already_managed', 'adoption rolled back: droplet_not_ours', 'adoption rolled back: droplet_gone',
    ];
    expect(happened.filter((what) => !counts.has(what))).toEqual([]);
    expect(['adopt_droplet completed', 'adopt_droplet compensated', 'destroy_droplet completed'].filter((end) => (ends.get(end) ?? 0) < runs / 20)).toEqual([]);
  });

  test.each<{ without: Mechanism; violation: RegExp }>([
    { without: 'intent', violation: /left its tag on droplet/ },
    { without: 'one saga a resource', violation: /while \S+ is at work on it/ },
  ])('leave tags behind, or meet, without $without: the simulation finds it', { timeout: timeoutMs }, async ({ without, violation }) => {
    const { found } = await explore({ scenario: 'adoptions', seed, schedules: 3_000, without });
    expect(found?.shrunkViolation).toMatch(violation);
    await expect(simulate(recordedTape(found?.decisions ?? []), { scenario: 'adoptions' })).resolves.toBeDefined();
  });
});

test('sagas of one resource work on it at the same time where nothing keeps them from it: the simulation finds it', { timeout: timeoutMs }, async () => {
  const { found } = await explore({ scenario: 'orders', seed, schedules: 3_000, without: 'one saga a resource' });
  expect(found?.shrunkViolation).toMatch(/works on shop while \S+ is at work on it/);
  await expect(simulate(recordedTape(found?.decisions ?? []), { scenario: 'orders' })).resolves.toBeDefined();
});

const essential = [
  'worker crashes',
  'worker freezes',
  'job stalls',
  'lock lost, job delivered twice',
  'finished job run again',
  'queues flushed',
  'queues restored from an old snapshot',
  'cancel of a running saga',
  'POST: done, reply lost',
  'POST: done late, reply lost',
  'store.commit: done, reply lost',
  'store.commit: done late, reply lost',
  'lists lag',
  'tags lag',
  'deletion refused for good',
  'foreign droplet that looks like ours',
  'droplet vanishes',
  'droplet adopted',
  'destroy of a droplet whose provision is under way',
];

const commonEnds = ['provision_droplet completed', 'provision_droplet compensated', 'destroy_droplet completed'];

describe('the simulation finds a violation', () => {
  test.each<{ without: Mechanism; violation: RegExp }>([
    { without: 'fencing', violation: /second droplet|announced|left|not its own|gone|inventory/ },
    { without: 'intent', violation: /second droplet|left/ },
    { without: 'settle window', violation: /second droplet|left/ },
    { without: 'reconciler', violation: /nothing will ever happen again|no rest/ },
    { without: 'adoption by tag', violation: /second droplet|left/ },
  ])('without $without', { timeout: timeoutMs }, async ({ without, violation }) => {
    const { found } = await explore({ seed, schedules: 3_000, without });
    expect(found?.violation).toMatch(violation);
    // What is left of it shows the same kind of harm in a few decisions, and none while the mechanism is on.
    expect(found?.shrunkViolation).toMatch(violation);
    const decisions = found?.decisions ?? [];
    expect(decisions.filter((decision) => decision !== 0).length).toBeLessThan(13);
    await expect(simulate(recordedTape(decisions))).resolves.toBeDefined();
  });
});
