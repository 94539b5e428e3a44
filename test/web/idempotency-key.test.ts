// Idempotency keys that are not ASCII: the same text over HTTP and in SQL, also for sagas that an earlier version started.
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import type { Answer, Web } from './stage.ts';
import { droplet, openWebStage, sagaIdOf } from './stage.ts';

let web: Web;

beforeAll(async () => {
  web = await openWebStage();
});

afterAll(async () => {
  await web[Symbol.asyncDispose]();
});

/** What Node makes of the UTF-8 bytes of a header. `fetch` sends it as these bytes. */
const asLatin1 = (key: string): string => Buffer.from(key).toString('latin1');

const post = (key: string, body: unknown = droplet): Promise<Answer> => web.call('POST', '/v1/sagas/provision_droplet', { body, headers: { 'idempotency-key': key } });

async function startBySql(key: string): Promise<string> {
  const [row] = await web.db.sql<{ id: string }[]>`select arcadia.start_saga('provision_droplet', ${JSON.stringify(droplet)}::text::jsonb, ${key}) as id`;
  return row?.id ?? '';
}

/** As an earlier version wrote it: with the bytes of the key read as Latin-1. */
async function startByEarlierVersion(key: string, input: unknown = droplet): Promise<string> {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: input }));
  await web.db.sql`update arcadia.sagas set idempotency_key = ${asLatin1(key)} where id = ${id}`;
  return id;
}

describe('a key that is not ASCII', () => {
  test('finds over HTTP the saga that SQL started, and the reverse', async () => {
    const bySql = await startBySql('Bestellung-Müller-1');
    expect(sagaIdOf(await post(asLatin1('Bestellung-Müller-1')))).toBe(bySql);
    const overHttp = sagaIdOf(await post(asLatin1('注文-2 🚀')));
    expect(await startBySql('注文-2 🚀')).toBe(overHttp);
  });

  test('is kept as the text that was sent', async () => {
    const id = sagaIdOf(await post(asLatin1('commande-é')));
    const [saga] = await web.db.sql`select idempotency_key from arcadia.sagas where id = ${id}`;
    expect(saga).toEqual({ idempotencyKey: 'commande-é' });
  });

  test('is refused where its bytes are not UTF-8, and starts nothing', async () => {
    const answer = await post('Müller-latin1');
    expect(answer.status).toBe(422);
    expect(answer.json()).toMatchObject({ code: 'invalid_input', errors: [{ field: 'Idempotency-Key', message: 'expected UTF-8; encode the key as UTF-8, or use only ASCII characters' }] });
    expect(await web.db.sql`select from arcadia.sagas where idempotency_key like '%latin1'`).toEqual([]);
  });

  test('finds the saga of an earlier version, also with another input', async () => {
    const before = await startByEarlierVersion('Größe-1');
    const again = await post(asLatin1('Größe-1'));
    expect(again.json()).toEqual({ sagaId: before, replayed: true });
    const conflict = await post(asLatin1('Größe-1'), { ...droplet, name: 'other' });
    expect([conflict.status, conflict.json()]).toMatchObject([409, { code: 'idempotency_conflict', sagaId: before }]);
  });

  test('prefers the saga with the key itself to that of an earlier version', async () => {
    await startByEarlierVersion('Größe-2', { ...droplet, name: 'earlier' });
    const bySql = await startBySql('Größe-2');
    expect(sagaIdOf(await post(asLatin1('Größe-2')))).toBe(bySql);
  });

  test('is not confused with a key of SQL that reads like a mangled one', async () => {
    const bySql = await startBySql(asLatin1('Öl-1'));
    expect(sagaIdOf(await post(asLatin1('Öl-1')))).not.toBe(bySql);
  });
});

test('keys and requesters have up to 255 characters on each channel, of any kind', async () => {
  const longest = '🚀'.repeat(255);
  const client = openClient({ databaseUrl: web.config.databaseUrl ?? '' });
  onTestFinished(() => client.close());
  const bySql = await startBySql(longest);
  expect(sagaIdOf(await post(asLatin1(longest)))).toBe(bySql);
  expect((await client.provisionDroplet(droplet, { idempotencyKey: longest })).sagaId).toBe(bySql);
  const { sagaId } = await client.provisionDroplet(droplet, { requestedBy: longest });
  expect(await client.list({ requestedBy: longest })).toMatchObject([{ id: sagaId }]);
  expect((await web.call('GET', `/v1/sagas?requested_by=${encodeURIComponent(longest)}`)).json()).toMatchObject({ sagas: [{ id: sagaId }] });

  const tooLong = `${longest}!`;
  await expect(startBySql(tooLong)).rejects.toMatchObject({ code: 'SG400' });
  expect((await post(asLatin1(tooLong))).status).toBe(422);
  await expect(client.provisionDroplet(droplet, { idempotencyKey: tooLong })).rejects.toThrow('idempotencyKey: expected 1 to 255 characters');
  await expect(client.provisionDroplet(droplet, { requestedBy: tooLong })).rejects.toThrow('requestedBy: expected at most 255 characters');
});

test('two keys in one request are refused, and start nothing', async () => {
  const { status, body } = await new Promise<{ status: number | undefined; body: unknown }>((resolve, reject) => {
    const sent = request(`${web.url}/v1/sagas/provision_droplet`, { method: 'POST', headers: { 'content-type': 'application/json', 'Idempotency-Key': ['m1', 'm2'] } }, (response) => {
      void text(response).then((answered) => resolve({ status: response.statusCode, body: JSON.parse(answered) }), reject);
    });
    sent.on('error', reject).end(JSON.stringify(droplet));
  });
  expect([status, body]).toMatchObject([422, { errors: [{ field: 'Idempotency-Key', message: 'found 2 of these headers; send one, with one key' }] }]);
  expect(await web.db.sql`select from arcadia.sagas where idempotency_key like 'm1%'`).toEqual([]);
});
