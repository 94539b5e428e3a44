// create_droplet: one droplet for a saga, whatever becomes of the request, its answer, and the worker that sent it.

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Effect, Faults } from '../../src/sandbox/server.ts';
import type { Io } from '../../src/platform/io.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Bench } from './stage.ts';
import { alive, at, idsOf, policy, posts, requests, stepToDeath, tagsFor, useStepStage, web } from './stage.ts';

const openBench = useStepStage();

const POST = { method: 'POST', path: '/v2/droplets' } as const;
const once = (effect: Effect): Partial<Faults> => ({ rules: [{ match: POST, times: 1, effect }] });
const always = (effect: Effect): Partial<Faults> => ({ rules: [{ match: POST, effect }] });
/** Longer than any test. */
const HOUR_MS = 3_600_000;
const twoHoursAgo = () => new Date(Date.now() - 2 * HOUR_MS).toISOString();

/** The I/O of a worker that is frozen for 80 ms when a commit is done, and before it learns so. */
const frozenAfterCommit: Io = async (_kind, name, operation) => {
  const result = await operation();
  if (name === 'store.commit') await sleep(80);
  return result;
};

/** A saga whose droplet is made and recorded, and that is about to undo just that. */
async function madeAndCancelled(bench: Bench): Promise<Saga> {
  const saga = await bench.provision();
  await bench.drive(saga.id, at('wait_droplet_active'));
  await bench.cancel(saga.id);
  return bench.drive(saga.id, at('create_droplet', 'compensating'));
}

/** Somebody who may write rows of sagas puts another droplet on record. */
async function record(bench: Bench, saga: Saga, dropletId: number): Promise<void> {
  await bench.db.sql`update arcadia.sagas set context = context || jsonb_build_object('droplet_id', ${dropletId}::bigint) where id = ${saga.id}`;
}

/** A saga whose droplet stands at DigitalOcean, while the answer to its create is held; `posting` ends with the run of the step. */
async function postUnderWay(bench: Bench, faults: Partial<Faults>) {
  bench.sandbox.setFaults(faults);
  const saga = await bench.provision();
  const posting = bench.step(saga.id);
  await waitFor(() => alive(bench.sandbox)[0], { what: 'the droplet' });
  return { saga, posting };
}

describe('the request', () => {
  test("creates the droplet with the saga's tags, the proof of ownership and the caller's tags", async () => {
    const bench = await openBench();
    const saga = await bench.provision({ tags: ['web', 'env:prod'], user_data: '#cloud-config' });
    await bench.step(saga.id);
    const [droplet] = alive(bench.sandbox);
    expect(droplet).toMatchObject({ name: 'web-1', size_slug: web.size, region: web.region, image: web.image, userDataBytes: 13 });
    expect(droplet?.tags).toEqual([`arcadia-saga-${saga.id.slice(0, 8)}`, 'managed-by-arcadia-cloud', `arcadia-saga-id-${saga.id}`, 'web', 'env:prod', expect.stringMatching(/^arcadia-wave-\d+$/)]);
    const after = await bench.saga(saga.id);
    expect(after.context).toMatchObject({ droplet_id: droplet?.id, droplet_origin: 'created' });
    expect(at('wait_droplet_active')(after)).toBe(true);
  });

  test('needs no look at the lists when nothing was asked for before', async () => {
    const bench = await openBench();
    await bench.step((await bench.provision()).id);
    expect(bench.sandbox.ledger().map((entry) => entry.route)).toEqual(['POST /v2/droplets']);
  });

  test('is announced in Postgres before it is sent', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    expect((await bench.saga(saga.id)).context['create_intents']).toBe(1);
    expect(posts(bench.sandbox)).toBe(0);
  });
});

