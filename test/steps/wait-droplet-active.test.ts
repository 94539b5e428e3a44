// wait_droplet_active: looks, judges what it saw, and comes back; it neither holds anything nor believes a single 404.

import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/platform/json.ts';
import type { DropletEdit, Faults } from '../../src/sandbox/server.ts';
import { alive, at, requests, stepToDeath, useStepStage } from './stage.ts';
import type { Bench, BenchOptions } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;
// A limit that no test reaches: only what moves the clock of the step comes near it.
const patient = { pollIntervalMs: 20_000, maxPolls: 5, adoptionGraceMs: HOUR_MS };
const GET_DROPLET = 'GET /v2/droplets/:id';

async function waitingSaga(options: BenchOptions & { input?: JsonObject } = {}) {
  const bench = await openBench({ activateAfterMs: HOUR_MS, settings: patient, ...options });
  const saga = await bench.provision(options.input ?? {});
  const waiting = await bench.drive(saga.id, at('wait_droplet_active'));
  return { bench, saga: waiting, dropletId: Number(waiting.context['droplet_id']) };
}

/** Polls so many times and returns the last note. */
async function poll(bench: Bench, sagaId: string, times: number): Promise<string> {
  let note = '';
  for (let look = 0; look < times; look += 1) {
    const verdict = await bench.step(sagaId);
    expect(verdict.kind).toBe('postpone');
    note = verdict.note;
  }
  return note;
}

describe('active', () => {
  test('ends the wait, and the addresses are recorded: the public one though the private one comes first', async () => {
    const { bench, saga } = await waitingSaga({ input: { ipv6: true } });
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: patient.pollIntervalMs });
    bench.sandbox.advanceClock(HOUR_MS);
    await bench.step(saga.id);
    const after = await bench.saga(saga.id);
    expect(at('register_droplet')(after)).toBe(true);
    expect(after.context['public_ipv4']).toMatch(/^198\.18\./);
    expect(after.context['private_ipv4']).toMatch(/^10\.100\./);
    expect(after.context['public_ipv6']).toMatch(/^2001:db8::/);
  });

  test('without networks does not end it: the wait goes on until the address is there', async () => {
    const { bench, saga } = await waitingSaga({ faults: { activeWithoutNetworksMs: HOUR_MS } });
    bench.sandbox.advanceClock(HOUR_MS);
    expect(await poll(bench, saga.id, 2)).toContain('active, but has no public IPv4 address');
    bench.sandbox.advanceClock(HOUR_MS);
    await bench.step(saga.id);
    expect((await bench.saga(saga.id)).context['public_ipv4']).toMatch(/^198\.18\./);
  });

  test('with a private address alone does not end it when a public one is expected', async () => {
    const { bench, saga, dropletId } = await waitingSaga();
    const own = { ip_address: '10.1.2.3', netmask: '255.255.0.0', gateway: 'nil', type: 'private' };
    bench.sandbox.editDroplet(dropletId, { status: 'active', networks: { v4: [own], v6: [] } });
    expect(await poll(bench, saga.id, 3)).toContain('active, but has no public IPv4 address');
  });

  test('with a private address alone ends it when no public one was asked for', async () => {
    const { bench, saga } = await waitingSaga({ input: { public_networking: false } });
    bench.sandbox.advanceClock(HOUR_MS);
    await bench.step(saga.id);
    const after = await bench.saga(saga.id);
    expect(at('register_droplet')(after)).toBe(true);
    expect(after.context).toMatchObject({ public_ipv4: null, private_ipv4: expect.stringMatching(/^10\./) });
  });
});

