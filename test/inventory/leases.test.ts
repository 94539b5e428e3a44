// Leases: a droplet whose lease nobody renews in time is destroyed, and no other.

import { describe, expect, onTestFinished, test } from 'vitest';
import { approveLeases, listLeases } from '../../src/inventory/lease-listing.ts';
import { setProtection } from '../../src/inventory/protection.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { leaseOf } from '../../src/steps/lease.ts';
import type { BenchOptions } from '../steps/stage.ts';
import { alive, at, mortalAt, requests, web } from '../steps/stage.ts';
import type { Leases } from './lease-stage.ts';
import { hour, inMs, row, useLeaseStage } from './lease-stage.ts';

const openLeases = useLeaseStage();

async function provisioned(options: BenchOptions = {}, input: JsonObject = { lease: hour }): Promise<{ leases: Leases; dropletId: number; sagaId: string }> {
  const leases = await openLeases(options);
  const saga = await leases.drive((await leases.provision(input)).id);
  expect(saga.status).toBe('completed');
  return { leases, dropletId: Number(saga.context['droplet_id']), sagaId: saga.id };
}

const terms = (input: JsonObject, defaultS: number | null, maxS: number | null) => leaseOf({ input: { ...web, ...input } }, { defaultS, maxS });

describe('a lease', () => {
  test('counts from the announcement of the create, by the clock of the database', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: { ttl_s: 60, max_s: 120 } });
    await leases.step(id, { io: mortalAt('http POST /v2/droplets', 'after') }).catch(() => undefined);
    const [lease] = await leases.db.sql<{ until: number; limit: number }[]>`
      select extract(epoch from lease_until - stamp)::float8 as until, extract(epoch from lease_limit - stamp)::float8 as limit
      from arcadia.provision_leases, (select (context->>'create_intent_at')::timestamptz as stamp from arcadia.sagas) as intent`;
    expect(lease?.until).toBeCloseTo(60, 0);
    expect(lease?.limit).toBeCloseTo(120, 0);
    // Announced again, it goes on from the first time.
    const [before] = await leases.db.sql`select lease_until from arcadia.provision_leases`;
    await leases.drive(id);
    expect(await row(leases)).toMatchObject({ leaseUntil: before?.['leaseUntil'], leaseGeneration: 1, leaseExpiredAt: null });
    expect(await leases.db.sql`select * from arcadia.provision_leases`).toEqual([]);
  });

  test('is not sent to DigitalOcean', async () => {
    const { leases } = await provisioned({ faults: { rules: [{ match: { method: 'POST', field: 'lease' }, effect: { status: 422 } }] } });
    expect(alive(leases.sandbox)).toHaveLength(1);
  });

  test('is there too where a worker of the previous version announced the create', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    await leases.db.sql`update arcadia.sagas set context = context || jsonb_build_object('create_intents', 1, 'create_intent_at', now()::text) where id = ${id}`;
    expect(await leases.db.sql`select saga_id from arcadia.provision_leases where lease_until between now() + interval '59 min' and now() + interval '61 min'`).toMatchObject([{ sagaId: id }]);
  });

  test('that ends has the droplet destroyed by one saga, and a second pass starts no other', async () => {
    const { leases, dropletId, sagaId } = await provisioned();
    expect(await leases.pass()).toEqual({ destroyed: 0, cancelled: 0, warned: 0, isHeld: false, leased: 1 });
    await leases.end();
    const passes = await Promise.all([leases.pass(), leases.pass(), leases.pass()]);
    expect(passes.reduce((sum, { destroyed }) => sum + destroyed, 0)).toBe(1);
    const [destroyer] = await leases.destroyers();
    expect(destroyer).toMatchObject({ idempotencyKey: `lease:droplet:${dropletId}:1`, requestedBy: 'lease-expiry' });
    expect(leases.jobs).toMatchObject([{ sagaId: destroyer?.id, step: 'destroy_droplet', revision: 0 }]);
    expect(await leases.drive(destroyer?.id ?? '')).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' }, input: { reason: expect.stringContaining('its lease ended at') } });
    expect(alive(leases.sandbox)).toEqual([]);
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect(await leases.events()).toMatchObject([{ type: 'lease.expired', dropletId, sagaId, generation: 1 }]);
  });

  test('that ends while the droplet is being provisioned rolls the provision back', async () => {
    const leases = await openLeases({ faults: { neverActive: true }, settings: { maxPolls: 100_000 } });
    const { id } = await leases.provision({ lease: hour });
    const saga = await leases.drive(id, at('wait_droplet_active'));
    await leases.end();
    expect(await leases.pass()).toMatchObject({ cancelled: 1, destroyed: 0 });
    expect(await leases.drive(id)).toMatchObject({ status: 'compensated', error: { code: 'cancelled', message: expect.stringContaining('lease') } });
    expect(alive(leases.sandbox)).toEqual([]);
    expect(await leases.pass()).toMatchObject({ cancelled: 0, destroyed: 0 });
    expect(await leases.events()).toMatchObject([{ type: 'lease.expired', dropletId: saga.context['droplet_id'], sagaId: id }]);
    expect(await leases.db.sql`select * from arcadia.provision_leases`).toEqual([]);
  });

  test('that ends before an unanswered create is settled rolls that back too', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    await leases.step(id, { io: mortalAt('http POST /v2/droplets', 'after') }).catch(() => undefined);
    await leases.end();
    expect(await leases.pass()).toMatchObject({ cancelled: 1 });
    expect((await leases.drive(id)).status).toBe('compensated');
    expect(alive(leases.sandbox)).toEqual([]);
  });

  test('that expired right before the provision completed has the droplet destroyed', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    await leases.drive(id, at('register_droplet'));
    await leases.end();
    // As a worker that died between the expiry and the cancel.
    expect((await leases.store.expire()).toCancel).toMatchObject([{ sagaId: id }]);
    expect((await leases.drive(id)).status).toBe('completed');
    expect(await row(leases)).toMatchObject({ leaseExpiredAt: expect.any(Date), leaseSagaId: null });
    await expect(leases.renew(Number((await leases.saga(id)).context['droplet_id']), 60)).rejects.toMatchObject({ code: 'lease_expired' });
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
    expect((await leases.drive((await leases.destroyers())[0]?.id ?? '')).status).toBe('completed');
    expect(alive(leases.sandbox)).toEqual([]);
    expect((await leases.events()).map(({ type }) => type)).toEqual(['lease.expired']);
  });

  test('goes with the rollback of its provision', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    await leases.drive(id, at('register_droplet'));
    await leases.step(id, { io: mortalAt('sql inventory.register', 'after') }).catch(() => undefined);
    expect(await row(leases)).toMatchObject({ leaseGeneration: 1 });
    await leases.cancel(id);
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0, cancelled: 0 });
    expect((await leases.drive(id)).status).toBe('compensated');
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect(await leases.destroyers()).toEqual([]);
  });

  test('of a droplet that is protected does not end it; it can be renewed, and goes once the protection is lifted', async () => {
    const { leases, dropletId } = await provisioned({}, { lease: hour, protected: true });
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect((await leases.store.expire()).endedProtected).toBe(1);
    await leases.renew(dropletId, 60);
    expect((await leases.store.expire()).endedProtected).toBe(0);
    await leases.end();
    await setProtection(leases.db, dropletId, { protected: false, by: null });
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
  });

  test('of a droplet that somebody destroys already starts no second saga', async () => {
    const { leases, dropletId } = await provisioned();
    const { id } = await leases.destroy(dropletId);
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect((await leases.drive(id)).status).toBe('completed');
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect(await leases.events()).toEqual([]);
  });

  test('that expired is expired, though somebody cancels the destruction: another one follows', async () => {
    const { leases, dropletId } = await provisioned();
    await leases.end();
    await leases.pass();
    const [first] = await leases.destroyers();
    await leases.cancel(first?.id ?? '');
    expect(await leases.saga(first?.id ?? '')).toMatchObject({ status: 'compensated' });
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'lease_expired' });
    expect(await leases.pass({ againAfterMs: 0 })).toMatchObject({ destroyed: 1 });
    const [, second] = await leases.destroyers();
    expect(second?.idempotencyKey).toBe(`lease:droplet:${dropletId}:2`);
    expect((await leases.drive(second?.id ?? '')).status).toBe('completed');
    expect(alive(leases.sandbox)).toEqual([]);
  });

  test('is renewable again where somebody cancels the destruction and protects the droplet', async () => {
    const { leases, dropletId } = await provisioned();
    await leases.end();
    await leases.pass();
    const [destroyer] = await leases.destroyers();
    await leases.cancel(destroyer?.id ?? '');
    await setProtection(leases.db, dropletId, { protected: true, by: null });
    expect(await leases.pass({ againAfterMs: 0 })).toMatchObject({ destroyed: 0 });
    expect((await leases.store.expire()).endedProtected).toBe(1);
    expect(inMs((await leases.renew(dropletId, 3_600)).leaseUntil)).toBeGreaterThan(3_590_000);
    await setProtection(leases.db, dropletId, { protected: false, by: null });
    expect(await leases.pass({ againAfterMs: 0 })).toMatchObject({ destroyed: 0 });
    expect(alive(leases.sandbox)).toHaveLength(1);
  });

  test('whose key somebody used for another saga expires all the same', async () => {
    const { leases, dropletId } = await provisioned();
    await leases.db.sql`update arcadia.sagas set idempotency_key = ${`lease:droplet:${dropletId}:1`}`;
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
    expect(await leases.destroyers()).toMatchObject([{ idempotencyKey: `lease:droplet:${dropletId}:2` }]);
  });

  test('touches no droplet of somebody else, whatever is on record', async () => {
    const { leases, dropletId } = await provisioned();
    const foreign = leases.sandbox.addForeignDroplet({ name: 'web-1', tags: ['arcadia-saga-id-11111111-1111-4111-8111-111111111111'] }).id;
    await leases.db.sql`update arcadia.cloud_resources set provider_id = ${String(foreign)} where provider_id = ${String(dropletId)}`;
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
    await leases.drive((await leases.destroyers())[0]?.id ?? '');
    expect(alive(leases.sandbox).map(({ id }) => id)).toContain(foreign);
    expect(requests(leases.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
    // It is refused each time: another try would be as well.
    expect(await leases.pass({ againAfterMs: 0 })).toMatchObject({ destroyed: 0 });
  });
});

