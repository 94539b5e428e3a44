// What the list of droplets takes from a sync: prices, and who requested a droplet.

import { expect, test } from 'vitest';
import { listDroplets } from '../../src/inventory/droplet-list.ts';
import { findDroplet } from '../../src/inventory/droplet-record.ts';
import { ADOPTION_TAG_PREFIX, MANAGED_TAG, SAGA_TAG_PREFIX, WAVE_TAG_PREFIX, isReservedTag } from '../../src/steps/tags.ts';
import { useInventoryStage } from './stage.ts';

const scene = useInventoryStage();
const place = { sort: 'name', isDescending: false, page: 1, limit: 50 } as const;

test('a sync keeps the price of each droplet; after a resize that no list has shown, there is none', async () => {
  const { db, sync, add, sandbox } = await scene();
  const [id = 0] = add(2);
  await sync();
  const priced = await listDroplets(db, {}, place);
  expect(priced.total).toEqual({ count: 2, usdPerHour: expect.closeTo(2 * (priced.droplets[0]?.priceUsdPerHour ?? Number.NaN), 6), unpriced: 0 });
  expect(priced.sync).toEqual({ readAt: expect.any(Date), failed: null });
  await db.sql`update arcadia.cloud_resources set size_slug = 's-2vcpu-4gb' where provider_id = ${String(id)}`;
  expect((await listDroplets(db, {}, place)).total).toMatchObject({ count: 2, unpriced: 1 });
  expect((await findDroplet(db, id))?.priceUsdPerHour).toBeNull();
  sandbox.editDroplet(id, { size_slug: 's-2vcpu-4gb' });
  expect((await sync()).changes).toMatchObject([{ fields: ['attrs'] }]);
  const after = await findDroplet(db, id);
  expect(after?.priceUsdPerHour).toBeGreaterThan(priced.droplets[0]?.priceUsdPerHour ?? Infinity);
  // A price alone is no change of a droplet.
  await db.sql`update arcadia.cloud_resources set attrs = attrs - 'price'`;
  expect((await sync()).changes).toEqual([]);
});

test('who requested a droplet is written with its provision, whatever version writes it', async () => {
  const { db, sync, add, saga, provision } = await scene();
  const [first = 0, second = 0] = add(2);
  await sync();
  const sagaId = await saga({ status: 'completed', context: { droplet_id: first } });
  await db.sql`update arcadia.sagas set requested_by = 'http:ada' where id = ${sagaId}`;
  await provision(first, sagaId);
  // Its saga is on record nowhere.
  await provision(second, crypto.randomUUID());
  expect((await listDroplets(db, { requester: 'http:ada' }, place)).droplets).toMatchObject([{ providerId: String(first), requestedBy: 'http:ada', sagaId }]);
  expect((await findDroplet(db, second))?.requestedBy).toBeNull();
});

test('a saga that works on a droplet, or is stuck with it, is shown with it; one that ended is not', async () => {
  const { db, sync, add, saga } = await scene();
  const [first = 0, second = 0, third = 0] = add(3);
  await sync();
  await saga({ name: 'destroy_droplet', status: 'running', input: { droplet_id: first } });
  await saga({ name: 'destroy_droplet', status: 'stuck', input: { droplet_id: second } });
  await saga({ name: 'adopt_droplet', status: 'completed', input: { droplet_id: third } });
  const { droplets } = await listDroplets(db, {}, place);
  expect(Object.fromEntries(droplets.map(({ providerId, atWork }) => [providerId, atWork === null ? null : `${atWork.name} ${atWork.status}`]))).toEqual({ [first]: 'destroy_droplet running', [second]: 'destroy_droplet stuck', [third]: null });
});

test('the list of those that are gone counts them, and the other states as every list does', async () => {
  const { db, sync, add } = await scene();
  const [first = 0] = add(3);
  await sync();
  await db.sql`update arcadia.cloud_resources set deleted_at = now() where provider_id = ${String(first)}`;
  const [present, gone] = [await listDroplets(db, {}, place), await listDroplets(db, { state: 'gone' }, place)];
  expect(gone.droplets.map(({ providerId }) => providerId)).toEqual([String(first)]);
  expect([gone.found, present.found, present.counts.all]).toEqual([1, 2, 2]);
  expect(gone.counts).toEqual(present.counts);
  expect(gone.total).toEqual({ count: 0, usdPerHour: 0, unpriced: 0 });
});

test('addresses are listed public first and IPv4 first, and sorted as numbers; what is no address stops nothing', async () => {
  const { db, sync, add } = await scene();
  const ids = add(5);
  await sync();
  const networks = [
    { v4: [{ ip_address: '192.168.0.1', type: 'private' }, { ip_address: '10.0.0.7', type: 'public' }], v6: [{ ip_address: '2001:DB8::a', type: 'public' }] },
    { v4: [{ ip_address: '9.255.0.1', type: 'public' }] },
    { v6: [{ ip_address: '2001:db8::b', type: 'public' }] },
    { v4: [{ ip_address: 'pending', type: 'public' }, { ip_address: 4, type: 'public' }, {}, { ip_address: '11.0.0.1' }] },
    {},
  ];
  for (const [index, id] of ids.entries()) await db.sql`update arcadia.cloud_resources set attrs = attrs || ${JSON.stringify({ networks: networks[index] })}::text::jsonb where provider_id = ${String(id)}`;
  const { droplets } = await listDroplets(db, {}, { ...place, sort: 'address' });
  expect(droplets.map(({ addresses }) => addresses)).toEqual([['9.255.0.1'], ['10.0.0.7', '2001:DB8::a', '192.168.0.1'], ['pending', '11.0.0.1'], ['2001:db8::b'], []]);
  const found = async (query: string) => (await listDroplets(db, { query }, place)).droplets.map(({ providerId }) => ids.indexOf(Number(providerId)));
  expect(await found('2001:DB8')).toEqual([0, 2]);
  expect(await found('192.168.')).toEqual([0]);
  expect(await found('0.0.1')).toEqual([]);
});

test('the tags that are summed are exactly those that the product does not reserve', async () => {
  const { db, sync, add } = await scene();
  const [id = 0] = add(1);
  await sync();
  const tags = ['shop', 'arcadia', 'Arcadia-Team', 'managed-by-arcadia-cloud-2', MANAGED_TAG, MANAGED_TAG.toUpperCase(), `${SAGA_TAG_PREFIX}1`, `${WAVE_TAG_PREFIX}1`, `${WAVE_TAG_PREFIX}2`.toUpperCase(), `${ADOPTION_TAG_PREFIX}1`];
  await db.sql`update arcadia.cloud_resources set tags = ${tags}::text[] where provider_id = ${String(id)}`;
  const { byTag } = await listDroplets(db, {}, place);
  expect(new Set(byTag.map(({ value }) => value))).toEqual(new Set(tags.filter((tag) => !isReservedTag(tag))));
});
