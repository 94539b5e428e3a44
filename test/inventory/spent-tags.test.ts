// Tags that sagas leave in the account: deleted by the sync, once nothing can carry them any more.

import { describe, expect, test } from 'vitest';
import { createRequestBudget } from '../../src/do/budget.ts';
import { createLocalBudgetStore } from '../../src/do/budget-local.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { readInventoryStats } from '../../src/inventory/stats.ts';
import { furtherPasses } from '../../src/inventory/sync/delete-tags.ts';
import { waitFor } from '../support/wait-for.ts';
import { waveAgeMs, waveTag } from '../../src/steps/ownership.ts';
import type { Scene, SyncOptions } from './stage.ts';
import { tagsOf, useInventoryStage } from './stage.ts';

const scene = useInventoryStage();
const GRACE_MS = 600_000;
/** A wave that was over half a cycle ago. */
const OLD_WAVE = waveTag(new Date(Date.now() - 15_000_000));
const headers = { authorization: 'Bearer test' };

const sync = (stage: Scene, more: SyncOptions = {}) => stage.sync({ orphanGraceMs: GRACE_MS, ...more });
const own = (sagaId: string) => tagsOf(sagaId).filter((tag) => tag !== 'managed-by-arcadia-cloud');

async function tagsIn({ sandbox }: Scene): Promise<string[]> {
  const names: string[] = [];
  for (let page = 1; ; page += 1) {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the sandbox's own answer
    const { tags } = (await (await fetch(`${sandbox.url}/v2/tags?per_page=200&page=${page}`, { headers })).json()) as { tags: { name: string }[] };
    names.push(...tags.map(({ name }) => name));
    if (tags.length < 200) return names.toSorted();
  }
}

const tagRequests = ({ sandbox }: Scene) => sandbox.ledger().filter(({ path, userAgent }) => path.startsWith('/v2/tags') && userAgent === 'arcadia-cloud').map(({ method, path }) => `${method} ${path}`);

/** As if so much time had passed since everything that happened. */
async function age({ db }: Scene, byMs = GRACE_MS + 1_000): Promise<void> {
  const by = db.sql`${byMs}::int * interval '1 millisecond'`;
  await db.sql`update arcadia.spent_tags set since = since - ${by}`;
  await db.sql`update arcadia.sagas set finished_at = finished_at - ${by}, created_at = created_at - ${by}`;
  await db.sql`update arcadia.cloud_resources set deleted_at = deleted_at - ${by}, first_seen_at = first_seen_at - ${by}`;
}