describe('run again', () => {
  test('two workers with the same job make one droplet', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await Promise.all([bench.step(saga.id, { name: 'a' }), bench.step(saga.id, { name: 'b' })]);
    await bench.drive(saga.id);
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([1, 1]);
  });

  test('a job that is delivered again after its step was done does nothing, and points to the next one', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await bench.step(saga.id);
    const again = await bench.redeliver(saga.id, saga.revision);
    expect(again).toMatchObject({ kind: 'next', job: { step: 'wait_droplet_active' } });
    expect(posts(bench.sandbox)).toBe(1);
  });

  test('a droplet on record is taken as it is', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await bench.db.sql`update arcadia.sagas set context = '{"droplet_id": 4711}' where id = ${saga.id}`;
    await bench.step(saga.id);
    expect((await bench.saga(saga.id)).cursor).toBe(1);
    expect(bench.sandbox.ledger()).toEqual([]);
  });

  test('a worker that died between the POST and the save has its droplet adopted by another', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'after');
    const [made] = alive(bench.sandbox);
    const after = await bench.drive(saga.id, at('wait_droplet_active'));
    expect(after.context).toMatchObject({ droplet_id: made?.id, droplet_origin: 'adopted' });
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([1, 1]);
  });

  test('a worker that died between the announcement and the POST costs a wait, and then there is one POST', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    const early = await bench.step(saga.id);
    expect(early).toMatchObject({ kind: 'postpone', note: expect.stringContaining('before sending another') });
    expect(posts(bench.sandbox)).toBe(0);
    const after = await bench.drive(saga.id);
    expect([after.status, posts(bench.sandbox), alive(bench.sandbox).length]).toEqual(['completed', 1, 1]);
  });
});

describe('an answer that says nothing', () => {
  const unreadable: [string, Effect][] = [
    ['lost', { lostAnswer: true }],
    ['cut in the middle', { truncate: true }],
    ["a gateway's page with 502", { htmlAfterWork: 502 }],
    ["a gateway's page with 504", { htmlAfterWork: 504 }],
    ['without the id', { mangleId: 'missing' }],
    ['with the id as text', { mangleId: 'string' }],
    ['with the id 0', { mangleId: 'zero' }],
    ['with an id beyond 2^53', { mangleId: 'huge' }],
    ['with a negative id', { mangleId: 'negative' }],
  ];
  test.each(unreadable)('%s: the droplet is adopted, with a single POST', async (_title, effect) => {
    const bench = await openBench();
    bench.sandbox.setFaults(once(effect));
    const saga = await bench.provision();
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted', droplet_id: alive(bench.sandbox)[0]?.id } });
    expect([posts(bench.sandbox), bench.sandbox.state().length]).toEqual([1, 1]);
    expect(await bench.history(saga.id)).toContain('step_retried');
  });

  test('that comes after the time limit: the droplet is adopted, with a single POST', async () => {
    const bench = await openBench({ timeoutMs: 200 });
    bench.sandbox.setFaults(once({ holdAnswerMs: 5_000 }));
    const saga = await bench.provision();
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), bench.sandbox.state().length]).toEqual([1, 1]);
  });

  const unworked: [string, Effect][] = [
    ['a connection that is reset', { reset: true }],
    ['a request that hangs', { hang: true }],
    ['a 500', { status: 500, body: { id: 'server_error', message: 'Unexpected server-side error' } }],
    ['a page with 502', { html: 502 }],
  ];
  test.each(unworked)('%s, and no droplet: another is asked for, but not before the grace is over', async (_title, effect) => {
    const bench = await openBench({ timeoutMs: 300, settings: { adoptionGraceMs: 600 } });
    bench.sandbox.setFaults(once(effect));
    const saga = await bench.provision();
    const after = await bench.drive(saga.id);
    expect(after.status).toBe('completed');
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([2, 1]);
    const [first, second] = bench.sandbox.ledger().filter((entry) => entry.method === 'POST');
    expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(550);
  });
});

describe('lists that lag', () => {
  const lags: [string, Partial<Faults>][] = [
    ['lists do not show it yet', { listLagMs: HOUR_MS }],
    ['it has no tags yet', { tagLagMs: HOUR_MS }],
    ['lists by tag leave it out, though it has its tags', { tagIndexLagMs: HOUR_MS }],
  ];
  test.each(lags)('%s: it is adopted once they do, and no other is asked for', async (_title, lag) => {
    const bench = await openBench({ settings: { adoptionGraceMs: 20_000 } });
    bench.sandbox.setFaults({ ...lag, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    // The first sends the request, the others look for its droplet.
    for (let look = 0; look < 5; look += 1) await bench.step(saga.id);
    bench.sandbox.setFaults({ listLagMs: 0, tagLagMs: 0, tagIndexLagMs: 0 });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), bench.sandbox.state().length]).toEqual([1, 1]);
  });

  test("a droplet of the saga's name that has no tags yet holds back another POST beyond the grace", async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 200 } });
    bench.sandbox.setFaults({ tagLagMs: HOUR_MS, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    const startedAt = Date.now();
    while (Date.now() - startedAt < 500) await bench.step(saga.id);
    expect(posts(bench.sandbox)).toBe(1);
    bench.sandbox.setFaults({ tagLagMs: 0 });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect(posts(bench.sandbox)).toBe(1);
  });

  test('beyond the grace another is asked for, and the surplus one is destroyed before the saga completes', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults({ listLagMs: HOUR_MS, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    const between = await bench.drive(saga.id, at('wait_droplet_active'));
    const kept = between.context['droplet_id'];
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([2, 2]);
    bench.sandbox.setFaults({ listLagMs: 0 });
    const after = await bench.drive(saga.id);
    expect([after.status, idsOf(alive(bench.sandbox))]).toEqual(['completed', [kept]]);
  });
});

