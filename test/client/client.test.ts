// The client, as another backend uses it: against real workers on both queue backends, and in its own transactions.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client as PgClient, Pool } from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import type { Client, SagaHandle, StoredEvent } from '../../src/index.ts';
import { ClientClosedError, IdempotencyConflictError, InvalidRequestError, SagaNotFoundError, SagaRolledBackError, SagaStuckError, openClient } from '../../src/index.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, web } from '../support/fleet.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { patience } from '../support/patience.ts';

// So slow that whatever runs soon was not found by the reconciler. Through PgBouncer nothing else finds it.
const reconcileIntervalMs = inject('services').pgBouncerPort === null ? '600000' : '500';
const settings = { RECONCILE_INTERVAL_MS: reconcileIntervalMs, COMPENSATION_ATTEMPTS: '2' };

async function collect(handle: SagaHandle<unknown>, options?: Parameters<SagaHandle<unknown>['events']>[0]): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  for await (const event of handle.events(options)) events.push(event);
  return events;
}

const neverRun = async (client: Client) => client.provisionDroplet({ ...web, name: 'never-run' });

describe.each(queueStoreKinds())('the client, with queues on %s', (kind) => {
  let fleet: Fleet;
  /** Knows only Postgres, as most callers will. */
  let client: Client;

  beforeAll(async () => {
    fleet = await openFleet(kind, { activateAfterMs: 200 });
    client = openClient({ databaseUrl: fleet.databaseUrl });
    await fleet.startWorker(settings);
  });
  afterAll(async () => {
    await client.close();
    await fleet[Symbol.asyncDispose]();
  });

  const postgresJs = (options: postgres.Options<Record<string, postgres.PostgresType>> = {}) => {
    const sql = postgres(fleet.directUrl, { max: 2, onnotice: () => undefined, ...options });
    onTestFinished(() => sql.end());
    return sql;
  };
  const pgClient = async (): Promise<PgClient> => {
    const pg = new PgClient({ connectionString: fleet.directUrl });
    await pg.connect();
    onTestFinished(() => pg.end());
    return pg;
  };

  test.each([['without a queue store', () => client], ['with one', () => fleet.client]])('%s, provisions and destroys, and hands out what was made', async (_what, choose) => {
    const chosen = choose();
    const handle = await chosen.provisionDroplet({ ...web, name: 'made' }, { requestedBy: 'billing' });
    const [outputs, events] = await Promise.all([handle.result(), collect(handle)]);
    expect(outputs).toEqual({
      droplet_id: expect.any(Number),
      public_ipv4: expect.stringMatching(/^198\.18\./),
      private_ipv4: expect.any(String),
      public_ipv6: null,
      cloud_resource_id: expect.any(String),
    });
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_event, index) => index));
    expect([events[0]?.kind, events.at(-1)?.detail['status']]).toEqual(['saga_created', 'completed']);
    expect(await chosen.handle(handle.sagaId).result()).toMatchObject(outputs);

    const destroyed = await chosen.destroyDroplet(outputs.droplet_id, { reason: 'the end' });
    expect(await destroyed.result()).toEqual({ droplet_id: outputs.droplet_id, still_billed: [] });
  });

  test('adopts a droplet with a lease, which it renews, and without one', async () => {
    const adopt = async (name: string, options: { lease?: { ttl_s: number; max_s: number } }) => {
      const handle = await client.adoptDroplet(fleet.sandbox.addForeignDroplet({ name }).id, options);
      return { sagaId: handle.sagaId, dropletId: (await handle.result()).droplet_id };
    };
    const leased = await adopt('adopted-leased', { lease: { ttl_s: 600, max_s: 1_200 } });
    const kept = await adopt('adopted-kept', {});
    expect([...(await client.leasesOf([leased.sagaId, kept.sagaId]))]).toEqual([[leased.sagaId, expect.objectContaining({ leaseUntil: expect.any(Date), leaseLimit: expect.any(Date), expiredAt: null })]]);
    const { leaseUntil } = await client.renewLease(leased.dropletId, { ttlS: 86_400 });
    expect((await client.leasesOf([leased.sagaId])).get(leased.sagaId)?.leaseLimit).toEqual(leaseUntil);
    await expect(client.renewLease(kept.dropletId, { ttlS: 60 })).rejects.toMatchObject({ code: 'lease_absent' });
  });

  test('runs a saga that was started by SQL, and rejects a malformed one with the reason', async () => {
    const sql = postgresJs();
    const start = async (input: postgres.JSONValue) => {
      const [row] = await sql<{ id: string }[]>`select arcadia.start_saga('provision_droplet', ${sql.json(input)}) as id`;
      return client.handle(row?.id ?? '');
    };
    const [good, bad] = await Promise.all([start({ ...web, name: 'by-sql' }), start({ ...web, name: '-', colour: 'red' })]);
    expect(await good.result()).toMatchObject({ droplet_origin: 'created' });
    const rejected = await bad.result().catch((error: unknown) => error);
    expect(rejected).toBeInstanceOf(SagaRolledBackError);
    expect(rejected).toMatchObject({ reason: { code: 'invalid_request', message: expect.stringMatching(/^name: expected a host name.*; colour: unknown field$/) } });
    expect(fleet.sandbox.state().filter(({ name }) => name === '-')).toEqual([]);
  });

  test('rejects with the reason of the rollback, in the words of DigitalOcean', async () => {
    const handle = await client.provisionDroplet({ ...web, name: 'refused', size: 'no-such-size' });
    const error = await handle.result().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(SagaRolledBackError);
    expect(error).toMatchObject({
      code: 'saga_rolled_back',
      sagaId: handle.sagaId,
      reason: { code: 'digitalocean_rejected', step: 'create_droplet', message: expect.stringMatching(/^DigitalOcean: .*size.*\(request .+\)$/) },
    });
    expect((await collect(handle)).at(-1)?.detail['status']).toBe('compensated');
  });

  test('says of a stuck saga why, and takes it up again after a retry', async () => {
    const handle = await client.provisionDroplet({ ...web, name: 'stuck-1' });
    const { droplet_id } = await handle.result();
    fleet.sandbox.setFaults({ neverActive: true, rules: [{ match: { method: 'DELETE' }, effect: { status: 422 } }] });
    const second = await client.provisionDroplet({ ...web, name: 'stuck-2' });
    await expect.poll(async () => (await client.get(second.sagaId))?.context['droplet_id'] ?? null).not.toBeNull();
    expect((await client.cancel(second.sagaId, 'test', 'not needed')).kind).toBe('accepted');
    const error = await second.result().catch((caught: unknown) => caught);
    fleet.sandbox.resetFaults();
    expect(error).toBeInstanceOf(SagaStuckError);
    expect(error).toMatchObject({ reason: { code: 'cancelled', message: 'cancelled by test: not needed' }, compensation: { step: 'create_droplet', message: expect.stringContaining('DigitalOcean') } });
    expect((await client.list({ status: 'stuck' })).map(({ id }) => id)).toEqual([second.sagaId]);
    expect((await client.retry(second.sagaId, 'test')).kind).toBe('accepted');
    await expect(second.result()).rejects.toThrow(SagaRolledBackError);
    expect(fleet.sandbox.state().map(({ id }) => id)).toContain(droplet_id);
  });

  describe('in a transaction of its caller', () => {
    test.each<[string, postgres.Options<Record<string, postgres.PostgresType>>]>([
      ['as it comes', {}],
      ['with other names and types', { transform: postgres.kebab, fetch_types: false, prepare: false }],
    ])('of postgres.js %s: runs after the commit', async (_what, options) => {
      const sql = postgresJs(options);
      const handle = await sql.begin(async (transaction) => {
        const started = await client.provisionDroplet({ ...web, name: 'in-postgres-js', tags: ['a', 'b'] }, { transaction, idempotencyKey: randomUUID() });
        expect(await client.get(started.sagaId)).toBeNull();
        return started;
      });
      expect((await handle.result()).droplet_id).toBeGreaterThan(0);
    });

    test('of pg: runs after the commit', async () => {
      const transaction = await pgClient();
      await transaction.query('begin');
      const handle = await client.provisionDroplet({ ...web, name: 'in-pg' }, { transaction, requestedBy: 'billing' });
      await transaction.query('commit');
      expect((await handle.result()).droplet_id).toBeGreaterThan(0);
    });

    test('is gone with the rollback', async () => {
      const transaction = await pgClient();
      await transaction.query('begin');
      const handle = await client.provisionDroplet({ ...web, name: 'rolled-back' }, { transaction });
      await transaction.query('rollback');
      await expect(handle.result()).rejects.toThrow(SagaNotFoundError);
      await expect(collect(handle)).rejects.toThrow(SagaNotFoundError);
    });

    test.each(['postgres.js', 'pg'])('of %s goes on after the key was used before, with the same input or another', async (library) => {
      const idempotencyKey = randomUUID();
      const before = await client.provisionDroplet({ ...web, name: 'keyed' }, { idempotencyKey });
      const within = async (transaction: Parameters<Client['provisionDroplet']>[1] & object): Promise<void> => {
        const again = await client.provisionDroplet({ ...web, name: 'keyed' }, { ...transaction, idempotencyKey });
        expect(again.sagaId).toBe(before.sagaId);
        const conflict = client.provisionDroplet({ ...web, name: 'other' }, { ...transaction, idempotencyKey });
        await expect(conflict).rejects.toThrow(IdempotencyConflictError);
        await expect(client.provisionDroplet({ ...web, name: '-' }, transaction)).rejects.toThrow(InvalidRequestError);
      };
      const inPg = async () => {
        const transaction = await pgClient();
        await transaction.query('begin');
        await within({ transaction });
        const { rows } = await transaction.query('select 1 as one');
        await transaction.query('commit');
        return rows;
      };
      const inPostgresJs = async () =>
        postgresJs().begin(async (transaction) => {
          await within({ transaction });
          return [...(await transaction`select 1 as one`)];
        });
      expect(await (library === 'pg' ? inPg() : inPostgresJs())).toEqual([{ one: 1 }]);
      await before.result();
    });

    test('waits for another transaction that uses the same key, and takes what comes of it', async () => {
      const idempotencyKey = randomUUID();
      const [one, two] = [await pgClient(), await pgClient()];
      await one.query('begin');
      await two.query('begin');
      const first = await client.provisionDroplet({ ...web, name: 'raced' }, { transaction: one, idempotencyKey });
      const second = client.provisionDroplet({ ...web, name: 'raced' }, { transaction: two, idempotencyKey });
      await one.query('commit');
      expect((await second).sagaId).toBe(first.sagaId);
      await two.query('commit');
      await first.result();
    });

    test('says what went wrong first in a transaction that was broken before', async () => {
      const transaction = await pgClient();
      await transaction.query('begin');
      await transaction.query('select 1/0').catch(() => undefined);
      await expect(client.provisionDroplet(web, { transaction })).rejects.toMatchObject({ code: '25P02' });
      await transaction.query('rollback');
    });

    test('refuses a pool', async () => {
      const pool = new Pool({ connectionString: fleet.directUrl });
      onTestFinished(() => pool.end());
      await expect(client.provisionDroplet(web, { transaction: pool })).rejects.toThrow(/^transaction: expected a client inside a transaction, found a pool/);
      await expect(client.provisionDroplet(web, { transaction: postgresJs() })).rejects.toThrow(InvalidRequestError);
    });
  });
});