/** A completed saga with its droplet, on record; `destroy` makes the droplet gone, and the inventory know it. */
async function provisioned(stage: Scene, { wave = OLD_WAVE } = {}) {
  const sagaId = await stage.saga({ status: 'completed', context: { create_intents: 1, droplet_wave: wave } });
  const [dropletId = 0] = stage.add(1, { name: 'web-0', tags: [...tagsOf(sagaId), wave] });
  await stage.db.sql`update arcadia.sagas set context = context || jsonb_build_object('droplet_id', ${String(dropletId)}::text::bigint) where id = ${sagaId}`;
  await sync(stage);
  await stage.provision(dropletId, sagaId);
  const destroy = async () => {
    stage.sandbox.editDroplet(dropletId, { vanish: true });
    await stage.db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() where provider_id = ${String(dropletId)}`;
    await stage.db.sql`update arcadia.cloud_provisioned set released_at = clock_timestamp() where saga_id = ${sagaId}`;
  };
  return { sagaId, dropletId, destroy };
}

/** A saga that was rolled back; its droplet is destroyed, and its tags are left. `knows`: whether it ever saw that droplet. */
async function rolledBack(stage: Scene, context: Record<string, number | string | number[]> = {}, knows = true): Promise<string> {
  const sagaId = await stage.saga({ status: 'compensating', context: { create_intents: 1, ...context } });
  const [dropletId = 0] = stage.add(1, { name: 'other', tags: tagsOf(sagaId) });
  stage.sandbox.editDroplet(dropletId, { vanish: true });
  if (knows) await stage.db.sql`update arcadia.sagas set context = context || jsonb_build_object('droplet_id', ${String(dropletId)}::text::bigint) where id = ${sagaId}`;
  await stage.db.sql`update arcadia.sagas set status = 'compensated', finished_at = clock_timestamp() where id = ${sagaId}`;
  return sagaId;
}

describe('the tags of a saga', () => {
  test('are deleted a grace period after its droplet is gone, with that of its wave; the common tag stays', async () => {
    const stage = await scene();
    const { sagaId, destroy } = await provisioned(stage);
    await destroy();
    expect((await sync(stage)).summary.tagsDeleted).toBe(0);
    expect(await tagsIn(stage)).toEqual([...tagsOf(sagaId), OLD_WAVE].toSorted());
    await age(stage);
    expect((await sync(stage)).summary.tagsDeleted).toBe(3);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
    stage.sandbox.clearLedger();
    await age(stage);
    await sync(stage);
    expect(tagRequests(stage)).toEqual([]);
  });

  test('are deleted after its rollback', async () => {
    const stage = await scene();
    const sagaId = await rolledBack(stage);
    await age(stage);
    await sync(stage);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
    expect(tagRequests(stage)).toEqual(own(sagaId).flatMap((tag) => `GET /v2/tags/${tag}`).concat(own(sagaId).map((tag) => `DELETE /v2/tags/${tag}`)));
  });

  test('are deleted a day later where a create has no answer: it may have made a droplet that no list shows yet', async () => {
    const stage = await scene();
    const sagaId = await rolledBack(stage, {}, false);
    await age(stage);
    await sync(stage);
    expect(tagRequests(stage)).toEqual([]);
    await age(stage, 24 * 3_600_000);
    await sync(stage);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
    expect(tagRequests(stage)).toContain(`DELETE /v2/tags/arcadia-saga-id-${sagaId}`);
  });

  test('are not even looked for where all its creates were refused', async () => {
    const stage = await scene();
    await rolledBack(stage, { create_intents: 2, create_refusals: 2 });
    await age(stage);
    await sync(stage);
    expect(tagRequests(stage)).toEqual([]);
  });

  test('are deleted after its retention too', async () => {
    const stage = await scene();
    const sagaId = await rolledBack(stage);
    await age(stage);
    await stage.db.sql`delete from arcadia.sagas where id = ${sagaId}`;
    await sync(stage);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
  });
});

describe('tags stay', () => {
  test('while the droplet is there', async () => {
    const stage = await scene();
    await provisioned(stage);
    await age(stage);
    await sync(stage);
    expect(tagRequests(stage)).toEqual([]);
  });

  test('when the droplet turned up again', async () => {
    const stage = await scene();
    const { dropletId } = await provisioned(stage);
    await stage.db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() where provider_id = ${String(dropletId)}`;
    await age(stage);
    expect((await sync(stage)).summary).toMatchObject({ returned: 1, tagsDeleted: 0 });
    expect(tagRequests(stage)).toEqual([]);
  });

  test('while the saga is not at rest, or is stuck', async () => {
    const stage = await scene();
    for (const status of ['running', 'compensating', 'stuck']) {
      const sagaId = await rolledBack(stage);
      await stage.db.sql`update arcadia.sagas set status = ${status}, finished_at = null where id = ${sagaId}`;
    }
    await age(stage);
    await sync(stage);
    expect(tagRequests(stage)).toEqual([]);
  });

  test('while another droplet of the saga is there, or one that its rollback left alone, or one of its name', async () => {
    const stage = await scene();
    const second = await rolledBack(stage);
    stage.add(1, { name: 'web-0', tags: tagsOf(second) });
    const [unproven = 0] = stage.add(1, { name: 'renamed' });
    const withUnproven = await rolledBack(stage, { unproven_droplets: [unproven] });
    const ofItsName = await rolledBack(stage);
    await stage.db.sql`update arcadia.sagas set input = '{"name": "Late-1"}' where id = ${ofItsName}`;
    stage.add(1, { name: 'late-1' });
    await age(stage);
    expect((await sync(stage)).summary.tagsDeleted).toBe(0);
    expect(await tagsIn(stage)).toEqual(expect.arrayContaining([second, withUnproven, ofItsName].flatMap(own)));
  });

  test('that something carries by their own count, though the inventory knows of nothing; they are not asked for again for a day', async () => {
    const stage = await scene();
    const sagaId = await rolledBack(stage);
    const [tag = ''] = own(sagaId);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `/v2/tags/${tag}` }, effect: { status: 200, body: { tag: { name: tag, resources: { count: 1, droplets: { count: 0 } } } } } }] });
    await age(stage);
    for (let pass = 0; pass < 2; pass += 1) {
      await sync(stage);
      await age(stage);
    }
    expect(tagRequests(stage).filter((request) => request.startsWith('DELETE'))).toEqual([]);
    expect(tagRequests(stage).filter((request) => request === `GET /v2/tags/${tag}`)).toHaveLength(1);
    await age(stage, 86_400_000);
    stage.sandbox.resetFaults();
    await sync(stage);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
  });

  test.each(['GET', 'DELETE'] as const)('when a %s fails: that is no word of their count; a later sync goes on, and this one is complete', async (method) => {
    const stage = await scene();
    const sagaId = await rolledBack(stage);
    await age(stage);
    stage.sandbox.setFaults({ rules: [{ match: { method, path: '/v2/tags' }, times: 1, effect: { status: 500 } }] });
    expect((await sync(stage)).summary.tagsDeleted).toBe(0);
    expect((await stage.db.sql`select outcome from arcadia.inventory_syncs order by number desc limit 1`)[0]).toEqual({ outcome: 'complete' });
    expect(await tagsIn(stage)).toEqual(tagsOf(sagaId).toSorted());
    await age(stage);
    await sync(stage);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
  });

  test('of sagas of another environment, whatever their count', async () => {
    const stage = await scene();
    const foreign = crypto.randomUUID();
    const [dropletId = 0] = stage.add(1, { tags: tagsOf(foreign) });
    await sync(stage);
    stage.sandbox.editDroplet(dropletId, { vanish: true });
    for (let pass = 0; pass < 3; pass += 1) {
      await sync(stage);
      await age(stage);
    }
    expect(await tagsIn(stage)).toEqual(tagsOf(foreign).toSorted());
    expect(tagRequests(stage)).toEqual([]);
  });

  test('while the queue of syncs is paused', async () => {
    const stage = await scene();
    await rolledBack(stage);
    await age(stage);
    await sync(stage, { isPaused: true });
    expect(tagRequests(stage)).toEqual([]);
  });

  test('when the request budget has no room for the lowest priority: the sync does not wait for some', async () => {
    const stage = await scene();
    for (let index = 0; index < 3; index += 1) await rolledBack(stage);
    await age(stage);
    // Two pages of droplets, of a budget of which a quarter is kept from syncs.
    const budget = createRequestBudget({ store: createLocalBudgetStore(), perMinute: 8, perHour: 1_000, io: directIo, log: silentLog });
    expect((await sync(stage, { budget })).summary.tagsDeleted).toBe(2);
    expect((await tagsIn(stage)).filter((tag) => tag.startsWith('arcadia-'))).toHaveLength(4);
  });
});