describe('refusals', () => {
  test('a request that never got a connection is made again, without a look and without the grace', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
    const saga = await bench.provision();
    // Port 9 of the loopback: nobody listens there.
    await bench.step(saga.id, { apiUrl: 'http://127.0.0.1:9' });
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 1 });
    await bench.step(saga.id);
    expect(at('wait_droplet_active')(await bench.saga(saga.id))).toBe(true);
    expect(bench.sandbox.ledger().map((entry) => entry.route)).toEqual(['POST /v2/droplets']);
  });

  test('429: the saga waits as long as it is told, uses no attempt, and asks later', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
    bench.sandbox.setFaults({ rules: [{ match: POST, times: 7, effect: { retryAfterS: 7 } }] });
    const saga = await bench.provision();
    const verdict = await bench.step(saga.id);
    expect(verdict).toMatchObject({ kind: 'next', job: { step: 'create_droplet', delayMs: 7_000 } });
    for (let more = 0; more < 6; more += 1) await bench.step(saga.id);
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0 });
    await bench.step(saga.id);
    expect(at('wait_droplet_active')(await bench.saga(saga.id))).toBe(true);
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([8, 1]);
  });

  const tokens: [string, Partial<Faults>][] = [
    ['401', { unauthorized: true }],
    ['403', always({ status: 403, body: { id: 'forbidden', message: 'You are not authorized to perform this operation' } })],
  ];
  test.each(tokens)('%s: the saga holds on, without an attempt and without a rollback, until the token is good', async (_status, faults) => {
    const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
    bench.sandbox.setFaults(faults);
    const saga = await bench.provision();
    for (let look = 0; look < policy.stepAttempts + 3; look += 1) {
      expect(await bench.step(saga.id)).toMatchObject({ kind: 'next', note: expect.stringMatching(/waits, next attempt in/) });
    }
    expect(await bench.saga(saga.id)).toMatchObject({ status: 'running', attempt: 0, error: null });
    const last = (await bench.events(saga.id)).at(-1);
    expect(last?.detail['reason']).toContain('DIGITALOCEAN_TOKEN');
    bench.sandbox.resetFaults();
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(alive(bench.sandbox)).toHaveLength(1);
  });

  test("422: the saga is rolled back at once, and its error is DigitalOcean's own words", async () => {
    const bench = await openBench({ dropletLimit: 0 });
    const saga = await bench.provision();
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'digitalocean_rejected', step: 'create_droplet', retryable: false } });
    expect(after.error?.message).toContain('creating this/these droplet(s) will exceed your droplet limit');
    expect([posts(bench.sandbox), bench.sandbox.state()]).toEqual([1, []]);
    expect(requests(bench.sandbox, 'GET /v2/droplets?tag_name')).toBe(0);
  });

  test('no answer, again and again: the saga ends rolled back, with no droplet', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 80 } });
    bench.sandbox.setFaults(always({ html: 502 }));
    const after = await bench.drive((await bench.provision()).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'digitalocean_ambiguous' } });
    expect([posts(bench.sandbox), bench.sandbox.state()]).toEqual([policy.stepAttempts, []]);
  });

  test('every answer lost, and lists that show nothing until the rollback: all droplets are destroyed', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 80 } });
    bench.sandbox.setFaults({ listLagMs: HOUR_MS, ...always({ lostAnswer: true }) });
    const saga = await bench.provision();
    await bench.drive(saga.id, ({ status }) => status === 'compensating');
    expect(alive(bench.sandbox)).toHaveLength(policy.stepAttempts);
    bench.sandbox.setFaults({ listLagMs: 0 });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });
});