describe('waiting', () => {
  let fleet: Fleet;
  beforeAll(async () => {
    fleet = await openFleet('redis');
  });
  afterAll(() => fleet[Symbol.asyncDispose]());

  test('ends with the reason of the signal, and at once', async () => {
    const handle = await neverRun(fleet.client);
    const reason = new Error('enough');
    const ending = new AbortController();
    const waits = [handle.result({ signal: ending.signal }), collect(handle, { signal: ending.signal })];
    const settled = Promise.allSettled(waits);
    await sleep(100);
    ending.abort(reason);
    expect(await settled).toEqual([{ status: 'rejected', reason }, { status: 'rejected', reason }]);
    await expect(handle.result({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test('ends when the client is closed', async () => {
    const client = openClient({ databaseUrl: fleet.databaseUrl });
    const waiting = Promise.allSettled([(await neverRun(client)).result()]);
    await client.close();
    expect(await waiting).toEqual([{ status: 'rejected', reason: expect.any(ClientClosedError) }]);
  });

  test('can be broken off in the middle of the events, and taken up again after any of them', async () => {
    const handle = await neverRun(fleet.client);
    for await (const event of handle.events()) {
      expect(event.kind).toBe('saga_created');
      break;
    }
    await fleet.client.cancel(handle.sagaId, 'test');
    expect((await collect(handle, { afterSeq: 0 })).map(({ kind }) => kind)).toEqual(['cancel_requested']);
    await expect(handle.result()).rejects.toMatchObject({ reason: { code: 'cancelled' } });
  });

  test('costs a few statements a second, however many handles wait, and each learns its own end', async () => {
    await writeSagas(fleet.db, { count: 500, status: 'running', daysAgo: 0 });
    const rows = await fleet.db.sql<{ id: string }[]>`select id from arcadia.sagas where context->>'droplet_id' is not null and status = 'running'`;
    const client = openClient({ databaseUrl: fleet.databaseUrl });
    onTestFinished(() => client.close());
    const impatient = new AbortController();
    const first = rows[0]?.id ?? '';
    const given = client.handle(first).result({ signal: impatient.signal }).catch((error: unknown) => error);
    const waiting = rows.map(async ({ id }) => client.handle(id).result());
    const followed = rows.slice(0, 100).map(async ({ id }) => collect(client.handle(id)));
    // A backend tells of its transactions once a second.
    const transactions = async () => (await fleet.db.sql<{ count: number }[]>`select xact_commit::int as count from pg_stat_database where datname = current_database()`)[0]?.count ?? 0;
    await sleep(1_500);
    const before = await transactions();
    await sleep(3_000);
    expect((await transactions()) - before).toBeLessThan(60);
    impatient.abort(new Error('enough'));
    expect(await given).toEqual(new Error('enough'));
    const endedAt = performance.now();
    await fleet.db.sql`update arcadia.sagas set status = 'completed', wake_at = null, finished_at = now() where id = any(${rows.map(({ id }) => id)}::uuid[])`;
    const ends = await Promise.all(waiting);
    expect(performance.now() - endedAt).toBeLessThan(3_000 * patience());
    expect(ends).toHaveLength(500);
    expect(new Set(ends.map(({ droplet_id: id }) => id)).size).toBe(500);
    expect((await Promise.all(followed)).every((events) => events.length === 1)).toBe(true);
    await sleep(1_200);
    // Those that came to rest were read together too.
    expect((await transactions()) - before).toBeLessThan(120);
  });

  test('is over at once for a saga that there is not', async () => {
    await expect(fleet.client.handle(randomUUID()).result()).rejects.toThrow(SagaNotFoundError);
  });
});
