// Leases of adopted droplets: only an explicit lease ends one, it begins with the registration, and it then goes the way of all leases.
import { describe, expect, test } from 'vitest';
import { approveLeases, listLeases } from '../../src/inventory/lease-listing.ts';
import { findLeases } from '../../src/inventory/lease.ts';
import { setProtection } from '../../src/inventory/protection.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { BenchOptions } from '../steps/stage.ts';
import { alive, at, idsOf, requests, stepToDeath } from '../steps/stage.ts';
import type { Leases } from './lease-stage.ts';
import { hour, inMs, row, useLeaseStage } from './lease-stage.ts';

const openLeases = useLeaseStage();

const handMade = ({ sandbox }: Leases) => sandbox.addForeignDroplet({ name: 'by-hand', tags: ['theirs'] }).id;

async function adopted(input: JsonObject, options: BenchOptions = {}): Promise<{ leases: Leases; dropletId: number; sagaId: string }> {
  const leases = await openLeases(options);
  const dropletId = handMade(leases);
  const saga = await leases.drive((await leases.adopt(dropletId, input)).id);
  expect(saga.status).toBe('completed');
  return { leases, dropletId, sagaId: saga.id };
}

/** An adoption whose worker died right after the registration, and before the saga knew of it. */
async function registered(input: JsonObject = { lease: hour }): Promise<{ leases: Leases; dropletId: number; sagaId: string }> {
  const leases = await openLeases();
  const dropletId = handMade(leases);
  const { id: sagaId } = await leases.adopt(dropletId, input);
  await leases.drive(sagaId, at('register_adopted_droplet'));
  await stepToDeath(leases, sagaId, 'sql inventory.register', 'after');
  return { leases, dropletId, sagaId };
}

describe('the lease of an adopted droplet', () => {
  test('begins with the registration, by the clock of the database, and once', async () => {
    const leases = await openLeases();
    const { id: sagaId } = await leases.adopt(handMade(leases), { lease: { ttl_s: 60, max_s: 120 } });
    await leases.drive(sagaId, at('register_adopted_droplet'));
    await stepToDeath(leases, sagaId, 'sql inventory.register', 'before');
    expect([await row(leases), await leases.db.sql`select * from arcadia.provision_leases`]).toEqual([undefined, []]);
    await stepToDeath(leases, sagaId, 'sql inventory.register', 'after');
    const [lease] = await leases.db.sql<{ until: number; limit: number }[]>`
      select extract(epoch from lease_until - created_at)::float8 as until, extract(epoch from lease_limit - created_at)::float8 as limit from arcadia.cloud_provisioned`;
    expect(lease?.until).toBeCloseTo(60, 0);
    expect(lease?.limit).toBeCloseTo(120, 0);
    const before = await row(leases);
    expect(await leases.drive(sagaId)).toMatchObject({ status: 'completed' });
    expect(await row(leases)).toEqual(before);
    expect(before).toMatchObject({ leaseGeneration: 1, leaseExpiredAt: null });
  });

  test('that ends has the droplet destroyed by one saga', async () => {
    const { leases, dropletId, sagaId } = await adopted({ lease: hour });
    expect(await leases.pass()).toEqual({ destroyed: 0, cancelled: 0, warned: 0, isHeld: false, leased: 1 });
    expect((await findLeases(leases.db, [sagaId])).get(sagaId)).toMatchObject({ leaseUntil: expect.any(Date) });
    await leases.end();
    const passes = await Promise.all([leases.pass(), leases.pass(), leases.pass()]);
    expect(passes.reduce((sum, { destroyed }) => sum + destroyed, 0)).toBe(1);
    const [destroyer] = await leases.destroyers();
    expect(destroyer).toMatchObject({ idempotencyKey: `lease:droplet:${dropletId}:1`, requestedBy: 'lease-expiry' });
    expect(await leases.drive(destroyer?.id ?? '')).toMatchObject({ status: 'completed', context: { destroy_result: 'destroyed' } });
    expect(alive(leases.sandbox)).toEqual([]);
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect(await leases.events()).toMatchObject([{ type: 'lease.expired', dropletId, sagaId, generation: 1 }]);
  });

  test('that is renewed in time keeps the droplet, up to its limit, and is warned of', async () => {
    const { leases, dropletId, sagaId } = await adopted({ lease: { ttl_s: 600, max_s: 7_200 } });
    expect(await leases.pass({ warnMs: 700_000 })).toMatchObject({ warned: 1 });
    await leases.end();
    expect(inMs((await leases.renew(dropletId, 3_600)).leaseUntil)).toBeGreaterThan(3_590_000);
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect((await leases.renew(dropletId, 86_400)).leaseUntil).toEqual((await row(leases))?.leaseLimit);
    expect(await listLeases(leases.db, { choice: 'all', limit: 10 })).toMatchObject([{ sagaId, dropletId, name: 'by-hand', state: 'leased', generation: 3 }]);
    expect((await leases.events()).map(({ type }) => type)).toEqual(['lease.ending', 'lease.renewed', 'lease.renewed']);
    expect(idsOf(alive(leases.sandbox))).toEqual([dropletId]);
  });

  test('does not end it while the droplet is protected', async () => {
    const { leases, dropletId } = await adopted({ lease: hour, protected: true });
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0 });
    expect((await leases.store.expire()).endedProtected).toBe(1);
    await setProtection(leases.db, dropletId, { protected: false, by: null });
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
  });

  test('is held by the brake against mass expiry, until a person approves', async () => {
    const { leases, sagaId } = await adopted({ lease: hour });
    await leases.db.sql`insert into arcadia.provision_leases (saga_id, lease_until) select gen_random_uuid(), clock_timestamp() from generate_series(1, 30)`;
    await leases.end();
    expect(await leases.pass()).toMatchObject({ destroyed: 0, isHeld: true });
    expect(await approveLeases(leases.db, [{ sagaId, generation: 1 }], 'cli:ada')).toEqual([sagaId]);
    expect(await leases.pass()).toMatchObject({ destroyed: 1, isHeld: true });
  });

  test('goes with the rollback of the adoption, and the droplet stays, even though the lease has ended', async () => {
    const { leases, dropletId, sagaId } = await registered();
    expect(await row(leases)).toMatchObject({ leaseGeneration: 1 });
    await leases.end();
    await leases.cancel(sagaId);
    expect(await leases.pass()).toMatchObject({ destroyed: 0, cancelled: 0 });
    expect(await leases.drive(sagaId)).toMatchObject({ status: 'compensated' });
    expect(await row(leases)).toBeUndefined();
    expect(await leases.pass({ againAfterMs: 0 })).toMatchObject({ destroyed: 0, leased: 0 });
    expect([await leases.destroyers(), idsOf(alive(leases.sandbox))]).toEqual([[], [dropletId]]);
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'droplet_unknown' });
  });

  test('that ends before the saga is completed does not cancel the adoption: the droplet is destroyed afterwards', async () => {
    const { leases, sagaId } = await registered();
    await leases.end();
    for (let time = 0; time < 2; time += 1) expect(await leases.pass()).toMatchObject({ destroyed: 0, cancelled: 0 });
    expect(await leases.drive(sagaId)).toMatchObject({ status: 'completed' });
    expect(await leases.pass()).toMatchObject({ destroyed: 1 });
    await leases.drive((await leases.destroyers())[0]?.id ?? '');
    expect(alive(leases.sandbox)).toEqual([]);
    expect((await leases.events()).map(({ type }) => type)).toEqual(['lease.expired']);
  });
});

