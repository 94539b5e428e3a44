// `adopt_droplet`: takes a droplet that was made by hand under management. It changes tags alone, takes nobody's droplet, and its undo
// leaves the droplet as it was.
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { Priority, RequestBudget } from '../../src/do/budget.ts';
import { uncounted } from '../../src/do/budget.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Bench } from './stage.ts';
import { Killed, alive, at, idsOf, mortalAt, stepToDeath, tagsFor, useStepStage, web } from './stage.ts';

const stage = useStepStage();

const handMade = (bench: Bench, more: { name?: string; tags?: string[] } = {}) => bench.sandbox.addForeignDroplet({ name: 'by-hand', tags: ['theirs'], ...more }).id;
const tagsOn = (bench: Bench, id: number) => bench.sandbox.state().find((line) => line.id === id)?.tags.toSorted();
const adoptionTags = (saga: Pick<Saga, 'id'>) => [`arcadia-adopted-${saga.id}`, 'managed-by-arcadia-cloud'];
const ownTags = (saga: Pick<Saga, 'id'>) => [...adoptionTags(saga), 'theirs'].toSorted();
/** What was asked of DigitalOcean beside looks. */
const changes = (bench: Bench) => bench.sandbox.ledger().filter(({ method }) => method !== 'GET').map(({ method, path }) => `${method} ${path.replace(/^\/v2\/tags\/[^/]+/, '/v2/tags/…')}`);
const rowOf = async (bench: Bench, id: number) => (await bench.inventory()).find(({ providerId }) => providerId === String(id));
const isOnRecord = async (bench: Bench, id: number) => typeof (await rowOf(bench, id))?.provisionedBy === 'string';
/** How it ended, and what became of the droplet. */
const endOf = async (bench: Bench, id: number, { status }: Saga) => [status, idsOf(alive(bench.sandbox)), tagsOn(bench, id), await isOnRecord(bench, id), (await rowOf(bench, id))?.deletedAt ?? null];
const leftAlone = (id: number) => ['compensated', [id], ['theirs'], false, null];