describe('without the scope to delete tags', () => {
  test('the sync says so, and goes on; with the scope, it deletes them', async () => {
    const stage = await scene();
    for (let index = 0; index < 3; index += 1) await rolledBack(stage);
    await age(stage);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE', path: '/v2/tags' }, effect: { status: 403, body: { id: 'Forbidden', message: 'You are not authorized to perform this operation' } } }] });
    const told: string[] = [];
    const report = await sync(stage, { onTagsRefused: (why) => told.push(why) });
    expect([report.tagsRefused, report.summary.tagsDeleted, told]).toEqual([true, 0, [expect.stringContaining('403')]]);
    // The first refusal is enough for this pass.
    expect(tagRequests(stage).filter((request) => request.startsWith('DELETE'))).toHaveLength(1);
    stage.sandbox.resetFaults();
    await age(stage);
    expect(await sync(stage)).toMatchObject({ tagsRefused: false, summary: { tagsDeleted: 6 } });
  });
});

test('a pass deletes those of a few sagas, and the next ones the rest', async () => {
  const stage = await scene();
  for (let index = 0; index < 30; index += 1) await rolledBack(stage);
  await age(stage);
  expect([(await sync(stage)).summary.tagsDeleted, (await sync(stage)).summary.tagsDeleted]).toEqual([50, 10]);
});

async function backlog(): Promise<Scene> {
  const stage = await scene();
  for (let index = 0; index < 60; index += 1) await rolledBack(stage);
  await age(stage);
  return stage;
}

describe('further passes of one sync', () => {
  const further = { forMs: 60_000, paceMs: 0, hasRoom: () => true };
  test('delete a backlog while the request budget has room', async () => {
    const stage = await backlog();
    expect((await readInventoryStats(stage.db)).spentTags).toBe(60);
    expect((await sync(stage, { furtherTags: further })).summary.tagsDeleted).toBe(120);
    expect((await readInventoryStats(stage.db)).spentTags).toBe(0);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud']);
  });

  test('end without room, after their time, and where the budget refuses the lowest priority', async () => {
    const stage = await backlog();
    let looks = 0;
    expect((await sync(stage, { furtherTags: { ...further, hasRoom: () => (looks += 1) <= 5 } })).summary.tagsDeleted).toBe(50 + 8);
    expect((await sync(stage, { furtherTags: { ...further, forMs: 0 } })).summary.tagsDeleted).toBe(20);
    await age(stage);
    const budget = createRequestBudget({ store: createLocalBudgetStore(), perMinute: 40, perHour: 1_000, io: directIo, log: silentLog });
    const report = await sync(stage, { furtherTags: further, budget });
    expect(report.summary.tagsDeleted).toBeGreaterThan(0);
    expect(report.summary.tagsDeleted).toBeLessThan(42);
  });

  test('stop with the worker, though they pause', async () => {
    const stage = await backlog();
    const stopping = new AbortController();
    const stopped = sync(stage, { furtherTags: { ...further, paceMs: 60_000 }, signal: stopping.signal });
    await waitFor(() => tagRequests(stage).length === 100, { what: 'the first pass' });
    stopping.abort();
    await expect(stopped).rejects.toThrow('was stopped');
  });

  test('leave half of the budget: of the minute by their pace, of the hour by looking', () => {
    let hour = 2_500;
    const passes = furtherPasses({ intervalMs: 900_000, perMinute: 250, perHour: 5_000 }, () => ({ hour }));
    expect([passes.forMs, passes.paceMs, passes.hasRoom()]).toEqual([300_000, 1_920, true]);
    hour -= 1;
    expect(passes.hasRoom()).toBe(false);
    expect(furtherPasses({ intervalMs: 60_000, perMinute: 1, perHour: 5_000 }, () => null)).toMatchObject({ forMs: 20_000, paceMs: 10_000 });
    expect(furtherPasses({ intervalMs: 60_000, perMinute: 1, perHour: 5_000 }, () => null).hasRoom()).toBe(false);
  });
});