describe('addresses that come later than active', () => {
  const VPC = '5a4981aa-9653-4bd1-bef5-d6bff52042e4';
  const late: [string, keyof Faults['addressLagMs'], JsonObject, string][] = [
    ['the public IPv4', 'public_ipv4', {}, 'public IPv4 address'],
    ['the public IPv6 that was asked for', 'public_ipv6', { ipv6: true }, 'public IPv6 address'],
    ['the private IPv4 in the VPC that was asked for', 'private_ipv4', { vpc_uuid: VPC }, `private IPv4 address in VPC ${VPC}`],
    ['the private IPv4 where there is no public one', 'private_ipv4', { public_networking: false }, 'private IPv4 address'],
    ['the public IPv4 that was asked for in so many words', 'public_ipv4', { public_networking: true }, 'public IPv4 address'],
  ];

  test.each(late)('%s is waited for, and is in the result and in the inventory', async (_what, kind, input, words) => {
    const { bench, saga, dropletId } = await waitingSaga({ input, faults: { addressLagMs: { [kind]: HOUR_MS } } });
    bench.sandbox.advanceClock(HOUR_MS);
    expect(await poll(bench, saga.id, 2)).toBe(`droplet ${dropletId} is active, but has no ${words}`);
    bench.sandbox.advanceClock(HOUR_MS);
    const after = await bench.drive(saga.id);
    expect([after.status, after.context[kind]]).toEqual(['completed', expect.any(String)]);
    expect(JSON.stringify((await bench.inventory())[0]?.attrs)).toContain(JSON.stringify(after.context[kind]));
  });

  test.each(late)('%s never comes: the saga fails when the wait is over, and says what is missing', async (_what, kind, input, words) => {
    const { bench, saga, dropletId } = await waitingSaga({ activateAfterMs: 0, input, faults: { addressLagMs: { [kind]: HOUR_MS } } });
    await poll(bench, saga.id, patient.maxPolls - 1);
    await bench.ageStep(saga.id, 480_000);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_without_address', step: 'wait_droplet_active' } });
    expect(after.error?.message).toMatch(new RegExp(`^droplet ${dropletId} is active, but has no ${words} after 5 polls \\(48[0-9] s\\)$`));
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('what was not asked for is not waited for', async () => {
    const { bench, saga } = await waitingSaga({ activateAfterMs: 0, faults: { addressLagMs: { private_ipv4: HOUR_MS, public_ipv6: HOUR_MS } } });
    const after = await bench.drive(saga.id);
    expect([after.status, after.context['private_ipv4'], after.context['public_ipv6']]).toEqual(['completed', null, null]);
  });

  test('a private address in another VPC is not the one that was asked for', async () => {
    const { bench, saga } = await waitingSaga({ activateAfterMs: 0, input: { vpc_uuid: VPC } });
    bench.sandbox.setFaults({ garble: { vpc_uuid: '760e09ef-dc84-11e8-981e-3cfdfeaae000' } });
    expect(await poll(bench, saga.id, 1)).toContain(`no private IPv4 address in VPC ${VPC}`);
    bench.sandbox.setFaults({ garble: { vpc_uuid: VPC.toUpperCase() } });
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });
});

describe('the limit of a request (wait_s)', () => {
  test('ends the wait sooner than that of the process', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ input: { wait_s: 60 }, settings: { ...patient, maxPolls: 1_000 } });
    expect((await bench.step(saga.id)).kind).toBe('postpone');
    await bench.ageStep(saga.id, 60_000);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_active' } });
    expect(after.error?.message).toMatch(new RegExp(`^droplet ${dropletId} was still \`new\` after 2 polls \\(6\\d s\\)$`));
  });

  test('ends it later, for a large snapshot', async () => {
    const { bench, saga } = await waitingSaga({ input: { wait_s: 3_600 } });
    await poll(bench, saga.id, patient.maxPolls + 2);
    await bench.ageStep(saga.id, 3_500_000);
    await poll(bench, saga.id, 1);
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('is kept to the second: the last look is due when it is over', async () => {
    const { bench, saga } = await waitingSaga({ input: { wait_s: 25 } });
    await bench.ageStep(saga.id, 15_000);
    const verdict = await bench.step(saga.id);
    expect(verdict.kind === 'postpone' && verdict.delayMs).toBeLessThanOrEqual(10_000);
  });

  test('does not end at the first look after a pause of the queue', async () => {
    const { bench, saga } = await waitingSaga({ input: { wait_s: 1 } });
    await bench.ageStep(saga.id, HOUR_MS);
    await poll(bench, saga.id, 1);
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });
});

describe('IPv6 without public networking', () => {
  test('is asked for and never comes: the saga says so, and does not complete without it', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ activateAfterMs: 0, input: { ipv6: true, public_networking: false } });
    expect(await poll(bench, saga.id, patient.maxPolls - 1)).toBe(`droplet ${dropletId} is active, but has no public IPv6 address`);
    await bench.ageStep(saga.id, 480_000);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_without_address' } });
  });
});