describe('whose droplet', () => {
  const foreign: [string, (tags: string[]) => { name: string; tags: string[]; created_at?: string }][] = [
    ['with our short tag and another name', ([short = '']) => ({ name: 'other', tags: [short] })],
    ['with our short tag and the full id of another saga', ([short = '']) => ({ name: 'web-1', tags: [short, 'arcadia-saga-id-00000000-0000-4000-8000-000000000000'] })],
    ['with our short tag, made before the saga began', ([short = '']) => ({ name: 'web-1', tags: [short], created_at: twoHoursAgo() })],
    ['with our name, made before the saga began', () => ({ name: 'web-1', tags: [], created_at: twoHoursAgo() })],
    ['with our name, of another arcadia saga', () => ({ name: 'web-1', tags: ['managed-by-arcadia-cloud'] })],
  ];
  test.each(foreign)('a droplet %s is neither adopted nor destroyed', async (_title, make) => {
    const bench = await openBench({ settings: { adoptionGraceMs: 150 } });
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    const other = bench.sandbox.addForeignDroplet(make(tagsFor(saga)));
    const between = await bench.drive(saga.id, at('wait_droplet_active'));
    expect(between.context).toMatchObject({ droplet_origin: 'created' });
    expect(between.context['droplet_id']).not.toBe(other.id);
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(idsOf(alive(bench.sandbox))).toEqual([other.id]);
  });

  test('a droplet that another saga registered is neither adopted nor destroyed', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 150 } });
    const first = await bench.drive((await bench.provision()).id);
    const taken = Number(first.context['droplet_id']);
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    bench.sandbox.editDroplet(taken, { tags: [`arcadia-saga-${saga.saga8}`] });
    const after = await bench.drive(saga.id, at('wait_droplet_active'));
    expect(after.context['droplet_id']).not.toBe(taken);
    await bench.cancel(saga.id);
    await bench.drive(saga.id);
    expect(idsOf(alive(bench.sandbox))).toEqual([taken]);
  });

  test('a droplet of our name that never gets a tag is left alone: the saga gives up, and names it', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 60 } });
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    const other = bench.sandbox.addForeignDroplet({ name: 'web-1' });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_unproven' } });
    expect(after.error?.message).toContain(String(other.id));
    expect([posts(bench.sandbox), idsOf(alive(bench.sandbox))]).toEqual([1, [other.id]]);
  });

  test('of three droplets with our full id the lowest is adopted, and the others are destroyed', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    const ours = [1, 2, 3].map(() => bench.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsFor(saga) }).id);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_id: Math.min(...ours), droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), idsOf(alive(bench.sandbox))]).toEqual([1, [Math.min(...ours)]]);
  });

  test('a droplet with our full id is adopted rather than an older one with the short tag alone, which is left alone', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    const older = bench.sandbox.addForeignDroplet({ name: 'web-1', tags: [`arcadia-saga-${saga.saga8}`] }).id;
    const proven = bench.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsFor(saga) }).id;
    expect(older).toBeLessThan(proven);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_id: proven, droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), idsOf(alive(bench.sandbox))]).toEqual([1, [older, proven]]);
  });

  test('of three droplets with our full id none is left when the saga is cancelled', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    for (let made = 0; made < 3; made += 1) bench.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsFor(saga) });
    await bench.drive(saga.id, at('wait_droplet_active'));
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('it is found on the second page of the list, and a next page on another host is not followed', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults({ nextHost: '127.0.0.1:9', ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    for (let made = 0; made < 230; made += 1) bench.sandbox.addForeignDroplet({ name: `other-${made}`, tags: [`arcadia-saga-${saga.saga8}`] });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([1, 231]);
    expect(bench.sandbox.ledger().some((entry) => entry.query['page'] === '2')).toBe(true);
  });

  test('a GPU droplet is adopted though lists by tag leave it out', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults({ hideGpuFromTagLists: true, ...once({ lostAnswer: true }) });
    const saga = await bench.provision({ size: 'gpu-h100x1-80gb', region: 'tor1', image: 'gpu-h100x1-base' });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([1, 1]);
  });
});

