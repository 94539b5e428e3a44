// A finding that becomes another one: receivers of outcomes drop an id that they know, so it must have a new one.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { acceptDrift, listDrift } from '../../src/inventory/drift-store.ts';
import { acknowledgeOrphans, unacknowledgeOrphans } from '../../src/inventory/orphan-acknowledgement.ts';
import { approveOrphans, listOrphans } from '../../src/inventory/orphans.ts';
import { driftOutcomes, orphanOutcomes } from '../../src/inventory/outcomes.ts';
import { takeLease } from '../../src/outcomes/lease.ts';
import { advance, readBatch } from '../../src/outcomes/log.ts';
import { readOutcomes } from '../../src/outcomes/read-outcomes.ts';
import { ensureSubscription } from '../../src/outcomes/subscriptions.ts';
import type { Scene } from './stage.ts';
import { tagsOf, useInventoryStage } from './stage.ts';

const scene = useInventoryStage();
const sources = [driftOutcomes, orphanOutcomes];

/** Reads the outcomes that a new subscription receives, each time from where it was. */
const subscribe = async ({ db }: Scene) => {
  const reader = { subscription: `trial-${randomUUID()}`, holder: randomUUID() };
  await ensureSubscription(db, { name: reader.subscription, target: 'a test' });
  await takeLease(db, reader, 600_000);
  return async () => {
    const batch = await readBatch(db, reader, sources, 100);
    if (batch === null) return [];
    const outcomes = await readOutcomes(db, sources, batch.entries);
    expect(await advance(db, reader, batch)).toBe(true);
    return batch.entries.map(({ id }) => ({ id, message: outcomes.get(id)?.data.error?.message, status: outcomes.get(id)?.data.status }));
  };
};

test('an orphan that turns from unknown to surplus, and then to another saga\'s, is told of each time, with a new id', async () => {
  const stage = await scene();
  const news = await subscribe(stage);
  const [first, second] = [await stage.saga({ status: 'compensated' }), await stage.saga({ status: 'compensated' })];
  const [id = 0] = stage.add(1, { name: 'renamed', tags: tagsOf(first) });
  // Young droplets are not destroyed, so that the finding itself is what changes.
  const sync = () => stage.sync({ orphanGraceMs: 900_000 });
  await sync();
  const [unknown] = await listOrphans(stage.db, 10);
  expect(await news()).toMatchObject([{ id: `orphan/${unknown?.id}`, status: 'unknown' }]);
  stage.sandbox.editDroplet(id, { name: 'web-0' });
  expect((await sync()).orphans).toMatchObject([{ category: 'surplus', sagaId: first }]);
  await sync();
  const [surplus] = await listOrphans(stage.db, 10);
  expect(await news()).toEqual([{ id: `orphan/${surplus?.id}`, status: 'surplus', message: 'its saga was rolled back' }]);
  expect(surplus?.id).not.toBe(unknown?.id);
  expect(await approveOrphans(stage.db, [unknown?.id ?? 0], 'cli:ada')).toEqual([]);
  expect(await approveOrphans(stage.db, [surplus?.id ?? 0], 'cli:ada')).toEqual([surplus?.id]);
  stage.sandbox.editDroplet(id, { tags: tagsOf(second) });
  await sync();
  await sync();
  const [others] = await listOrphans(stage.db, 10);
  expect(others).toMatchObject({ category: 'surplus', sagaId: second, approvedAt: null, approvedBy: null });
  expect(await news()).toMatchObject([{ id: `orphan/${others?.id}`, status: 'surplus' }]);
  expect(others?.id).not.toBe(surplus?.id);
  expect(await news()).toEqual([]);
  expect(await stage.db.sql`select id::int, resolved_at is null as is_open from arcadia.cloud_orphans order by id`).toEqual([
    { id: unknown?.id, isOpen: false },
    { id: surplus?.id, isOpen: false },
    { id: others?.id, isOpen: true },
  ]);
});