describe('changed by somebody while it is waited for', () => {
  test.each<[string, DropletEdit]>([
    ['renamed', { name: 'renamed-by-cloud-init' }],
    ['its tags removed', { tags: [] }],
    ['its tags replaced', { tags: ['web', 'prod'] }],
    ['resized', { size_slug: 's-2vcpu-4gb' }],
    ['renamed, resized and without tags', { name: 'other', size_slug: 's-2vcpu-4gb', tags: [] }],
  ])('%s: it is the saga\'s all the same, in the wait and in the inventory', async (_how, edit) => {
    const { bench, saga, dropletId } = await waitingSaga();
    bench.sandbox.editDroplet(dropletId, edit);
    await poll(bench, saga.id, 2);
    bench.sandbox.advanceClock(HOUR_MS);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_id: dropletId } });
    const [row] = await bench.inventory();
    expect(row).toMatchObject({
      name: edit.name ?? 'web-1',
      sizeSlug: edit.size_slug ?? 's-1vcpu-1gb',
      provisionedBy: `saga:${saga.id}`,
      spec: { size_slug: 's-1vcpu-1gb', region: 'fra1', image: 'debian-12-x64' },
    });
  });

  test('an adopted one likewise', async () => {
    const bench = await openBench({ settings: patient });
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { lostAnswer: true } }] });
    const saga = await bench.provision();
    const adopted = await bench.drive(saga.id, at('wait_droplet_active'));
    expect(adopted.context['droplet_origin']).toBe('adopted');
    bench.sandbox.editDroplet(Number(adopted.context['droplet_id']), { name: 'other', tags: [] });
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('powered off, it is waited for until the wait is over: the saga says so, and is rolled back', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ activateAfterMs: 0 });
    bench.sandbox.editDroplet(dropletId, { status: 'off' });
    await poll(bench, saga.id, patient.maxPolls - 1);
    await bench.ageStep(saga.id, HOUR_MS);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_active', message: expect.stringContaining('was still `off` after 5 polls') } });
  });

  test('powered off after it was seen active, it is registered as it is', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ activateAfterMs: 0 });
    await bench.step(saga.id);
    bench.sandbox.editDroplet(dropletId, { status: 'off', name: 'other' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect((await bench.inventory())[0]).toMatchObject({ status: 'off', name: 'other' });
  });
});

describe('an errored create action', () => {
  const GET_ACTION = 'GET /v2/actions/:actionId';
  const leftNew: Partial<Faults> = { placementFails: 1, placementFailsAfterMs: 0, placementLeavesNew: true };

  test('of a droplet that stays new ends the saga long before the wait is over, with the action named', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ settings: { ...patient, maxPolls: 96 }, faults: leftNew });
    await poll(bench, saga.id, 11);
    expect(requests(bench.sandbox, GET_ACTION)).toBe(0);
    await bench.step(saga.id);
    const failed = await bench.saga(saga.id);
    expect(failed).toMatchObject({ status: 'compensating', error: { code: 'droplet_placement_failed', retryable: false } });
    expect(failed.error?.message).toMatch(new RegExp(`droplet ${dropletId} but could not place it: its create action ${Number(failed.context['create_action_id'])} failed at 2`));
    expect(requests(bench.sandbox, GET_ACTION)).toBe(1);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('of an adopted droplet is found too', async () => {
    const bench = await openBench({ settings: { ...patient, adoptionGraceMs: 20_000 }, faults: leftNew });
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { lostAnswer: true } }] });
    const after = await bench.drive((await bench.provision()).id);
    expect(after).toMatchObject({ status: 'compensated', context: { droplet_origin: 'adopted' }, error: { code: 'droplet_placement_failed' } });
  });

  test('is asked for seven times at most in a whole wait, and never of a droplet that becomes active in time', async () => {
    const { bench, saga } = await waitingSaga({ settings: { ...patient, maxPolls: 96 } });
    await poll(bench, saga.id, 95);
    await bench.ageStep(saga.id, 96 * patient.pollIntervalMs);
    await bench.drive(saga.id);
    expect(requests(bench.sandbox, GET_ACTION)).toBeLessThanOrEqual(7);
    bench.sandbox.clearLedger();
    bench.sandbox.setFaults({ activateAfterMs: 0 });
    await bench.drive((await bench.provision({ name: 'web-2' })).id);
    expect(requests(bench.sandbox, GET_ACTION)).toBe(0);
  });

  test('that cannot be read, or is another droplet\'s, ends nothing: the look counts all the same', async () => {
    const { bench, saga } = await waitingSaga();
    const effects = [{ status: 500 }, { retryAfterS: 3 }, { status: 403 }, { status: 200, body: { action: { id: 1, status: 'errored' } } }] as const;
    await poll(bench, saga.id, 1);
    for (const effect of effects) {
      bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '/v2/actions' }, effect }] });
      await poll(bench, saga.id, 1);
    }
    expect(bench.memo(saga.id)).toEqual({ polls: 5 });
    const action = { id: Number(saga.context['create_action_id']), status: 'errored', type: 'create', resource_id: 7 };
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '/v2/actions' }, effect: { status: 200, body: { action } } }] });
    await poll(bench, saga.id, 5);
    expect((await bench.saga(saga.id)).status).toBe('running');
  });
});