describe('cancelled', () => {
  test('before it began: there is nothing to undo', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    expect((await bench.cancel(saga.id)).status).toBe('compensated');
    expect(await bench.step(saga.id)).toMatchObject({ kind: 'complete' });
    expect(bench.sandbox.ledger()).toEqual([]);
  });

  test('after it began, and before anything was announced: DigitalOcean is not asked for anything', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await bench.ask(saga.id, { kind: 'started' });
    await bench.cancel(saga.id);
    const after = await bench.drive(saga.id);
    expect([after.status, bench.sandbox.ledger()]).toEqual(['compensated', []]);
  });

  test('between the announcement and the POST: no POST, no droplet', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect([posts(bench.sandbox), bench.sandbox.state()]).toEqual([0, []]);
  });

  test('after an answer was lost: the droplet is found and destroyed', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(once({ lostAnswer: true }));
    const saga = await bench.provision();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect([bench.sandbox.state().length, alive(bench.sandbox)]).toEqual([1, []]);
  });

  test('after an answer was lost, with lists that lag: the rollback outlasts the lag', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 20_000 } });
    bench.sandbox.setFaults({ listLagMs: HOUR_MS, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    for (let look = 0; look < 5; look += 1) await bench.step(saga.id);
    expect((await bench.saga(saga.id)).status).toBe('compensating');
    bench.sandbox.setFaults({ listLagMs: 0 });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('after an answer was lost, with nothing to be found: the rollback looks for the whole grace', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    await bench.ageCreate(saga.id, 0.99 * HOUR_MS);
    await bench.step(saga.id);
    expect((await bench.saga(saga.id)).status).toBe('compensating');
    await bench.ageCreate(saga.id, 1.01 * HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
  });

  test('after an answer was lost, with tags that come later than the grace: the rollback waits for them as long as a create would', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 200 } });
    bench.sandbox.setFaults({ tagLagMs: HOUR_MS, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    const startedAt = Date.now();
    while (Date.now() - startedAt < 500) await bench.step(saga.id);
    expect((await bench.saga(saga.id)).status).toBe('compensating');
    bench.sandbox.setFaults({ tagLagMs: 0 });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test.each([
    ['no tag at all', () => []],
    ['the tag of the saga alone', ({ saga8 }: { saga8: string }) => [`arcadia-saga-${saga8}`]],
  ])('after an answer was lost, beside a droplet of our name with %s: the rollback waits, ends, and names it', async (_what, tagsThere) => {
    const bench = await openBench({ settings: { adoptionGraceMs: 60 } });
    bench.sandbox.setFaults(once({ reset: true }));
    const saga = await bench.provision();
    const startedAt = Date.now();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    const { id } = bench.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsThere(saga) });
    const after = await bench.drive(saga.id);
    // Ten grace periods, as for a create.
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(590);
    expect(after).toMatchObject({ status: 'compensated', context: { unproven_droplets: [id] } });
    const [compensated] = (await bench.events(saga.id)).filter(({ kind }) => kind === 'compensation_completed').toReversed();
    expect(JSON.stringify(compensated?.detail)).toContain(`droplet ${id} may belong to this saga`);
    expect(idsOf(alive(bench.sandbox))).toEqual([id]);
  });

  test('while the POST is under way, and the saga\'s row is lost: what was just made is destroyed', async () => {
    const bench = await openBench();
    const { saga, posting } = await postUnderWay(bench, once({ holdAnswerMs: 400 }));
    await bench.db.sql`delete from arcadia.sagas where id = ${saga.id}`;
    expect(await posting).toMatchObject({ kind: 'complete', note: 'the saga no longer exists' });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('while the POST is under way: what was just made is destroyed', async () => {
    const bench = await openBench();
    const { saga, posting } = await postUnderWay(bench, once({ holdAnswerMs: 400 }));
    await bench.cancel(saga.id);
    expect(await posting).toMatchObject({ kind: 'next', job: { direction: 'backward', step: 'create_droplet' } });
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
  });

  test('while the POST is under way, and rolled back before its answer comes: no droplet is left', async () => {
    const bench = await openBench();
    const { saga, posting } = await postUnderWay(bench, once({ holdAnswerMs: 1_000 }));
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(await posting).toMatchObject({ kind: 'complete' });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('while the POST is under way, and rolled back without having seen the droplet: it is destroyed by who made it', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 100 } });
    const { saga, posting } = await postUnderWay(bench, { listLagMs: HOUR_MS, ...once({ holdAnswerMs: 1_000 }) });
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toHaveLength(1);
    await posting;
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('after the droplet was recorded: it is destroyed', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await bench.drive(saga.id, at('wait_droplet_active'));
    await bench.cancel(saga.id);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect([posts(bench.sandbox), alive(bench.sandbox)]).toEqual([1, []]);
  });
});

