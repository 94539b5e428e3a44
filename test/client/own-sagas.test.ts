// The client, with the definition of a saga that is not of the droplets.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { defineSaga, defineStep, done } from '../../src/engine.ts';
import type { Client } from '../../src/index.ts';
import { openClient } from '../../src/index.ts';
import { createEngineDatabase } from '../support/engine.ts';

const bare = { execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) };
const steps = [defineStep({ name: 'open_shop', ...bare })];

let client: Client;
beforeAll(async () => {
  const database = await createEngineDatabase();
  client = openClient({ databaseUrl: database.url });
  return async () => database.drop();
});
afterAll(() => client.close());

test('takes what the schema of the input takes, and stores what it makes of it', async () => {
  const openShop = defineSaga({
    name: 'open_shop',
    input: z.strictObject({ name: z.string(), plan: z.enum(['small', 'large']).default('small'), seats: z.string().transform(Number), floor: z.coerce.number() }),
    steps,
    words: { completed: ({ input: { seats, plan } }) => `${seats.toFixed()} ${plan}` },
  });
  const { sagaId } = await client.start(openShop, { name: 'corner', seats: '7', floor: '2' });
  expect((await client.get(sagaId))?.input).toEqual({ name: 'corner', plan: 'small', seats: 7, floor: 2 });
  // @ts-expect-error -- the name is missing
  await expect(client.start(openShop, { seats: '7', floor: 2 })).rejects.toThrow('name:');
  // @ts-expect-error -- what the schema makes of the seats is not what it takes
  await expect(client.start(openShop, { name: 'corner', seats: 7, floor: 2 })).rejects.toThrow('seats:');
  // @ts-expect-error -- a field that is not known
  await expect(client.start(openShop, { name: 'corner', seats: '7', floor: 2, colour: 'red' })).rejects.toThrow('colour');
});

test('types the outputs of a step that only some sagas have as outputs that may be missing', () => {
  const open = defineStep({ name: 'open_shop', ...bare, adds: z.object({ shop_id: z.int() }), execute: async () => Promise.resolve(done({ shop_id: 7 })) });
  const redeem = defineStep({ name: 'redeem', ...bare, onlyWith: 'coupon', adds: z.object({ discount: z.int() }), execute: async () => Promise.resolve(done({ discount: 5 })) });
  const openShop = defineSaga({ name: 'open_shop', input: z.strictObject({ coupon: z.string().optional() }), steps: [open, redeem] });
  const outputs = openShop.outputs.parse({ shop_id: 7 });
  const shop: number = outputs.shop_id;
  // @ts-expect-error -- no saga without a coupon has a discount
  const discount: number = outputs.discount;
  const maybe: number | undefined = outputs.discount;
  expect([shop, discount, maybe]).toEqual([7, undefined, undefined]);
});

test('runs a saga again whose definition it is given, and says so where it is not', async () => {
  const openShop = defineSaga({ name: 'open_shop', input: z.strictObject({ name: z.string() }), steps });
  const { sagaId } = await client.start(openShop, { name: 'again' });
  expect(await client.cancel(sagaId, 'ada')).toMatchObject({ kind: 'accepted' });
  expect(await client.rerun(sagaId, 'ada')).toMatchObject({ kind: 'refused', why: expect.stringMatching(/open_shop is not among the sagas known here\. Pass its definition to the client in the option sagas/) });
  expect(await client.rerun(sagaId, 'ada', { sagas: { [openShop.name]: openShop } })).toMatchObject({ kind: 'accepted', saga: { rerunOf: sagaId } });
});

test('names the other saga that has an idempotency key', async () => {
  const input = z.strictObject({ name: z.string() });
  const [openShop, closeShop] = ['open_shop', 'close_shop'].map((name) => defineSaga({ name, input, steps }));
  const [given, how] = [{ name: 'same' }, { idempotencyKey: 'shop-7' }];
  const { sagaId } = await client.start(openShop ?? '', given, how);
  await expect(client.start(closeShop ?? '', given, how)).rejects.toThrow(`idempotencyKey: "shop-7" was used before for another saga, open_shop, by saga ${sagaId}; use a new key`);
  await expect(client.start(openShop ?? '', { name: 'other' }, how)).rejects.toThrow('was used before with another input');
});