test('an acknowledged orphan stays so until a sync judges it differently, by its reason or as another one', async () => {
  const stage = await scene();
  const [id = 0] = stage.add(1, { tags: ['managed-by-arcadia-cloud'] });
  const find = async () => (await listOrphans(stage.db, 10))[0];
  await stage.sync();
  const orphan = (await find())?.id ?? 0;
  expect(await acknowledgeOrphans(stage.db, [orphan, orphan + 1], { by: 'cli:ada', reason: 'that of staging' })).toEqual([orphan]);
  const first = await find();
  expect(first).toMatchObject({ category: 'unknown', acknowledgedBy: 'cli:ada', acknowledgedReason: 'that of staging' });
  // Of two people, the first is on record.
  expect(await acknowledgeOrphans(stage.db, [orphan], { by: 'cli:bob', reason: null })).toEqual([orphan]);
  await stage.sync();
  expect(await find()).toMatchObject({ acknowledgedAt: first?.acknowledgedAt, acknowledgedBy: 'cli:ada' });
  // The same row, for there is one saga id in neither case.
  stage.sandbox.editDroplet(id, { tags: ['managed-by-arcadia-cloud', `arcadia-adopted-${randomUUID()}`] });
  await stage.sync();
  expect(await find()).toMatchObject({ id: orphan, acknowledgedAt: null, acknowledgedBy: null, acknowledgedReason: null });
  await acknowledgeOrphans(stage.db, [orphan], { by: 'cli:ada', reason: null });
  stage.sandbox.editDroplet(id, { tags: tagsOf(randomUUID()) });
  await stage.sync();
  const other = await find();
  expect(other).toMatchObject({ category: 'unknown', acknowledgedAt: null });
  expect(await acknowledgeOrphans(stage.db, [orphan], { by: 'cli:ada', reason: null })).toEqual([]);
  expect(await unacknowledgeOrphans(stage.db, [orphan], { by: 'cli:ada' })).toEqual([]);
  expect(await stage.db.sql`select actor, action, detail->>'reason' as reason from arcadia.audit where action like 'orphan_%acknowledged' order by id`).toEqual([
    { actor: 'cli:ada', action: 'orphan_acknowledged', reason: 'that of staging' },
    { actor: 'cli:ada', action: 'orphan_acknowledged', reason: null },
  ]);
});

test('a surplus orphan cannot be acknowledged: it is destroyed', async () => {
  const stage = await scene();
  stage.add(1, { tags: tagsOf(await stage.saga({ status: 'compensated' })) });
  await stage.sync({ orphanGraceMs: 900_000 });
  const [surplus] = await listOrphans(stage.db, 10);
  expect(surplus).toMatchObject({ category: 'surplus' });
  expect(await acknowledgeOrphans(stage.db, [surplus?.id ?? 0], { by: 'cli:ada', reason: null })).toEqual([]);
});

test('a second, different drift of a field is told of with a new id, and cannot be accepted by the old one', async () => {
  const stage = await scene();
  const { db, sync, sandbox } = stage;
  const sagaId = await stage.saga({ status: 'completed' });
  const [id = 0] = stage.add(1);
  await sync();
  await stage.provision(id, sagaId);
  const news = await subscribe(stage);
  sandbox.editDroplet(id, { size_slug: 's-2vcpu-4gb', status: 'off' });
  await sync();
  const [small, power] = await listDrift(db, { withResolved: false, limit: 10 });
  expect((await news()).map((one) => one.id).toSorted()).toEqual([`drift/${small?.id}`, `drift/${power?.id}`].toSorted());
  sandbox.editDroplet(id, { size_slug: 's-4vcpu-8gb' });
  expect((await sync()).drift).toMatchObject([{ field: 'size_slug', actual: 's-4vcpu-8gb' }]);
  await sync();
  const [, large] = await listDrift(db, { withResolved: false, limit: 10 });
  expect(await news()).toEqual([{ id: `drift/${large?.id}`, status: 'found', message: 'size_slug: desired s-1vcpu-1gb, found s-4vcpu-8gb' }]);
  expect(await listDrift(db, { withResolved: true, limit: 10 })).toMatchObject([
    { id: large?.id, actual: 's-4vcpu-8gb', resolution: null },
    { id: power?.id, resolution: null },
    { id: small?.id, actual: 's-2vcpu-4gb', resolution: 'changed' },
  ]);
  expect(await acceptDrift(db, small?.id ?? 0, 'cli:ada')).toMatchObject({ kind: 'resolved', drift: { resolution: 'changed' } });
  expect((await acceptDrift(db, large?.id ?? 0, 'cli:ada')).kind).toBe('accepted');
});