describe('renewing a lease', () => {
  test('gives it at least the time asked for, never less than it has, never beyond its limit', async () => {
    const { leases, dropletId } = await provisioned({}, { lease: { ttl_s: 600, max_s: 3_600 } });
    const first = (await row(leases))?.leaseUntil;
    expect((await leases.renew(dropletId, 60)).leaseUntil).toEqual(first);
    expect(inMs((await leases.renew(dropletId, 1_200)).leaseUntil)).toBeGreaterThan(1_190_000);
    const limited = (await leases.renew(dropletId, 86_400)).leaseUntil;
    expect(limited).toEqual((await row(leases))?.leaseLimit);
    expect(await row(leases)).toMatchObject({ leaseGeneration: 3, leaseUntil: limited });
    expect((await leases.events()).map(({ type, generation }) => [type, generation])).toEqual([['lease.renewed', 2], ['lease.renewed', 3]]);
    expect(await leases.db.sql`select actor, action, detail from arcadia.audit where action = 'lease_renewed' and saga_id in (select id from arcadia.sagas)`).toMatchObject([{ actor: 'cli:ada', detail: { droplet_id: dropletId } }, {}]);
    // Past its limit.
    await leases.db.sql`update arcadia.cloud_provisioned set lease_until = now() - interval '1 s', lease_limit = now() - interval '1 s'`;
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'lease_limit' });
  });

  test('works while the droplet is being provisioned, and the droplet keeps it', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    const saga = await leases.drive(id, at('wait_droplet_active'));
    const { leaseUntil } = await leases.renew(Number(saga.context['droplet_id']), 86_400);
    await leases.drive(id);
    expect(await row(leases)).toMatchObject({ leaseUntil, leaseGeneration: 2 });
  });

  test('wins over an expiry that comes later, also where the lease had ended, and loses against one that came before', async () => {
    const { leases, dropletId } = await provisioned();
    await leases.end();
    await leases.renew(dropletId, 60);
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    await leases.end();
    await leases.pass();
    const [destroyer] = await leases.destroyers();
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ name: 'LeaseError', code: 'lease_expired', message: expect.stringContaining(destroyer?.id ?? 'none') });
  });

  test('in a transaction holds the lease until its end: committed it has won, rolled back it never was', async () => {
    const { leases, dropletId } = await provisioned();
    await leases.end();
    const connection = await leases.db.sql.reserve();
    onTestFinished(() => connection.release());
    await connection`begin`;
    await connection`select arcadia.renew_lease(${String(dropletId)}::text::bigint, interval '1 hour')`;
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    await connection`rollback`;
    await connection`begin`;
    await connection`select arcadia.renew_lease(${String(dropletId)}::text::bigint, interval '1 hour')`;
    await connection`commit`;
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    await leases.end();
    await connection`begin`;
    await connection`select arcadia.renew_lease(${String(dropletId)}::text::bigint, interval '1 hour')`;
    await connection`rollback`;
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
  });

  test('says what is so where there is nothing to renew', async () => {
    const { leases, dropletId } = await provisioned({}, {});
    await expect(leases.renew(4_711, 60)).rejects.toMatchObject({ code: 'droplet_unknown' });
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'lease_absent' });
    const sql = (statement: string) => leases.db.sql.unsafe(statement);
    await expect(sql(`select arcadia.renew_lease(4711, interval '1 h')`)).rejects.toMatchObject({ code: 'SG404' });
    await expect(sql(`select arcadia.renew_lease(${dropletId}, interval '1 h')`)).rejects.toMatchObject({ code: 'SG409' });
    for (const ttl of [`interval '0'`, `interval '-1 h'`, `interval '367 days'`, 'null']) await expect(sql(`select arcadia.renew_lease(${dropletId}, ${ttl})`)).rejects.toMatchObject({ code: 'SG400' });
    const { id } = await leases.destroy(dropletId);
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'droplet_being_destroyed', message: expect.stringContaining(id) });
    await leases.drive(id);
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'droplet_unknown', message: expect.stringContaining('is gone') });
  });

  test('and a rollback of the provision: the rollback wins', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    const saga = await leases.drive(id, at('wait_droplet_active'));
    await leases.cancel(id);
    await expect(leases.renew(Number(saga.context['droplet_id']), 60)).rejects.toMatchObject({ code: 'droplet_being_destroyed' });
  });
});