describe('other states', () => {
  test.each(['off', 'hibernating'])('%s is waited out', async (status) => {
    const { bench, saga, dropletId } = await waitingSaga();
    bench.sandbox.editDroplet(dropletId, { status });
    expect(await poll(bench, saga.id, 3)).toContain(status);
    bench.sandbox.editDroplet(dropletId, { status: 'active' });
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('archive is the end: the saga is rolled back, and the droplet destroyed', async () => {
    const { bench, saga, dropletId } = await waitingSaga();
    bench.sandbox.editDroplet(dropletId, { status: 'archive' });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_archived', step: 'wait_droplet_active' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('a droplet that turns out to be somebody else\'s ends the saga', async () => {
    const { bench, saga, dropletId } = await waitingSaga();
    bench.sandbox.editDroplet(dropletId, { tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] });
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'compensating', error: { code: 'droplet_not_ours' } });
  });
});

describe('404', () => {
  test('of a young droplet means that it is not visible yet', async () => {
    const { bench, saga } = await waitingSaga({ activateAfterMs: 0, faults: { notFoundAfterCreateMs: HOUR_MS } });
    expect(await poll(bench, saga.id, 6)).toContain('not visible yet');
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('once, of an older droplet, is not believed', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ settings: { ...patient, maxPolls: 50 } });
    await bench.ageStep(saga.id, 2 * HOUR_MS);
    const missing = { match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, effect: { status: 404, body: { id: 'not_found', message: 'gone' } } } as const;
    for (let round = 0; round < 3; round += 1) {
      bench.sandbox.setFaults({ rules: [{ ...missing, times: 1 }] });
      expect(await poll(bench, saga.id, 1)).toContain('not visible yet');
      // Seen again: what was missed before doesn't count any more.
      expect(await poll(bench, saga.id, 1)).toContain('new');
    }
  });

  test('of a young droplet is believed after the whole grace, and two looks more', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ settings: { ...patient, maxPolls: 50 } });
    bench.sandbox.editDroplet(dropletId, { vanish: true });
    await bench.ageStep(saga.id, 0.99 * HOUR_MS);
    expect(await poll(bench, saga.id, 3)).toContain('not visible yet');
    await bench.ageStep(saga.id, 0.02 * HOUR_MS);
    expect(await poll(bench, saga.id, 1)).toContain('not visible yet');
    await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'compensating', error: { code: 'droplet_gone' } });
  });

  const losses: [string, Partial<Faults>, string][] = [
    ['its placement failed', { placementFails: 1, placementFailsAfterMs: 0 }, 'droplet_placement_failed'],
    ['it vanished', { vanishAfterMs: 0 }, 'droplet_gone'],
  ];
  test.each(losses)('for good (%s) ends the saga, which says so', async (_why, faults, code) => {
    const bench = await openBench({ activateAfterMs: HOUR_MS, faults, settings: { adoptionGraceMs: 100 } });
    const after = await bench.drive((await bench.provision()).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code, step: 'wait_droplet_active' } });
    expect([alive(bench.sandbox), await bench.inventory()]).toEqual([[], []]);
  });
});