describe('an adopted droplet without a lease', () => {
  test.each([{ input: {} }, { input: { protected: true } }])('never expires, whatever the default lease is, and cannot be given one by a renewal ($input)', async ({ input }) => {
    const { leases, dropletId } = await adopted(input, { settings: { lease: { defaultS: 1, maxS: 60 } } });
    expect(await row(leases)).toMatchObject({ leaseUntil: null, leaseLimit: null, leaseGeneration: 0 });
    await leases.end();
    expect(await leases.pass()).toEqual({ destroyed: 0, cancelled: 0, warned: 0, isHeld: false, leased: 0 });
    expect(await listLeases(leases.db, { choice: 'without', limit: 10 })).toMatchObject([{ dropletId, state: 'none' }]);
    await expect(leases.renew(dropletId, 60)).rejects.toMatchObject({ code: 'lease_absent' });
    expect([await leases.destroyers(), idsOf(alive(leases.sandbox))]).toEqual([[], [dropletId]]);
  });
});

describe('the policy', () => {
  test('limits the lease of an adopted droplet', async () => {
    const { leases, dropletId } = await adopted({ lease: { ttl_s: 60 } }, { settings: { lease: { defaultS: null, maxS: 120 } } });
    expect(inMs((await leases.renew(dropletId, 86_400)).leaseUntil)).toBeLessThanOrEqual(120_000);
  });

  test.each([{ ttl_s: 61 }, { ttl_s: 60, max_s: 61 }])('refuses an adoption with a lease of %j before anything is sent', async (lease) => {
    const leases = await openLeases({ settings: { lease: { defaultS: null, maxS: 60 } } });
    const saga = await leases.drive((await leases.adopt(handMade(leases), { lease })).id);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'lease_too_long' } });
    expect(requests(leases.sandbox, 'POST /v2/tags')).toBe(0);
    expect(leases.sandbox.state()[0]?.tags).toEqual(['theirs']);
  });

  test('that became stricter since the droplet was tagged rolls the adoption back, and the droplet stays as it was', async () => {
    const policy = { defaultS: null, maxS: 60 };
    const leases = await openLeases({ settings: { lease: policy } });
    const { id: sagaId } = await leases.adopt(handMade(leases), { lease: { ttl_s: 60 } });
    await leases.drive(sagaId, at('register_adopted_droplet'));
    policy.maxS = 30;
    expect(await leases.drive(sagaId)).toMatchObject({ status: 'compensated', error: { code: 'lease_too_long' } });
    expect([await row(leases), alive(leases.sandbox).map(({ tags }) => tags)]).toEqual([undefined, [['theirs']]]);
  });
});

test.each([{ ttl_s: 0 }, { ttl_s: 1.5 }, { ttl_s: 31_622_401 }, { ttl_s: 60, max_s: 59 }, { ttl_s: 60, ttl: 1 }, {}, 60, '1h'])('a lease of %j is refused at the start of an adoption', async (lease) => {
  const leases = await openLeases();
  await expect(leases.adopt(4_711, { lease })).rejects.toMatchObject({ name: 'InvalidRequestError', message: expect.stringContaining('lease') });
});