describe('a droplet that was made by hand', () => {
  test('is tagged, put on record as it is, and changed in nothing else; then it is destroyed as any of ours', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const saga = await bench.drive((await bench.adopt(id, { protected: true })).id);
    expect(saga).toMatchObject({ status: 'completed', resource: `droplet:${id}`, context: { droplet_id: id } });
    expect(tagsOn(bench, id)).toEqual(ownTags(saga));
    expect(await rowOf(bench, id)).toMatchObject({ id: saga.context['cloud_resource_id'], provisionedBy: `saga:${saga.id}`, protected: true, deletedAt: null, spec: { size_slug: 's-1vcpu-1gb', region: 'nyc3', image: expect.any(String) } });
    expect(changes(bench)).toEqual(['POST /v2/tags', 'POST /v2/tags', 'POST /v2/tags/…/resources', 'POST /v2/tags/…/resources']);
    await bench.db.sql`update arcadia.cloud_provisioned set protected = false`;
    expect(await bench.drive((await bench.destroy(id)).id)).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('that is switched off is wanted that way, and a tag that others spell in another way is used as it is spelled', async () => {
    const bench = await stage();
    handMade(bench, { tags: ['Managed-By-Arcadia-Cloud'] });
    const id = handMade(bench);
    await fetch(`${bench.sandbox.url}/v2/droplets/${id}/actions`, { method: 'POST', headers: { authorization: 'Bearer x', 'content-type': 'application/json' }, body: '{"type":"power_off"}' });
    await expect.poll(() => bench.sandbox.state().find((line) => line.id === id)?.status, { timeout: 30_000 }).toBe('off');
    const saga = await bench.drive((await bench.adopt(id)).id);
    expect([saga.status, tagsOn(bench, id)]).toEqual(['completed', [`arcadia-adopted-${saga.id}`, 'Managed-By-Arcadia-Cloud', 'theirs'].toSorted()]);
    expect((await rowOf(bench, id))?.spec).toMatchObject({ power_state: 'off' });
    await bench.drive((await bench.destroy(id)).id);
    expect(alive(bench.sandbox)).toHaveLength(1);
  });
});

/** A budget that tells what was drawn from it for requests that change something. It refuses those whose numbers are given. */
function budgetWithout(...refused: number[]): { budget: RequestBudget; drawn: Priority[] } {
  const drawn: Priority[] = [];
  const budget: RequestBudget = {
    draw: async (priority, { method, path }) => {
      if (method === 'GET') return Promise.resolve(uncounted);
      drawn.push(priority);
      if (!refused.includes(drawn.length)) return Promise.resolve(uncounted);
      throw new DigitalOceanError('no budget', { kind: 'throttled', code: 'request_budget', status: null, requestId: null, retryAfterMs: 1_000, method, path });
    },
    withdraw: async () => Promise.resolve(),
    answered: () => undefined,
    left: () => null,
  };
  return { budget, drawn };
}

describe('waits for one turn among creates', () => {
  test('and its other requests go before creates', async () => {
    const { budget, drawn } = budgetWithout();
    const bench = await stage({ budget });
    expect(await bench.drive((await bench.adopt(handMade(bench))).id)).toMatchObject({ status: 'completed' });
    expect(drawn).toEqual(['create', 'destroy', 'destroy', 'destroy']);
  });

  test.each([
    ['second', [2], ['create', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy']],
    ['third, and then the next', [3, 4], ['create', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy']],
    ['fourth, when the droplet has one tag', [4], ['create', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy', 'destroy']],
  ] as const)('even if there is no budget for the %s', async (_which, refused, expected) => {
    const { budget, drawn } = budgetWithout(...refused);
    const bench = await stage({ budget });
    const id = handMade(bench);
    const saga = await bench.drive((await bench.adopt(id)).id);
    expect([saga.status, tagsOn(bench, id)]).toEqual(['completed', ownTags(saga)]);
    expect(drawn).toEqual(expected);
  });

  test('and waits for it again if the first request was refused', async () => {
    const { budget, drawn } = budgetWithout(1, 2);
    const bench = await stage({ budget });
    expect(await bench.drive((await bench.adopt(handMade(bench))).id)).toMatchObject({ status: 'completed' });
    expect(drawn).toEqual(['create', 'create', 'create', 'destroy', 'destroy', 'destroy']);
  });
});

describe('is refused, and nothing is done,', () => {
  test('for an id that is none', async () => {
    const bench = await stage();
    const saga = await bench.drive((await bench.adopt(99)).id);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'droplet_unknown' } });
    expect(changes(bench)).toEqual([]);
  });

  test('for a droplet that is ours already: its tags and its record stay', async () => {
    const bench = await stage();
    const made = await bench.drive((await bench.provision()).id);
    const id = Number(made.context['droplet_id']);
    const before = [tagsOn(bench, id), await rowOf(bench, id)];
    for (let time = 0; time < 2; time += 1) expect(await bench.drive((await bench.adopt(id)).id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_already_managed' } });
    expect([tagsOn(bench, id), await rowOf(bench, id)]).toEqual(before);
    const adopted = handMade(bench);
    const first = await bench.drive((await bench.adopt(adopted)).id);
    expect(await bench.drive((await bench.adopt(adopted)).id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_already_managed', message: expect.stringContaining(first.id) } });
    expect([tagsOn(bench, adopted), await isOnRecord(bench, adopted)]).toEqual([ownTags(first), true]);
  });

  test.each([
    ['the id of another saga', 'arcadia-saga-id-00000000-0000-4000-8000-000000000000'],
    ['the short id of another saga, in capitals', 'Arcadia-Saga-00000000'],
    ['the tag of another adoption', 'arcadia-adopted-00000000-0000-4000-8000-000000000000'],
    ['the tag of a wave', 'arcadia-wave-17'],
    ['the tag of all managed droplets alone', 'managed-by-arcadia-cloud'],
  ])('for a droplet with %s', async (_what, tag) => {
    const bench = await stage();
    const id = handMade(bench, { tags: ['theirs', tag] });
    const saga = await bench.drive((await bench.adopt(id)).id);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours', message: expect.stringContaining(tag) } });
    expect([changes(bench), tagsOn(bench, id), await isOnRecord(bench, id)]).toEqual([[], ['theirs', tag].toSorted(), false]);
  });

  test('for a droplet that a saga has created and not registered yet, though DigitalOcean does not show its tags', async () => {
    const bench = await stage();
    bench.sandbox.setFaults({ tagLagMs: 60_000 });
    const { id: provisionId } = await bench.provision();
    await bench.drive(provisionId, at('register_droplet'));
    const [id = 0] = idsOf(alive(bench.sandbox));
    // No other saga may work on it meanwhile: what is asked of the step is asked for the time before that is known.
    await bench.db.sql`update arcadia.sagas set resource = null`;
    expect(await bench.drive((await bench.adopt(id)).id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_already_managed', message: expect.stringContaining(`is being provisioned by saga ${provisionId}`) } });
    expect(changes(bench).filter((one) => one.includes('tags'))).toEqual([]);
  });

  test('while a create of the same name has no answer, or the droplet is being created', async () => {
    const bench = await stage({ settings: { maxPolls: 2 } });
    const provision = await bench.provision();
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, effect: { lostAnswer: true } }], tagLagMs: 60_000, tagIndexLagMs: 60_000 });
    await bench.step(provision.id);
    const [made] = idsOf(alive(bench.sandbox));
    expect(await bench.drive((await bench.adopt(made ?? 0)).id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_free', message: expect.stringContaining(provision.id) } });
    bench.sandbox.resetFaults();
    bench.sandbox.setFaults({ neverActive: true });
    const young = await fetch(`${bench.sandbox.url}/v2/droplets`, { method: 'POST', headers: { authorization: 'Bearer x' }, body: JSON.stringify({ ...web, name: 'young' }) });
    expect(young.status).toBe(202);
    const id = bench.sandbox.state({ name: 'young' })[0]?.id ?? 0;
    expect(await bench.drive((await bench.adopt(id)).id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_free', message: expect.stringContaining('still being created') } });
    expect(changes(bench).filter((one) => one.includes('tags'))).toEqual([]);
  });
});

describe('rolled back, it leaves the droplet as it was', () => {
  test.each(['tag_droplet', 'register_adopted_droplet'])('after a cancel at %s', async (step) => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    if (step === 'tag_droplet') await stepToDeath(bench, sagaId, 'http POST /v2/tags/{name}/resources', 'after');
    else await bench.drive(sagaId, at(step));
    await bench.cancel(sagaId);
    expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
    // As its tag is on nothing, it is gone from the account.
    expect((await fetch(`${bench.sandbox.url}/v2/tags/arcadia-adopted-${sagaId}`, { headers: { authorization: 'Bearer x' } })).status).toBe(404);
    expect((await bench.drive((await bench.adopt(id)).id)).status).toBe('completed');
  });

  test('after a cancel while the record is being written', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    await bench.drive(sagaId, at('register_adopted_droplet'));
    await stepToDeath(bench, sagaId, 'sql inventory.register', 'after');
    await bench.cancel(sagaId);
    expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
  });

  test('when another fleet tagged it at the same moment: theirs stay, with the tag that both put there', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    const theirs = 'arcadia-adopted-00000000-0000-4000-8000-000000000000';
    await stepToDeath(bench, sagaId, 'http POST /v2/tags/{name}/resources', 'after');
    bench.sandbox.editDroplet(id, { tags: ['theirs', theirs, ...adoptionTags({ id: sagaId })] });
    expect(await bench.drive(sagaId)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours', message: expect.stringContaining(theirs) } });
    expect([tagsOn(bench, id), await isOnRecord(bench, id)]).toEqual([[theirs, 'managed-by-arcadia-cloud', 'theirs'].toSorted(), false]);
  });

  test('where a request to tag it had no answer and takes effect only after the rollback began', async () => {
    const bench = await stage({ timeoutMs: 600, settings: { adoptionGraceMs: 2_500 } });
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '^/v2/tags/.*/resources$' }, times: 1, effect: { delayMs: 1_500 } }] });
    await bench.drive(sagaId, ({ context }) => context['tag_droplet.tags.sends'] !== undefined);
    await bench.cancel(sagaId);
    expect(tagsOn(bench, id)).toEqual(['theirs']);
    expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
    expect(changes(bench).at(-2)).toBe('DELETE /v2/tags/…/resources');
  });

  test.each([
    ['and shows them in the end', 3],
    ['and never shows them', 10_000],
  ])('where DigitalOcean has accepted the tags, does not show them yet, %s', async (_what, times) => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    await bench.drive(sagaId, at('register_adopted_droplet'));
    await bench.cancel(sagaId);
    const stale = await fetch(`${bench.sandbox.url}/v2/droplets/${id}`, { headers: { authorization: 'Bearer x' } });
    const body = z.object({ droplet: z.looseObject({ tags: z.array(z.string()) }) }).parse(await stale.json());
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${id}` }, times, effect: { status: 200, body: { droplet: { ...body.droplet, tags: ['theirs'] } } } }] });
    expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
  });

  test('where the look before the tags are taken off says 404 once', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    await bench.drive(sagaId, at('register_adopted_droplet'));
    await bench.cancel(sagaId);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${id}` }, times: 1, effect: { status: 404 } }] });
    expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
  });

  test.each([
    ['its own tag is gone by then', false, 1],
    ['its own tag is still in the account', true, 1],
    ['between its two tags', false, 2],
    ['between its two tags, its own tag still in the account', true, 2],
  ])('by a worker that was too slow: the tags that it puts there after the rollback are taken off (%s)', async (_what, keepsTag, nth) => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    if (keepsTag) bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE', path: '^/v2/tags/[^/]+$' }, effect: { status: 500 } }] });
    let requests = 0;
    const late = await bench.step(sagaId, {
      io: async (kind, name, operation) => {
        if (`${kind} ${name}` === 'http POST /v2/tags/{name}/resources' && (requests += 1) === nth) {
          await bench.cancel(sagaId);
          await bench.drive(sagaId);
        }
        return operation();
      },
    });
    expect(late.kind).toBe('complete');
    expect(await endOf(bench, id, await bench.saga(sagaId))).toEqual(leftAlone(id));
  });
});

