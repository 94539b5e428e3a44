// A transaction that somebody leaves open, such as that of a backend that started a saga by SQL and does something else before
// it commits: a request for the same is answered soon, and no other request waits.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Client } from '../../src/client/client.ts';
import { openClient } from '../../src/client/open-client.ts';
import type { Database, ReservedSql } from '../../src/platform/db.ts';
import { openDatabase, reserveConnection } from '../../src/platform/db.ts';
import { placeDroplet } from './droplets-stage.ts';
import type { Answer, Web } from './stage.ts';
import { droplet, openWebStage, sagaIdOf } from './stage.ts';

const AT_ONCE = 14;

let web: Web;
let db: Database;
let other: ReservedSql;
let client: Client;

beforeAll(async () => {
  web = await openWebStage();
  const databaseUrl = web.config.databaseUrl ?? '';
  db = openDatabase(databaseUrl, { max: 1 });
  client = openClient({ databaseUrl });
});

beforeEach(async () => {
  other = await reserveConnection(db);
  await other`begin`;
});

afterEach(async () => {
  await other`rollback`;
  other.release();
});

afterAll(async () => {
  await client.close();
  await db.close();
  await web[Symbol.asyncDispose]();
});

const post = (key: string): Promise<Answer> => web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: { 'idempotency-key': key } });

async function startBySql(key: string): Promise<string> {
  const [row] = await other<{ id: string }[]>`select arcadia.start_saga('provision_droplet', ${JSON.stringify(droplet)}::text::jsonb, ${key}) as id`;
  return row?.id ?? '';
}

/** Asks many times at once, and meanwhile for something else. */
async function askAtOnce(ask: () => Promise<Answer>): Promise<readonly Answer[]> {
  const began = performance.now();
  const asked = Array.from({ length: AT_ONCE }, ask);
  const others = await Promise.all([web.call('GET', '/readyz'), web.call('GET', '/v1/sagas'), post(randomUUID())]);
  expect(others.map(({ status }) => status)).toEqual([200, 200, 202]);
  const answers = await Promise.all(asked);
  expect(performance.now() - began).toBeLessThan(3_000);
  return answers;
}

const inBrief = ({ status, headers, json }: Answer) => [status, headers.get('retry-after'), json()];

describe('a start with a key that a transaction holds', () => {
  test('is told to come back, and finds the saga after the commit', async () => {
    const id = await startBySql('held-1');
    for (const answer of await askAtOnce(() => post('held-1'))) {
      expect(inBrief(answer)).toMatchObject([503, '1', {
        code: 'key_in_progress',
        detail: 'Idempotency-Key: a request with "held-1" is not committed yet; repeat the request in a moment',
        errors: [{ field: 'Idempotency-Key', message: 'is not committed yet' }],
      }]);
    }
    await other`commit`;
    expect(sagaIdOf(await post('held-1'))).toBe(id);
  });

  test('starts a saga after a rollback', async () => {
    const id = await startBySql('held-2');
    expect((await post('held-2')).status).toBe(503);
    await other`rollback`;
    const answer = await post('held-2');
    expect([answer.status, sagaIdOf(answer) === id]).toEqual([202, false]);
  });

  test('waits for a transaction that is about to commit', async () => {
    const id = await startBySql('held-3');
    const asked = post('held-3');
    await delay(200);
    await other`commit`;
    expect(sagaIdOf(await asked)).toBe(id);
  });

  test('fails in the client with an error of its own', async () => {
    await startBySql('held-4');
    await expect(client.provisionDroplet(droplet, { idempotencyKey: 'held-4' })).rejects.toMatchObject({ name: 'KeyInProgressError', code: 'key_in_progress' });
  });

  test('waits in a transaction of the caller, as SQL does, and leaves its settings alone', async () => {
    const id = await startBySql('held-5');
    const sql = postgres(web.config.databaseUrl ?? '', { max: 1 });
    await sql.begin(async (transaction) => {
      const asked = client.provisionDroplet(droplet, { idempotencyKey: 'held-5', transaction });
      await delay(1_500);
      await other`commit`;
      expect((await asked).sagaId).toBe(id);
      expect(await transaction`show lock_timeout`).toEqual([{ lock_timeout: '0' }]);
    });
    await sql.end();
  });
});

describe('a droplet that a transaction is changing', () => {
  test('is not protected meanwhile, and the caller is told to come back', async () => {
    const { dropletId } = await placeDroplet(web.db);
    await other`select arcadia.set_protection(${String(dropletId)}::text::bigint, true)`;
    const protect = () => web.call('PUT', `/v1/droplets/${dropletId}/protection`, { body: { protected: true } });
    const detail = `droplet ${dropletId} is being changed by a transaction that is not committed yet; repeat the request in a moment`;
    for (const answer of await askAtOnce(protect)) expect(inBrief(answer)).toMatchObject([503, '1', { code: 'droplet_busy', detail }]);
    await expect(client.setProtection(dropletId, { protected: true })).rejects.toMatchObject({ name: 'ProtectionError', code: 'droplet_busy', message: detail });
    await other`commit`;
    expect((await protect()).json()).toEqual({ dropletId, protected: true, changed: false });
  });

  test('does not get its lease renewed or approved, nor its drift accepted', async () => {
    const { dropletId, sagaId, driftId } = await placeDroplet(web.db, { leaseInS: -60, drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' } });
    await other`select arcadia.renew_lease(${String(dropletId)}::text::bigint, interval '1 hour')`;
    const renew = () => web.call('POST', `/v1/droplets/${dropletId}/lease`, { body: { ttl_s: 60 } });
    for (const answer of await askAtOnce(renew)) expect(inBrief(answer)).toMatchObject([503, '1', { code: 'droplet_busy' }]);
    const calls = [() => web.call('POST', '/v1/leases/approve', { body: { leases: [{ saga_id: sagaId, generation: 1 }] } }), () => web.call('POST', `/v1/drift/${driftId}/accept`)];
    for (const call of calls) expect(inBrief(await call())).toMatchObject([503, '1', { code: 'droplet_busy' }]);
    await expect(client.renewLease(dropletId, { ttlS: 60 })).rejects.toMatchObject({ name: 'LeaseError', code: 'droplet_busy' });
    await other`commit`;
    expect([(await renew()).status, (await calls[1]?.())?.status]).toEqual([200, 200]);
  });
});