describe('a worker that was left behind', () => {
  test('after its announcement was committed sends no create: its claim counts from before the commit', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    expect(await bench.step(saga.id, { io: frozenAfterCommit, claimMs: 50 })).toMatchObject({ kind: 'next', job: { step: 'create_droplet' } });
    expect([(await bench.saga(saga.id)).context['create_intents'], posts(bench.sandbox)]).toEqual([1, 0]);
    const after = await bench.drive(saga.id);
    expect([after.status, posts(bench.sandbox), alive(bench.sandbox).length]).toEqual(['completed', 1, 1]);
  });

  test('finds its droplet adopted by another worker, and leaves it alone', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(once({ holdAnswerMs: 600 }));
    const saga = await bench.provision();
    const slow = bench.step(saga.id, { name: 'slow' });
    await waitFor(() => alive(bench.sandbox)[0], { what: 'the droplet' });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    await slow;
    expect([posts(bench.sandbox), idsOf(alive(bench.sandbox))]).toEqual([1, [after.context['droplet_id']]]);
  });

  test('finds another droplet on record, and destroys the one it made', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 100 } });
    bench.sandbox.setFaults({ listLagMs: HOUR_MS, ...once({ holdAnswerMs: 1_200 }) });
    const saga = await bench.provision();
    const slow = bench.step(saga.id, { name: 'slow' });
    await waitFor(() => alive(bench.sandbox)[0], { what: 'the droplet' });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'created' } });
    expect(alive(bench.sandbox)).toHaveLength(2);
    await slow;
    expect(idsOf(alive(bench.sandbox))).toEqual([after.context['droplet_id']]);
  });

  test('finds no droplet on record, and leaves its own to be adopted', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 100 } });
    const rules = [
      { match: POST, times: 1, effect: { holdAnswerMs: 1_200 } },
      { match: POST, times: 1, effect: { reset: true } },
    ] as const;
    bench.sandbox.setFaults({ listLagMs: HOUR_MS, rules: [...rules] });
    const saga = await bench.provision();
    const slow = bench.step(saga.id, { name: 'slow' });
    const made = await waitFor(() => alive(bench.sandbox)[0], { what: 'the droplet' });
    await bench.drive(saga.id, ({ attempt }) => attempt === 1);
    await slow;
    expect(idsOf(alive(bench.sandbox))).toEqual([made.id]);
    bench.sandbox.setFaults({ listLagMs: 0 });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_id: made.id } });
    expect([posts(bench.sandbox), alive(bench.sandbox).length]).toEqual([2, 1]);
  });
});

