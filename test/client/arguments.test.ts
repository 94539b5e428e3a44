// What callers in plain JavaScript pass to the client: wrong arguments are named, null counts as left out, and a closed client
// says so.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Client } from '../../src/index.ts';
import { ClientClosedError, InvalidRequestError, openClient } from '../../src/index.ts';
import { createEngineDatabase } from '../support/engine.ts';

const droplet = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
const unknown = randomUUID();

let database: Awaited<ReturnType<typeof createEngineDatabase>>;
let client: Client;

beforeAll(async () => {
  database = await createEngineDatabase();
  client = openClient({ databaseUrl: database.url });
});

afterAll(async () => {
  await client.close();
  await database.drop();
});

/** As of a caller whose types nobody checks. */
const any = (value: unknown): never => value as never; // oxlint-disable-line typescript/no-unsafe-type-assertion

const call = async (ask: () => unknown): Promise<unknown> => ask();

const notAnId = /^sagaId: expected a saga id, a UUID$/;
const notADroplet = /^dropletId: expected the id of a droplet: a positive whole number$/;

describe('a wrong argument is named', () => {
  test.each<[string, () => unknown, RegExp]>([
    ['a key that is a number', () => client.provisionDroplet(droplet, { idempotencyKey: any(5) }), /^idempotencyKey: expected text$/],
    ['a requester that is an object', () => client.provisionDroplet(droplet, { requestedBy: any({}) }), /^requestedBy: expected text$/],
    ['a priority that is none', () => client.provisionDroplet(droplet, { priority: any(1) }), /^priority: expected high, normal, low$/],
    ['a transaction that is none', () => client.provisionDroplet(droplet, { transaction: any(5) }), /^transaction: expected what sql.begin/],
    ['a saga that is none', () => client.start(any(undefined), {}), /^saga: expected the definition of a saga, or the name of a droplet saga$/],
    ['the id of a droplet, to destroy', () => client.destroyDroplet(any('7')), /^droplet_id: /],
    ['the id of a saga, to get', () => client.get('x'), notAnId],
    ['no id of a saga', () => client.get(any(null)), notAnId],
    ['the id of a saga, for a handle', () => client.handle('x'), notAnId],
    ['the id of a saga, for its events', () => client.events('x'), notAnId],
    ['the number of an event', () => client.events(unknown, 1.5), /^afterSeq: expected the number of an event$/],
    ['the number of an event, in a handle', () => client.handle(unknown).events({ afterSeq: any('1') }).next(), /^afterSeq: /],
    ['the id of a saga, to cancel', () => client.cancel('x', 'me'), notAnId],
    ['nobody who cancels', () => client.cancel(unknown, any(null)), /^by: expected text$/],
    ['a reason with a NUL', () => client.cancel(unknown, 'me', 'a\0'), /^reason: expected text without NUL characters and broken surrogates$/],
    ['the id of a saga, to retry', () => client.retry('x', 'me'), notAnId],
    ['the id of a saga, to run again', () => client.rerun('x', 'me'), notAnId],
    ['secrets that are no text', () => client.rerun(unknown, 'me', { secrets: any({ user_data: 5 }) }), /^secrets.user_data: expected text$/],
    ['a confirmation that is text', () => client.rerun(unknown, 'me', { despiteLeftovers: any('false') }), /^despiteLeftovers: expected true or false$/],
    ['ids of sagas, for their leases', () => client.leasesOf(['x']), /^sagaIds.0: expected a saga id, a UUID$/],
    ['ids of sagas, for their holds', () => client.holdsOf(any('x')), /^sagaIds: expected a list of saga ids$/],
    ['a part of a droplet', () => client.renewLease(1.5, { ttlS: 60 }), notADroplet],
    ['a droplet as text', () => client.setProtection(any('7'), { protected: true }), notADroplet],
    ['half a second', () => client.renewLease(7, { ttlS: 0.5 }), /^ttlS: expected whole seconds from 1 to 31622400$/],
    ['no protection', () => client.setProtection(7, any(undefined)), /^protected: expected true or false$/],
    ['a long requester', () => client.setProtection(7, { protected: true, by: 'x'.repeat(256) }), /^by: expected at most 255 characters$/],
    ['a text with a NUL', () => client.list({ text: 'a\0' }), /^text: expected text without NUL characters and broken surrogates$/],
    ['a limit below 0', () => client.list({ limit: -1 }), /^limit: expected a whole number from 0$/],
    ['a status that is none', () => client.list({ status: any('done') }), /^status: expected one of pending, /],
    ['a time as text', () => client.list({ createdFrom: any('2026-01-01') }), /^createdFrom: expected a Date$/],
    ['a time that is none', () => client.list({ createdBefore: new Date(Number.NaN) }), /^createdBefore: expected a Date$/],
    ['a droplet of a filter', () => client.list({ dropletId: -1 }), notADroplet],
    ['ids of a filter', () => client.list({ ids: ['x'] }), /^ids.0: expected a saga id, a UUID$/],
  ])('%s', async (_what, ask, message) => {
    const error = await call(ask).then(() => null, (thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidRequestError);
    expect(error).toHaveProperty('message', expect.stringMatching(message));
  });
});

test('null counts as left out', async () => {
  const nothing = any(null);
  const { sagaId } = await client.provisionDroplet(droplet, { idempotencyKey: nothing, requestedBy: nothing, priority: nothing, transaction: nothing });
  expect(await client.get(sagaId)).toMatchObject({ idempotencyKey: null, requestedBy: null, priority: 'normal' });
  await client.provisionDroplet(droplet, nothing);
  await client.destroyDroplet(7, { reason: nothing });
  expect(await client.list({ status: nothing, text: nothing, createdFrom: nothing, dropletId: nothing, limit: nothing })).toHaveLength(3);
  expect(await client.list(nothing)).toHaveLength(3);
  expect((await client.events(sagaId, nothing)).map(({ seq }) => seq)).toEqual([0]);
  expect(await client.cancel(sagaId, 'me', nothing)).toMatchObject({ kind: 'accepted' });
  expect(await client.rerun(sagaId, 'me', { secrets: nothing, despiteLeftovers: nothing, sagas: nothing })).toMatchObject({ kind: 'accepted' });
});

test('an unknown id is no error, in either case', async () => {
  expect([await client.get(unknown), await client.get(unknown.toUpperCase())]).toEqual([null, null]);
  expect([await client.cancel(unknown, 'me'), await client.retry(unknown, 'me'), await client.rerun(unknown, 'me')]).toEqual(Array.from({ length: 3 }, () => ({ kind: 'not_found' })));
  // Postgres takes ids that are no UUID of any version.
  expect(await client.get('11111111-1111-1111-1111-111111111111')).toBeNull();
});

test('a closed client says so', async () => {
  const closed = openClient({ databaseUrl: database.url });
  const { sagaId } = await closed.provisionDroplet(droplet);
  const [handle, saga] = [closed.handle(sagaId), await closed.get(sagaId)];
  await closed.close();
  const asked: (() => unknown)[] = [
    () => closed.provisionDroplet(droplet), () => closed.destroyDroplet(7), () => closed.adoptDroplet(7), () => closed.setProtection(7, { protected: true }), () => closed.renewLease(7, { ttlS: 60 }),
    () => closed.leasesOf([]), () => closed.holdsOf([]), () => closed.start('provision_droplet', droplet), () => closed.handle(sagaId), () => closed.get('x'), () => closed.list(), () => closed.events(sagaId),
    () => closed.cancel(sagaId, 'me'), () => closed.retry(sagaId, 'me'), () => closed.rerun(sagaId, 'me'), () => closed.peek(any(saga)), () => handle.result(), () => handle.events().next(),
  ];
  const errors = await Promise.all(asked.map((ask) => call(ask).then(() => null, (thrown: unknown) => thrown)));
  expect(errors.filter((error) => !(error instanceof ClientClosedError))).toEqual([]);
  await closed.close();
});
