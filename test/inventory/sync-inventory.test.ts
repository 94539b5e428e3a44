// The sync: whose droplets it takes note of, what it concludes from a list and what it does not, and how it keeps out of
// the way of sagas.

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { uncounted } from '../../src/do/budget.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { Io } from '../../src/platform/io.ts';
import { listSyncs, readSyncAge } from '../../src/inventory/syncs.ts';
import { LAG_MS, tagsOf, useInventoryStage } from './stage.ts';

const scene = useInventoryStage();

/** Does something right before the request of this number to the list of droplets. */
function beforeList(number: number, what: () => Promise<void> | void): Io {
  let lists = 0;
  return async (kind, name, operation) => {
    if (kind === 'http' && name === 'GET /v2/droplets') {
      lists += 1;
      if (lists === number) await what();
    }
    return operation();
  };
}

describe('an account of 1,000 droplets that arcadia-cloud did not make', () => {
  test('is in the inventory after six requests, GPU droplets too, and nothing changes the second time', async () => {
    const { sync, add, row, present, sandbox } = await scene();
    add(1_000);
    const [gpu] = add(1, { name: 'gpu', size_slug: 'gpu-h100x1-80gb', region: 'nyc2' });
    const first = await sync();
    expect(first.summary).toMatchObject({ pages: 6, droplets: 1_001, appeared: 1_001, changed: 0, vanished: 0 });
    expect(sandbox.ledgerSummary().total).toBe(6);
    expect(await present()).toBe(1_001);
    expect(await row(gpu ?? 0)).toMatchObject({ name: 'gpu', status: 'active', sizeSlug: 'gpu-h100x1-80gb', region: 'nyc2' });
    const seenAt = (await row(gpu ?? 0))?.lastSeenAt;
    await sleep(5);
    const second = await sync();
    expect(second.summary).toMatchObject({ droplets: 1_001, appeared: 0, changed: 0, vanished: 0, drifted: 0, orphans: 0 });
    expect((await row(gpu ?? 0))?.lastSeenAt.getTime()).toBeGreaterThan(seenAt?.getTime() ?? Infinity);
  });

  test('shows what changed; a droplet that is in no list, and cannot be looked at, is not concluded to be gone', async () => {
    const { sync, add, row, sandbox } = await scene();
    const ids = add(450);
    await sync();
    const [edited = 0, gone = 0] = ids;
    sandbox.editDroplet(edited, { size_slug: 's-2vcpu-4gb', name: 'renamed' });
    sandbox.setFaults({ rules: [{ match: { path: `/v2/droplets/${gone}` }, effect: { status: 500 } }] });
    sandbox.editDroplet(gone, { vanish: true });
    const second = await sync();
    expect(second.changes).toEqual([{ kind: 'changed', providerId: String(edited), name: 'renamed', fields: ['name', 'size_slug', 'attrs'] }]);
    expect(await row(gone)).toMatchObject({ deletedAt: null, absences: 1 });
    expect((await sync()).changes).toEqual([{ kind: 'vanished', providerId: String(gone), name: 'web-1', fields: [] }]);
  });

  test('takes a droplet for deleted at once where DigitalOcean says 404', async () => {
    const { sync, add, row, sandbox } = await scene();
    const [id = 0] = add(3);
    await sync();
    sandbox.editDroplet(id, { vanish: true });
    expect((await sync()).changes).toEqual([{ kind: 'vanished', providerId: String(id), name: 'web-0', fields: [] }]);
    expect((await row(id))?.deletedAt).not.toBeNull();
  });

  test('takes droplets that two complete lists in a row did not show for deleted, however many; an incomplete list in between proves nothing', async () => {
    const { sync, trySync, add, present, sandbox } = await scene();
    const ids = add(900);
    await sync();
    for (const id of ids.slice(0, 300)) sandbox.editDroplet(id, { vanish: true });
    const first = await sync();
    // A hundred are looked at, one by one.
    expect(first.summary.vanished).toBe(100);
    expect(await present()).toBe(800);
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, skip: 2, effect: { status: 500 } }] });
    await expect(trySync()).rejects.toThrow(DigitalOceanError);
    expect(await present()).toBe(800);
    sandbox.resetFaults();
    const second = await sync();
    expect(second.summary.vanished).toBe(200);
    expect(await present()).toBe(600);
  });

  test.each([
    ['is empty', []],
    ['is short', [1, 2, 3]],
  ])('concludes nothing from a list that %s by its own total, and says so', async (_title, shown) => {
    const { db, trySync, sync, add, present, sandbox } = await scene();
    const ids = add(123);
    await sync();
    const droplets = shown.map((index) => ({ id: ids[index] }));
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, effect: { status: 200, body: { droplets, links: {}, meta: { total: 123 } } } }] });
    for (let round = 0; round < 2; round += 1) await expect(trySync()).rejects.toThrow(`the list has ${shown.length} of at least 123 droplets, so it is not complete`);
    expect(await present()).toBe(123);
    expect(await db.sql`select 1 from arcadia.cloud_resources where absences > 0`).toHaveLength(0);
    expect((await listSyncs(db, 1))[0]).toMatchObject({ outcome: 'failed', summary: { vanished: 0 } });
    sandbox.resetFaults();
    expect((await sync()).summary).toMatchObject({ droplets: 123, vanished: 0 });
  });

  test('a list that omits a droplet which exists proves nothing about the others, and each sync looks at others', async () => {
    const { sync, add, present, sandbox, row, log } = await scene();
    const ids = add(230);
    await sync();
    const [gone = 0] = ids;
    sandbox.editDroplet(gone, { vanish: true });
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, effect: { status: 200, body: { droplets: [], links: {} } } }] });
    sandbox.clearLedger();
    const counts = [(await sync()).summary.vanished, (await sync()).summary.vanished, (await sync()).summary.vanished];
    expect(counts).toEqual([1, 0, 0]);
    expect([await present(), (await row(gone))?.deletedAt]).toEqual([229, expect.any(Date)]);
    const looked = sandbox.ledger().map(({ path }) => path).filter((path) => path.startsWith('/v2/droplets/'));
    expect(new Set(looked).size).toBe(230);
    expect(log.filter(({ msg }) => String(msg).startsWith('the list omits droplets that exist'))).toMatchObject([{ droplets: 99 }, { droplets: 100 }, { droplets: 100 }]);
  });

  test('marks nothing deleted when page 3 cannot be read, and says what went wrong', async () => {
    const { db, trySync, sync, add, present, sandbox } = await scene();
    const ids = add(1_000);
    await sync();
    for (const id of ids.slice(-10)) sandbox.editDroplet(id, { vanish: true });
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, skip: 2, effect: { status: 500 } }] });
    await expect(trySync()).rejects.toThrow(DigitalOceanError);
    await expect(trySync()).rejects.toThrow(DigitalOceanError);
    expect(await present()).toBe(1_000);
    expect((await listSyncs(db, 1))[0]).toMatchObject({ outcome: 'failed', summary: { vanished: 0 } });
    expect((await listSyncs(db, 1))[0]?.error).toContain('500');
  });

  test('goes on with the same page after an error that passes', async () => {
    const { sync, add, sandbox } = await scene();
    add(500);
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, skip: 1, times: 2, effect: { status: 502 } }] });
    expect((await sync()).summary).toMatchObject({ droplets: 500, pages: 4 });
    expect(sandbox.ledgerSummary().total).toBe(6);
  });

  test('keeps a droplet that moved to a page already read, because others were created or destroyed meanwhile', async () => {
    const { sync, add, present, sandbox } = await scene();
    const ids = add(600);
    await sync();
    // The first pages lose droplets while the list is read: what stood at the head of page 2 moves to page 1.
    const io = beforeList(2, () => {
      for (const id of ids.slice(0, 3)) sandbox.editDroplet(id, { vanish: true });
      add(5, { name: 'new' });
    });
    const report = await sync({ io });
    expect(report.summary.vanished).toBeLessThanOrEqual(3);
    expect((await sync()).summary.vanished + report.summary.vanished).toBe(3);
    expect(await present()).toBe(602);
    const alive = sandbox.state({ alive: true }).map(({ id }) => String(id));
    expect(alive).toHaveLength(602);
  });

  test('revives a row that reappears, but not by a list that lags behind a deletion', async () => {
    const { db, sync, add, row, sandbox } = await scene();
    const [id = 0] = add(2);
    await sync();
    await db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() where provider_id = ${String(id)}`;
    expect((await sync()).summary.returned).toBe(0);
    expect((await row(id))?.deletedAt).not.toBeNull();
    await sleep(LAG_MS + 50);
    expect((await sync()).changes).toEqual([{ kind: 'returned', providerId: String(id), name: 'web-0', fields: [] }]);
    expect((await row(id))?.deletedAt).toBeNull();
    expect(sandbox.ledgerSummary().byRoute['DELETE /v2/droplets/:id']).toBeUndefined();
  });

  test('is not held up by one droplet that is not as documented', async () => {
    const { sync, add, row, log, present, sandbox } = await scene();
    const [id = 0] = add(3);
    await sync();
    const droplets = [{ id }, ...sandbox.state({ alive: true }).slice(1).map((line) => ({ ...line, memory: 1, vcpus: 1, disk: 1, region: { slug: line.region }, image: { id: 1, slug: null } }))];
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, times: 1, effect: { status: 200, body: { droplets, links: {} } } }] });
    const report = await sync();
    expect(report.summary).toMatchObject({ odd: 1, droplets: 3, vanished: 0 });
    expect(await present()).toBe(3);
    expect((await row(id))?.absences).toBe(0);
    expect(log.find(({ msg }) => String(msg).includes('do not match the API documentation'))).toMatchObject({ dropletIds: [id] });
  });
});

describe('a droplet with a field that is odd', () => {
  test('keeps what was known of the field; the others are brought up to date', async () => {
    const { sync, add, row, sandbox } = await scene();
    const [id = 0] = add(1, { tags: ['web'] });
    await sync();
    sandbox.setFaults({ garble: { image: null, region: {}, vcpus: null, name: null, tags: 'web', networks: null }, garbleMissing: ['size_slug'] });
    sandbox.editDroplet(id, { status: 'off' });
    const report = await sync();
    expect(report).toMatchObject({ summary: { odd: 1, appeared: 0, changed: 1 }, changes: [{ kind: 'changed', fields: ['status'] }] });
    expect(await row(id)).toMatchObject({ name: 'web-0', status: 'off', region: 'nyc3', sizeSlug: 's-1vcpu-1gb', tags: ['web'] });
  });

  test('is in the inventory although nothing else was ever read of it', async () => {
    const { sync, add, row, sandbox } = await scene();
    const [id = 0] = add(1);
    sandbox.setFaults({ garbleMissing: ['name', 'status', 'region', 'image', 'size_slug', 'tags', 'created_at', 'vcpus', 'memory', 'disk', 'networks'] });
    expect((await sync()).summary).toMatchObject({ droplets: 1, appeared: 1, odd: 1 });
    expect(await row(id)).toMatchObject({ name: 'unknown', status: 'unknown', region: null, sizeSlug: null, tags: [] });
    sandbox.resetFaults();
    expect((await sync()).summary).toMatchObject({ odd: 0, changed: 1 });
    expect(await row(id)).toMatchObject({ name: 'web-0', status: 'active', region: 'nyc3' });
  });

  test('has no drift in it', async () => {
    const { sync, add, saga, provision, sandbox } = await scene();
    const [id = 0] = add(1);
    await sync();
    await provision(id, await saga({ status: 'completed', context: { droplet_id: id } }));
    sandbox.setFaults({ garble: { region: null, image: 'debian', size_slug: 7, status: null } });
    expect((await sync()).summary).toMatchObject({ odd: 1, drifted: 0 });
  });

  test('gets an address that came after it was registered', async () => {
    const { sync, add, row, sandbox, db } = await scene();
    const own = { ip_address: '10.1.2.3', netmask: '255.255.0.0', gateway: 'nil', type: 'private' };
    const six = { ip_address: '2001:db8::7', netmask: 64, gateway: '2001:db8::1', type: 'public' };
    const [id = 0] = add(1);
    sandbox.editDroplet(id, { networks: { v4: [own], v6: [] } });
    await sync();
    sandbox.editDroplet(id, { networks: { v4: [own], v6: [six] } });
    expect((await sync()).changes).toMatchObject([{ kind: 'changed', fields: ['attrs'] }]);
    const [found] = await db.sql<{ attrs: unknown }[]>`select attrs from arcadia.cloud_resources where id = (select id from arcadia.cloud_resources)`;
    expect([JSON.stringify(found?.attrs).includes('2001:db8::7'), (await row(id))?.status]).toEqual([true, 'active']);
  });
});

test('what was asked for in capitals is no drift where DigitalOcean answers in its own spelling', async () => {
  const { sync, add, saga, provision } = await scene();
  const [id = 0] = add(1, { region: 'syd1' });
  await sync();
  await provision(id, await saga({ status: 'completed', context: { droplet_id: id } }), { size_slug: 'S-1VCPU-1GB', region: 'SYD1', image: 'DEBIAN-12-X64' });
  expect((await sync()).drift).toEqual([]);
});

describe('rows of sagas', () => {
  test('a droplet that a saga is at work on is left to the saga, found by its tag or by its record', async () => {
    const { db, sync, add, row, saga, provision, sandbox } = await scene();
    const byTag = await saga({ status: 'running' });
    const [tagged = 0] = add(1, { tags: tagsOf(byTag) });
    const [recorded = 0] = add(1);
    await saga({ status: 'compensating', context: { droplet_id: recorded } });
    expect((await sync()).summary).toMatchObject({ appeared: 0, orphans: 0 });
    expect([await row(tagged), await row(recorded)]).toEqual([undefined, undefined]);
    await db.sql`update arcadia.sagas set status = 'completed', context = '{}', finished_at = clock_timestamp()`;
    await sleep(5);
    expect((await sync()).summary.appeared).toBe(2);

    const [destroyed = 0] = add(1);
    await sync();
    await provision(destroyed, byTag);
    await saga({ name: 'destroy_droplet', status: 'running', input: { droplet_id: destroyed } });
    sandbox.editDroplet(destroyed, { vanish: true });
    for (let round = 0; round < 3; round += 1) expect((await sync()).summary).toMatchObject({ vanished: 0, drifted: 0 });
    expect((await row(destroyed))?.deletedAt).toBeNull();
  });

  test('the droplet of a saga that was rolled back a moment ago is not taken up by a list that lags behind', async () => {
    const { sync, add, row, saga } = await scene();
    const tagged = await saga({ status: 'compensated', endedAgoMs: 0 });
    const [byTag = 0] = add(1, { tags: tagsOf(tagged) });
    const [byRecord = 0] = add(1);
    await saga({ status: 'compensated', context: { droplet_id: byRecord }, endedAgoMs: 0 });
    await sleep(5);
    expect((await sync()).summary).toMatchObject({ appeared: 0, orphans: 0 });
    expect([await row(byTag), await row(byRecord)]).toEqual([undefined, undefined]);
    // No list lags that long: it is there, whatever the saga did.
    await sleep(LAG_MS);
    expect((await sync()).summary.appeared).toBe(2);
  });

  test('a droplet that a saga was refused to destroy a moment ago is present, however often it is asked for', async () => {
    const { sync, add, row, saga } = await scene();
    const [id = 0] = add(1);
    await sync();
    await saga({ name: 'destroy_droplet', status: 'compensated', input: { droplet_id: id }, endedAgoMs: 0 });
    await sleep(5);
    for (let round = 0; round < 3; round += 1) expect((await sync()).summary).toMatchObject({ appeared: 0, vanished: 0 });
    expect(await row(id)).toMatchObject({ absences: 0, deletedAt: null });
  });

  test('what a saga writes after a page was asked for stands: a registration, a deletion', async () => {
    const { db, sync, add, row, sandbox } = await scene();
    const ids = add(3);
    await sync();
    const [registered = 0, deleted = 0] = ids;
    // As late as can be: the page was answered, and is about to be written.
    const io: Io = async (kind, name, operation) => {
      const answer = await operation();
      // Of the first page alone: what is written after the last would prove nothing.
      if (kind !== 'http' || sandbox.ledger().length !== 1) return answer;
      await db.sql`update arcadia.cloud_resources set status = 'by-the-saga', last_seen_at = clock_timestamp() where provider_id = ${String(registered)}`;
      await db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() where provider_id = ${String(deleted)}`;
      return answer;
    };
    sandbox.clearLedger();
    await sync({ io });
    expect((await row(registered))?.status).toBe('by-the-saga');
    expect((await row(deleted))?.deletedAt).not.toBeNull();
    await sleep(5);
    await sync();
    expect((await row(registered))?.status).toBe('active');
  });
});