describe('undoing it', () => {
  test('twice: a worker that died after the DELETE is followed by another, which finds it done', async () => {
    const bench = await openBench();
    const saga = await madeAndCancelled(bench);
    await stepToDeath(bench, saga.id, 'sql store.commit', 'before');
    expect(alive(bench.sandbox)).toEqual([]);
    expect((await bench.drive(saga.id)).status).toBe('compensated');
  });

  test('a droplet that is gone already counts as undone', async () => {
    const bench = await openBench();
    const saga = await madeAndCancelled(bench);
    bench.sandbox.editDroplet(Number(saga.context['droplet_id']), { vanish: true });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
  });

  const early: [string, Partial<Faults>][] = [
    ['refused with 422', { earlyDelete: '422' }],
    ['accepted, and not done', { earlyDelete: 'ignored' }],
    ['answered 404', { deleteNotFoundAfterCreateMs: HOUR_MS }],
  ];
  test.each(early)('a DELETE of the recorded droplet that is %s while it is young is made again until the droplet is gone', async (_title, faults) => {
    const bench = await openBench({ activateAfterMs: HOUR_MS, settings: { adoptionGraceMs: 20_000 } });
    bench.sandbox.setFaults(faults);
    const saga = await madeAndCancelled(bench);
    for (let look = 0; look < 3; look += 1) await bench.step(saga.id);
    expect([(await bench.saga(saga.id)).status, alive(bench.sandbox).length]).toEqual(['compensating', 1]);
    bench.sandbox.resetFaults();
    // What was absent for a moment is looked for until the grace is over.
    await bench.db.sql`update arcadia.sagas set context = context || '{"create_intent_at": "2020-01-01T00:00:00.000Z"}' where id = ${saga.id}`;
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('a DELETE that is answered 404 while the list shows the droplet (its answer was lost) does not end the rollback', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 20_000 } });
    bench.sandbox.setFaults({ deleteNotFoundAfterCreateMs: HOUR_MS, ...once({ lostAnswer: true }) });
    const saga = await bench.provision();
    await bench.step(saga.id);
    await bench.cancel(saga.id);
    for (let look = 0; look < 3; look += 1) await bench.step(saga.id);
    expect([(await bench.saga(saga.id)).status, alive(bench.sandbox).length]).toEqual(['compensating', 1]);
    bench.sandbox.setFaults({ deleteNotFoundAfterCreateMs: 0 });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('while DigitalOcean is out of reach, the rollback waits without using an attempt', async () => {
    const bench = await openBench();
    const saga = await madeAndCancelled(bench);
    bench.sandbox.setFaults({ down: true });
    const waits: number[] = [];
    for (let look = 0; look < policy.compensationAttempts + 4; look += 1) {
      const verdict = await bench.step(saga.id);
      if (verdict.kind !== 'postpone') throw new Error(`expected a wait, found ${verdict.kind}: ${verdict.note}`);
      waits.push(verdict.delayMs);
    }
    expect(waits.slice(0, 4)).toEqual([2_000, 4_000, 8_000, 16_000]);
    expect(waits.at(-1)).toBe(60_000);
    bench.sandbox.resetFaults();
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('destroys the droplet on record though somebody renamed it and took its tags away', async () => {
    const bench = await openBench();
    const saga = await madeAndCancelled(bench);
    bench.sandbox.editDroplet(Number(saga.context['droplet_id']), { name: 'renamed-by-hand', tags: [] });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('leaves a droplet on record that is older than the saga to a person, and destroys its own', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 150 } });
    const foreign = bench.sandbox.addForeignDroplet({ name: 'foreign', created_at: twoHoursAgo() }).id;
    const saga = await madeAndCancelled(bench);
    await record(bench, saga, foreign);
    const after = await bench.drive(saga.id);
    expect([after.status, after.context['unproven_droplets'], idsOf(alive(bench.sandbox))]).toEqual(['compensated', [foreign], [foreign]]);
    expect(JSON.stringify(await bench.events(saga.id))).toContain(`droplet ${foreign} left alone: it was created at`);
  });

  test('destroys the droplet on record that only a slower clock makes older than the saga', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 150 } });
    const ours = bench.sandbox.addForeignDroplet({ name: 'renamed-by-hand', created_at: new Date(Date.now() - 30_000).toISOString() }).id;
    const saga = await madeAndCancelled(bench);
    await record(bench, saga, ours);
    const after = await bench.drive(saga.id);
    expect([after.status, after.context['unproven_droplets'], alive(bench.sandbox).map(({ id }) => id).includes(ours)]).toEqual(['compensated', undefined, false]);
  });

  test('leaves a droplet on record alone that another saga registered, though it carries no tag any more', async () => {
    const bench = await openBench({ settings: { adoptionGraceMs: 150 } });
    const saga = await madeAndCancelled(bench);
    const taken = Number((await bench.drive((await bench.provision({ name: 'web-2' })).id)).context['droplet_id']);
    bench.sandbox.editDroplet(taken, { tags: [] });
    await record(bench, saga, taken);
    const after = await bench.drive(saga.id);
    expect([after.status, after.context['unproven_droplets'], idsOf(alive(bench.sandbox))]).toEqual(['compensated', undefined, [taken]]);
  });

  test('that fails for good leaves the saga stuck, and a retry resumes it', async () => {
    const bench = await openBench();
    const saga = await madeAndCancelled(bench);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked.' } } }] });
    const stuck = await bench.drive(saga.id);
    expect([stuck.status, stuck.attempt, alive(bench.sandbox).length]).toEqual(['stuck', policy.compensationAttempts, 1]);
    expect((await bench.events(saga.id)).at(-1)).toMatchObject({ kind: 'compensation_stuck', detail: { message: expect.stringContaining('Droplet is locked.') } });
    bench.sandbox.resetFaults();
    await bench.ask(saga.id, { kind: 'retry_requested', by: 'test' });
    expect((await bench.drive(saga.id)).status).toBe('compensated');
    expect(alive(bench.sandbox)).toEqual([]);
  });
});