describe('a warning', () => {
  test('is written down once for each renewal, before the end', async () => {
    const { leases, dropletId } = await provisioned();
    expect(await leases.pass({ warnMs: 60_000 })).toMatchObject({ warned: 0 });
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 1 });
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 0 });
    await leases.renew(dropletId, 3_650);
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 1 });
    await leases.end();
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 0, destroyed: 1 });
    expect((await leases.events()).map(({ type, generation }) => `${type} ${generation}`)).toEqual(['lease.ending 1', 'lease.renewed 2', 'lease.ending 2', 'lease.expired 2']);
  });

  test('comes for a droplet that is being provisioned too', async () => {
    const leases = await openLeases();
    const { id } = await leases.provision({ lease: hour });
    await leases.drive(id, at('wait_droplet_active'));
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 1 });
    await leases.drive(id);
    expect(await leases.pass({ warnMs: 3_700_000 })).toMatchObject({ warned: 0 });
  });
});

/** Puts droplets with leases on record; so many of them ended. */
async function fleetOf(count: number, ended: number) {
  const leases = await openLeases();
  await leases.db.sql`
    with resource as (
      insert into arcadia.cloud_resources (provider, provider_id, kind, name, status)
      select 'digitalocean', (900000 + number)::text, 'droplet', 'web', 'active' from generate_series(1, ${count}::int) as number returning id, provider_id
    )
    insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, lease_generation, lease_until)
    select id, '{}', 'saga:x', gen_random_uuid(), 1, clock_timestamp() + case when provider_id::int <= 900000 + ${ended}::int then interval '-1 s' else interval '1 h' end from resource`;
  return leases;
}