describe('the limit', () => {
  test('a droplet that never becomes active: the saga is rolled back after so many polls, and the droplet destroyed', async () => {
    const bench = await openBench({ faults: { neverActive: true }, settings: { pollIntervalMs: 40, maxPolls: 5 } });
    const saga = await bench.provision();
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_active', step: 'wait_droplet_active', retryable: false } });
    expect(requests(bench.sandbox, GET_DROPLET)).toBeGreaterThanOrEqual(5);
    expect(alive(bench.sandbox)).toEqual([]);
    const events = await bench.events(saga.id);
    const [began, ended] = ['create_droplet', 'wait_droplet_active'].map((step) => events.find((event) => event.step === step && /^step_(completed|failed)$/.test(event.kind)));
    expect((ended?.at.getTime() ?? 0) - (began?.at.getTime() ?? 0)).toBeGreaterThanOrEqual(200);
  });

  test('a hundred polls that came early do not bring it on', async () => {
    const { bench, saga } = await waitingSaga();
    await poll(bench, saga.id, 100);
    expect(bench.memo(saga.id)).toEqual({ polls: 100 });
  });

  test('much time without polls does not bring it on: a late wake-up looks first', async () => {
    const { bench, saga } = await waitingSaga();
    await bench.ageStep(saga.id, HOUR_MS);
    await poll(bench, saga.id, patient.maxPolls - 1);
    await bench.step(saga.id);
    expect((await bench.saga(saga.id)).error?.code).toBe('droplet_not_active');
  });

  test('a droplet that is active by the last look is taken, however late that is', async () => {
    const { bench, saga } = await waitingSaga();
    await poll(bench, saga.id, patient.maxPolls - 1);
    await bench.ageStep(saga.id, HOUR_MS);
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('polls that saw nothing do not count: 5xx, resets and time-outs', async () => {
    const { bench, saga } = await waitingSaga({ timeoutMs: 150 });
    await poll(bench, saga.id, 2);
    await bench.ageStep(saga.id, HOUR_MS);
    for (const effect of [{ status: 503 }, { html: 502 }, { reset: true }, { hang: true }, { truncate: true }] as const) {
      bench.sandbox.setFaults({ rules: [{ match: { method: 'GET' }, effect }] });
      await poll(bench, saga.id, 2);
    }
    expect(bench.memo(saga.id)).toEqual({ polls: 2 });
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0 });
  });

  test('429 and 401 are waited out without counting, as long as it takes', async () => {
    const { bench, saga } = await waitingSaga();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET' }, effect: { retryAfterS: 3 } }] });
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'postpone', delayMs: 3_000 });
    bench.sandbox.setFaults({ rules: [], unauthorized: true });
    await poll(bench, saga.id, 8);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0 });
  });

  test('a 429 or a refused token leaves the count of polls as it was', async () => {
    const { bench, saga } = await waitingSaga();
    await poll(bench, saga.id, 3);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET' }, times: 1, effect: { retryAfterS: 1 } }] });
    await poll(bench, saga.id, 1);
    bench.sandbox.setFaults({ unauthorized: true });
    await poll(bench, saga.id, 1);
    expect(bench.memo(saga.id)).toEqual({ polls: 3 });
  });
});

describe('run again and undone', () => {
  test('two workers at once come to the same result', async () => {
    const { bench, saga } = await waitingSaga({ activateAfterMs: 0 });
    await Promise.all([bench.step(saga.id, { name: 'a' }), bench.step(saga.id, { name: 'b' })]);
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect((await bench.history(saga.id)).filter((kind) => kind === 'step_completed')).toHaveLength(3);
  });

  test('a worker that died after it saw the droplet active is followed by one that sees it too', async () => {
    const { bench, saga } = await waitingSaga({ activateAfterMs: 0 });
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('cancelled while it waits: nothing to undo here, and the droplet is destroyed', async () => {
    const { bench, saga } = await waitingSaga();
    await poll(bench, saga.id, 2);
    await bench.cancel(saga.id);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'cancelled', step: 'wait_droplet_active' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('cancelled while it looks: what it saw is not written', async () => {
    const { bench, saga, dropletId } = await waitingSaga({ activateAfterMs: 0 });
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${dropletId}` }, times: 1, effect: { holdAnswerMs: 300 } }] });
    const looking = bench.step(saga.id);
    await bench.cancel(saga.id);
    expect(await looking).toMatchObject({ kind: 'next', job: { direction: 'backward' } });
    expect((await bench.saga(saga.id)).context).not.toHaveProperty('public_ipv4');
    expect((await bench.drive(saga.id)).status).toBe('compensated');
  });
});