test('those that may not be deleted yet keep nobody from their turn, however many they are', async () => {
  const stage = await scene();
  for (let index = 0; index < 30; index += 1) {
    const sagaId = await rolledBack(stage);
    await stage.db.sql`update arcadia.sagas set status = 'stuck', finished_at = null where id = ${sagaId}`;
  }
  await age(stage);
  await rolledBack(stage);
  await age(stage);
  expect((await sync(stage)).summary.tagsDeleted).toBe(2);
});

test('the tag of a wave stays while droplets of the wave may be asked for', async () => {
  const stage = await scene();
  const wave = waveTag(new Date());
  const { destroy } = await provisioned(stage, { wave });
  await destroy();
  await age(stage);
  await sync(stage);
  expect(await tagsIn(stage)).toEqual([wave, 'managed-by-arcadia-cloud']);
});

test('a wave is as old as its last end, and comes round after 1024 times 30 seconds', () => {
  const start = new Date(1_024 * 30_000 * 100);
  const at = (ms: number) => new Date(start.getTime() + ms);
  expect(waveAgeMs('arcadia-wave-0', at(30_000))).toEqual({ sinceMs: 0, untilNextMs: 1_023 * 30_000 });
  expect(waveAgeMs('arcadia-wave-0', at(10_000))).toMatchObject({ sinceMs: -20_000 });
  expect(waveAgeMs('arcadia-wave-1', at(0))).toMatchObject({ untilNextMs: 30_000 });
  for (const tag of ['arcadia-wave-', 'arcadia-wave-1024', 'arcadia-wave-x', 'wave-1']) expect(waveAgeMs(tag, start)).toBeNull();
});

const adopted = async (stage: Scene) => {
  const [dropletId = 0] = stage.add(1, { name: 'by-hand' });
  const sagaId = await stage.saga({ name: 'adopt_droplet', status: 'completed', input: { name: null, droplet_id: dropletId }, context: { droplet_id: dropletId } });
  const tag = `arcadia-adopted-${sagaId}`;
  stage.sandbox.editDroplet(dropletId, { tags: ['theirs', 'managed-by-arcadia-cloud', tag] });
  await sync(stage);
  await stage.provision(dropletId, sagaId);
  return { sagaId, dropletId, tag };
};
const markGone = async ({ db }: Scene, dropletId: number) => {
  await db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() where provider_id = ${String(dropletId)}`;
  await db.sql`update arcadia.cloud_provisioned set released_at = clock_timestamp()`;
};

describe('the tag of an adoption', () => {
  test('is deleted a grace period after its droplet is gone, and nothing else', async () => {
    const stage = await scene();
    const { dropletId, tag } = await adopted(stage);
    stage.sandbox.editDroplet(dropletId, { vanish: true });
    await markGone(stage, dropletId);
    expect((await sync(stage)).summary.tagsDeleted).toBe(0);
    await age(stage);
    expect((await sync(stage)).summary.tagsDeleted).toBe(1);
    expect(tagRequests(stage)).toEqual([`GET /v2/tags/${tag}`, `DELETE /v2/tags/${tag}`]);
    expect(await tagsIn(stage)).toEqual(['managed-by-arcadia-cloud', 'theirs']);
    await age(stage);
    expect((await sync(stage)).summary.tagsDeleted).toBe(0);
  });

  test('stays while a droplet carries it, whatever the inventory believes', async () => {
    const stage = await scene();
    const { dropletId, tag } = await adopted(stage);
    stage.add(1, { name: 'copy', tags: [tag] });
    stage.sandbox.editDroplet(dropletId, { vanish: true });
    await markGone(stage, dropletId);
    for (let pass = 0; pass < 2; pass += 1) {
      await age(stage);
      await sync(stage);
    }
    expect(await tagsIn(stage)).toContain(tag);
    expect(stage.sandbox.state({ name: 'copy' })[0]?.tags).toEqual([tag]);
  });
});