describe('the brake against mass expiry', () => {
  test.each([{ count: 20, ended: 20 }, { count: 105, ended: 21 }, { count: 300, ended: 60 }])('lets $ended of $count expire', async ({ count, ended }) => {
    const leases = await fleetOf(count, ended);
    expect(await leases.pass()).toMatchObject({ destroyed: ended, isHeld: false });
    expect(leases.jobs).toHaveLength(ended);
  });

  test.each([{ count: 21, ended: 21 }, { count: 104, ended: 21 }, { count: 300, ended: 61 }, { count: 1_000, ended: 1_000 }])('holds $ended of $count until a person approves', async ({ count, ended }) => {
    const leases = await fleetOf(count, ended);
    expect(await leases.pass()).toMatchObject({ destroyed: 0, isHeld: true });
    expect(leases.held).toEqual([{ ended, leased: count }]);
    expect(await leases.events()).toEqual([]);
    const held = await listLeases(leases.db, { choice: 'ended', limit: 10_000 });
    expect(held).toHaveLength(ended);
    // Whoever is approved goes; the others are held as long as they are too many.
    expect(await approveLeases(leases.db, [{ sagaId: held[0]?.sagaId ?? '' }], 'cli:ada')).toEqual([held[0]?.sagaId]);
    expect((await leases.pass()).destroyed).toBe(ended === 21 || ended === 61 ? ended : 1);
    await approveLeases(leases.db, held, 'cli:ada');
    await leases.pass();
    expect(await leases.destroyers()).toHaveLength(ended);
    expect(await leases.pass()).toMatchObject({ destroyed: 0, isHeld: false });
  });

  test('counts those that are being provisioned, and not what is protected', async () => {
    const leases = await fleetOf(21, 20);
    await leases.db.sql`insert into arcadia.provision_leases (saga_id, lease_until) values (gen_random_uuid(), clock_timestamp() - interval '1 s')`;
    expect(await leases.pass()).toMatchObject({ destroyed: 0, isHeld: true });
    await leases.db.sql`update arcadia.cloud_provisioned set protected = true where lease_until < now()`;
    expect(await leases.pass()).toMatchObject({ destroyed: 0, isHeld: false });
  });

  test('forgets an approval that a renewal has overtaken', async () => {
    const leases = await fleetOf(30, 30);
    const held = await listLeases(leases.db, { choice: 'ended', limit: 100 });
    await approveLeases(leases.db, held, 'cli:ada');
    await leases.renew(900_001, 60);
    await leases.pass();
    expect(await leases.destroyers()).toHaveLength(29);
    await leases.end();
    expect(await approveLeases(leases.db, [{ sagaId: held[1]?.sagaId ?? '' }], 'cli:ada')).toEqual([]);
  });
});