describe('one sync at a time in the whole fleet', () => {
  test('of ten workers that find one due, one runs it; then none is due until the interval is over', async () => {
    const { db, trySync, add } = await scene();
    add(10);
    const all = await Promise.all(Array.from({ length: 10 }, (_, index) => trySync({ worker: `w:${index}`, intervalMs: 60_000 })));
    expect(all.filter((report) => report !== null)).toHaveLength(1);
    expect(await trySync({ intervalMs: 60_000 })).toBeNull();
    await db.sql`update arcadia.inventory_syncs set started_at = started_at - interval '61 seconds'`;
    expect((await trySync({ intervalMs: 60_000 }))?.number).toBe(2);
  });

  test('one whose worker died is taken over, and the dead one can write nothing when it wakes', async () => {
    const { db, sync, trySync, add, present, sandbox } = await scene();
    add(500);
    const io = beforeList(2, async () => {
      await db.sql`update arcadia.inventory_syncs set lease_until = clock_timestamp() - interval '1 second'`;
      expect((await sync({ worker: 'other:1' })).number).toBe(2);
      for (const { id } of sandbox.state({ alive: true })) sandbox.editDroplet(id, { name: 'too-late' });
    });
    await expect(trySync({ io })).rejects.toThrow('timed out, and another process may have taken it over');
    expect(await present()).toBe(500);
    expect(await db.sql`select 1 from arcadia.cloud_resources where name = 'too-late'`).toHaveLength(0);
    expect((await listSyncs(db, 5)).map(({ number, outcome, worker }) => [number, outcome, worker])).toEqual([
      [2, 'complete', 'other:1'],
      [1, 'abandoned', 'test:1'],
    ]);
  });

  test('however many syncs failed since, the last complete one is kept, and says how old the inventory is', async () => {
    const { db, sync, trySync, add, sandbox } = await scene();
    add(1);
    const { number } = await sync();
    await db.sql`
      insert into arcadia.inventory_syncs (number, finished_at, outcome, lease_until, worker)
      select number, clock_timestamp(), 'failed', clock_timestamp(), 'test:1' from generate_series(${number + 1}::int, ${number + 1_100}::int) as number`;
    sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '^/v2/droplets$' }, effect: { status: 500 } }] });
    await expect(trySync()).rejects.toThrow(DigitalOceanError);
    const kept = await listSyncs(db, 2_000);
    expect([kept.at(-1)?.number, kept.length]).toEqual([number, 1_002]);
    expect((await readSyncAge(db)).readAt).toEqual(kept.at(-1)?.startedAt);
  });

  test('told to stop, it ends between two pages, and is due again at once', async () => {
    const { trySync, add, present } = await scene();
    add(500);
    const stopping = new AbortController();
    await expect(trySync({ io: beforeList(2, () => stopping.abort()), signal: stopping.signal })).rejects.toThrow('was stopped');
    expect(await present()).toBe(200);
    expect((await trySync({ intervalMs: 900_000 }))?.summary.droplets).toBe(500);
  });

  test('waits for its turn where the request budget is used up, and asks for no page twice', async () => {
    const { sync, add, sandbox } = await scene();
    add(500);
    let refusals = 0;
    const budget = {
      draw: (priority: string) => {
        expect(priority).toBe('sync');
        refusals += 1;
        if (refusals % 3 !== 0) {
          const failure = { kind: 'throttled', code: 'request_budget', status: null, requestId: null, retryAfterMs: 20, method: 'GET', path: '/v2/droplets' } as const;
          return Promise.reject(new DigitalOceanError('no room', failure));
        }
        return Promise.resolve(uncounted);
      },
      withdraw: async () => Promise.resolve(),
      answered: () => undefined,
      left: () => null,
    };
    expect((await sync({ budget })).summary.droplets).toBe(500);
    expect(sandbox.ledgerSummary().total).toBe(4);
  });
});