test('a rollback that finds one of the two tags waits for the other before it is over', async () => {
  const bench = await stage({ settings: { adoptionGraceMs: 2_500 } });
  const id = handMade(bench);
  const { id: sagaId } = await bench.adopt(id);
  // A worker that was stopped between the tags: its second request is still on its way.
  await stepToDeath(bench, sagaId, 'http POST /v2/tags/{name}/resources', 'after');
  await bench.cancel(sagaId);
  const [own = '', common = ''] = adoptionTags({ id: sagaId });
  expect(tagsOn(bench, id)).toEqual([own, 'theirs']);
  const first = await bench.step(sagaId);
  expect(first).toMatchObject({ kind: 'postpone', note: expect.stringContaining('waiting until DigitalOcean shows the tags') });
  bench.sandbox.editDroplet(id, { tags: ['theirs', own, common] });
  expect(await endOf(bench, id, await bench.drive(sagaId))).toEqual(leftAlone(id));
});

describe('when something fails on the way', () => {
  test.each(['http GET /v2/droplets/{id}', 'sql store.commit', 'http POST /v2/tags', 'http POST /v2/tags/{name}/resources', 'sql inventory.register'])('a worker that dies at %s is replaced by another, and nothing is done twice', async (fatal) => {
    for (const when of ['before', 'after'] as const) {
      const bench = await stage();
      const id = handMade(bench);
      const { id: sagaId } = await bench.adopt(id);
      if (fatal === 'sql inventory.register') await bench.drive(sagaId, at('register_adopted_droplet'));
      await expect(bench.step(sagaId, { io: mortalAt(fatal, when) })).rejects.toThrow(Killed);
      const saga = await bench.drive(sagaId);
      expect([saga.status, tagsOn(bench, id), await isOnRecord(bench, id)]).toEqual(['completed', ownTags(saga), true]);
    }
  });

  test.each([{ lostAnswer: true }, { htmlAfterWork: 502 }, { status: 500 }] as const)('a request to tag it that ends with %j is repeated, if it did nothing', async (effect) => {
    const bench = await stage();
    const id = handMade(bench);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '^/v2/tags/.*/resources$' }, times: 1, effect }] });
    const saga = await bench.drive((await bench.adopt(id)).id);
    expect([saga.status, tagsOn(bench, id)]).toEqual(['completed', ownTags(saga)]);
  });

  test('a droplet that is destroyed meanwhile is not adopted', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    await stepToDeath(bench, sagaId, 'http POST /v2/tags/{name}/resources', 'after');
    await fetch(`${bench.sandbox.url}/v2/droplets/${id}`, { method: 'DELETE', headers: { authorization: 'Bearer x' } });
    const saga = await bench.drive(sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'droplet_gone' } });
    expect(await isOnRecord(bench, id)).toBe(false);
    const late = handMade(bench);
    const { id: second } = await bench.adopt(late);
    await bench.drive(second, at('register_adopted_droplet'));
    await fetch(`${bench.sandbox.url}/v2/droplets/${late}`, { method: 'DELETE', headers: { authorization: 'Bearer x' } });
    expect(await bench.drive(second)).toMatchObject({ status: 'compensated', error: { code: 'droplet_gone' } });
  });

  test('a token that may not tag is waited for, and the scope is named; nothing was done when the saga is cancelled', async () => {
    const bench = await stage();
    const id = handMade(bench);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/tags' }, effect: { status: 403, body: { id: 'forbidden', message: 'You are not authorized to perform this operation' } } }] });
    const { id: sagaId } = await bench.adopt(id);
    await bench.step(sagaId);
    for (let time = 0; time < 2; time += 1) expect(await bench.step(sagaId)).toMatchObject({ kind: 'postpone', note: expect.stringContaining('tag:create') });
    expect(await bench.history(sagaId)).toEqual(['saga_created', 'saga_started']);
    await bench.cancel(sagaId);
    const looks = bench.sandbox.ledger().length;
    expect(await bench.drive(sagaId)).toMatchObject({ status: 'compensated' });
    expect(bench.sandbox.ledger().slice(looks).filter(({ method }) => method !== 'GET')).toEqual([]);
    expect(tagsOn(bench, id)).toEqual(['theirs']);
  });

  test('a token that may not take tags off holds the rollback, which says so, until it may', async () => {
    const bench = await stage();
    const id = handMade(bench);
    const { id: sagaId } = await bench.adopt(id);
    await bench.drive(sagaId, at('register_adopted_droplet'));
    await bench.cancel(sagaId);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'DELETE', path: '/v2/tags' }, effect: { status: 403, body: { id: 'forbidden', message: 'You are not authorized to perform this operation' } } }] });
    await bench.drive(sagaId, at('tag_droplet', 'compensating'));
    expect(await bench.step(sagaId)).toMatchObject({ kind: 'postpone', note: expect.stringContaining('tag:delete') });
    bench.sandbox.resetFaults();
    expect(await bench.drive(sagaId)).toMatchObject({ status: 'compensated' });
    expect(tagsOn(bench, id)).toEqual(['theirs']);
  });

  test('tags that DigitalOcean shows late are waited for; tags that cannot be read are not taken for none', async () => {
    const bench = await stage();
    const id = handMade(bench);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/droplets/${id}` }, times: 1, effect: { status: 200, body: { droplet: { id, name: 'by-hand', status: 'active', tags: 'odd' } } } }] });
    const saga = await bench.drive((await bench.adopt(id)).id);
    expect([saga.status, saga.attempt, tagsOn(bench, id)]).toEqual(['completed', 0, ownTags(saga)]);
    expect(await bench.history(saga.id)).toContain('step_retried');
  });
});

test('the tags of a provision are none of an adoption: a saga that creates takes no adopted droplet for its own', async () => {
  const bench = await stage();
  const saga = await bench.provision();
  expect(tagsFor(saga).some((tag) => tag.startsWith('arcadia-adopted-'))).toBe(false);
});