describe('the policy', () => {
  test('gives a default, bounds renewals, and refuses what is too long', () => {
    expect(terms({}, null, null)).toBeNull();
    expect(terms({}, 600, null)).toEqual({ ttl_s: 600 });
    expect(terms({ protected: true }, 600, null)).toBeNull();
    expect(terms({ lease: { ttl_s: 60 } }, 600, 3_600)).toEqual({ ttl_s: 60, max_s: 3_600 });
    expect(() => terms({ lease: { ttl_s: 7_200 } }, 600, 3_600)).toThrow('LEASE_MAX_S');
    expect(() => terms({ lease: { ttl_s: 60, max_s: 7_200 } }, 600, 3_600)).toThrow('lease.max_s: expected at most 3600');
  });

  test('refuses a saga beyond it before anything is sent', async () => {
    const leases = await openLeases({ settings: { lease: { defaultS: null, maxS: 60 } } });
    const saga = await leases.drive((await leases.provision({ lease: hour })).id);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'lease_too_long' } });
    expect(requests(leases.sandbox, 'POST /v2/droplets')).toBe(0);
  });

  test('gives a droplet that asks for none the default', async () => {
    const { leases } = await provisioned({ settings: { lease: { defaultS: 600, maxS: 900 } } }, {});
    expect(await row(leases)).toMatchObject({ leaseUntil: expect.any(Date), leaseLimit: expect.any(Date) });
  });
});

test.each([{ ttl_s: 0 }, { ttl_s: 1.5 }, { ttl_s: 31_622_401 }, { ttl_s: 60, max_s: 59 }, { ttl_s: 60, ttl: 1 }, {}, 60, '1h'])('a lease of %j is refused at the start', async (lease) => {
  const leases = await openLeases();
  await expect(leases.provision({ lease })).rejects.toMatchObject({ name: 'InvalidRequestError', message: expect.stringContaining('lease') });
});
