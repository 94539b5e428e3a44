// The orphan sweep: what it destroys, and the much that it does not.

import { describe, expect, inject, onTestFinished, test } from 'vitest';
import type { Database } from '../../src/platform/db.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { formatSync } from '../../src/cli/inventory-text.ts';
import { readFleetFacts } from '../../src/fleet/facts.ts';
import { approveOrphans, listOrphans } from '../../src/inventory/orphans.ts';
import type { Io } from '../../src/platform/io.ts';
import { listAudit } from '../../src/saga/audit.ts';
import { waitFor } from '../support/wait-for.ts';
import { LAG_MS, tagsOf, useInventoryStage } from './stage.ts';
import type { Scene } from './stage.ts';

const scene = useInventoryStage();
const anHourAgo = () => new Date(Date.now() - 3_600_000).toISOString();

/** Droplets with a saga's tags, an hour old. */
const addOf = (stage: Scene, sagaId: string, count: number, more: { name?: string; tags?: string[] } = {}) =>
  stage.add(count, { created_at: anHourAgo(), name: 'web-0', ...more, tags: [...tagsOf(sagaId), ...(more.tags ?? [])] });
const alive = ({ sandbox }: Scene) => sandbox.state({ alive: true }).map(({ id }) => id);
const deletes = ({ sandbox }: Scene) => sandbox.ledger().filter(({ method }) => method === 'DELETE').map(({ path }) => path);
const audited = async ({ db }: Scene) => (await db.sql<{ actor: string; action: string }[]>`select actor, action from arcadia.audit order by id`).map(({ actor, action }) => `${actor} ${action}`);

const adoptionTags = (sagaId: string) => ['managed-by-arcadia-cloud', `arcadia-adopted-${sagaId}`];
const adopting = (stage: Scene, id: number, status: string) => stage.saga({ name: 'adopt_droplet', status, input: { name: null, droplet_id: id }, context: { 'tag_droplet.tags.sends': 1 } });

describe('surplus droplets of ours', () => {
  test('one of a saga that was rolled back, and one beside the droplet on record, are destroyed by the second pass that sees them', async () => {
    const stage = await scene();
    const rolledBack = await stage.saga({ status: 'compensated' });
    const [late = 0] = addOf(stage, rolledBack, 1);
    const completed = await stage.saga({ status: 'completed' });
    const [kept = 0, second = 0] = addOf(stage, completed, 2);
    await stage.db.sql`update arcadia.sagas set context = ${JSON.stringify({ droplet_id: kept })}::text::jsonb where id = ${completed}`;
    const first = await stage.sync();
    expect(first.orphans).toMatchObject([
      { providerId: String(late), category: 'surplus', reason: 'its saga was rolled back', sagaId: rolledBack },
      { providerId: String(second), category: 'surplus', reason: `its saga completed with droplet ${kept}`, sagaId: completed },
    ]);
    expect(first.orphans[0]?.priceUsdPerHour).toBeGreaterThan(0);
    expect(deletes(stage)).toEqual([]);
    expect((await stage.sync()).destroyed.map(({ providerId }) => providerId)).toEqual([String(late), String(second)]);
    expect(alive(stage)).toEqual([kept]);
    expect((await stage.row(late))?.deletedAt).not.toBeNull();
    expect(await listOrphans(stage.db, 10)).toEqual([]);
    expect(await audited(stage)).toEqual(['sync orphan_found', 'sync orphan_found', 'orphan-sweep orphan_destroy_sent', 'orphan-sweep orphan_destroyed', 'orphan-sweep orphan_destroy_sent', 'orphan-sweep orphan_destroyed']);
  });

  test('is told of once, in the audit and on the channel of the inventory', async () => {
    const stage = await scene();
    const told: unknown[] = [];
    // To Postgres itself: through a pooler nobody hears.
    const [row] = await stage.db.sql<{ name: string }[]>`select current_database() as name`;
    const direct = openDatabase(new URL(`/${row?.name}`, inject('services').databaseUrl).href, { max: 1 });
    onTestFinished(() => direct.close());
    await direct.sql.listen('arcadia_inventory', (text) => void told.push(JSON.parse(text)));
    const sagaId = await stage.saga({ status: 'compensated' });
    const [surplus = 0] = addOf(stage, sagaId, 1);
    const [unknown = 0] = addOf(stage, crypto.randomUUID(), 1);
    for (let pass = 0; pass < 2; pass += 1) await stage.sync({ orphanGraceMs: 900_000 });
    const about = { kind: 'orphan_found', name: 'web-0' };
    await waitFor(() => told.length >= 2, { what: 'both to be told' });
    expect(told).toMatchObject([
      { ...about, droplet_id: String(surplus), category: 'surplus', reason: 'its saga was rolled back' },
      { ...about, droplet_id: String(unknown), category: 'unknown' },
    ]);
    expect(await audited(stage)).toEqual(['sync orphan_found', 'sync orphan_found']);
    expect((await listAudit(stage.db, sagaId)).map(({ action }) => action)).toEqual(['orphan_found']);
  });

  test('on two pages of a list that shifts is told of once', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'compensated' });
    addOf(stage, sagaId, 1);
    let page = 0;
    // Droplets that are made between two pages push the oldest of the first onto the second.
    const io: Io = async (kind, name, operation) => {
      const answer = await operation();
      if (name.startsWith('GET /v2/droplets') && (page += 1) === 1) stage.add(200);
      return answer;
    };
    stage.add(199);
    const report = await stage.sync({ io });
    expect([report.summary.pages >= 2, await audited(stage)]).toEqual([true, ['sync orphan_found']]);
  });

  test('stays as long as the queue of syncs is paused, whoever syncs', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'compensated' });
    const [id] = addOf(stage, sagaId, 1);
    expect((await stage.sync({ isPaused: true })).isPaused).toBe(false);
    for (let pass = 0; pass < 2; pass += 1) expect(await stage.sync({ isPaused: true })).toMatchObject({ destroyed: [], held: [], isPaused: true });
    expect(deletes(stage)).toEqual([]);
    expect((await stage.sync()).destroyed.map(({ providerId }) => providerId)).toEqual([String(id)]);
  });

  test('that DigitalOcean does not delete is told of, with its words, until it is gone', async () => {
    const stage = await scene();
    const [id = 0] = addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked by support.' } } }] });
    await stage.sync();
    const failing = async () => (await readFleetFacts(stage.db)).sweepsFailing;
    const failed = await stage.sync();
    expect(failed).toMatchObject({ destroyed: [], summary: { notDestroyed: 1 }, notDestroyed: [{ providerId: String(id), sweepError: expect.stringContaining('Droplet is locked by support.') }] });
    expect(formatSync(failed)).toMatch(/^FAILED +\d+ web-0: .*Droplet is locked by support\./m);
    // One failure passes.
    expect(await failing()).toEqual({ droplets: 0, since: null, error: null });
    await stage.sync();
    await stage.sync();
    const [orphan] = await listOrphans(stage.db, 10);
    expect(orphan?.sweepError).toContain('Droplet is locked by support.');
    expect(await failing()).toEqual({ droplets: 1, since: orphan?.sweepFailingSince, error: orphan?.sweepError });
    expect(await audited(stage)).toEqual(['sync orphan_found', 'orphan-sweep orphan_destroy_sent']);
    stage.sandbox.resetFaults();
    expect((await stage.sync()).destroyed).toHaveLength(1);
    expect(await audited(stage)).toEqual(['sync orphan_found', 'orphan-sweep orphan_destroy_sent', 'orphan-sweep orphan_destroyed']);
    expect(await failing()).toMatchObject({ droplets: 0 });
  });

  test('that a later sync finds destroyed is in the audit as destroyed', async () => {
    const stage = await scene();
    const [id = 0] = addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { lostAnswer: true } }] });
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(alive(stage)).not.toContain(id);
    expect((await audited(stage)).filter((line) => line.startsWith('orphan-sweep'))).toEqual(['orphan-sweep orphan_destroy_sent', 'orphan-sweep orphan_destroyed']);
  });

  test('that is gone at the next look after its deletion, though still listed, is in the audit as destroyed', async () => {
    const stage = await scene();
    const [id = 0] = addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    await stage.sync();
    stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 204 } }] });
    expect((await stage.sync()).notDestroyed).toMatchObject([{ sweepError: 'DigitalOcean accepted the deletion but still shows the droplet' }]);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: `^/v2/droplets/${id}$` }, effect: { status: 404, body: { id: 'not_found', message: 'The resource you were accessing could not be found.' } } }] });
    await stage.sync();
    expect((await audited(stage)).filter((line) => line.startsWith('orphan-sweep'))).toEqual(['orphan-sweep orphan_destroy_sent', 'orphan-sweep orphan_destroyed']);
  });

  test('is not counted as one that cannot be destroyed if the queue store does not answer', async () => {
    const stage = await scene();
    addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    await stage.sync();
    for (let pass = 0; pass < 2; pass += 1) expect(await stage.sync({ isPaused: new Error('connect ECONNREFUSED 10.0.0.7:6379') })).toMatchObject({ destroyed: [], notDestroyed: [] });
    expect((await readFleetFacts(stage.db)).sweepsFailing).toMatchObject({ droplets: 0 });
    expect((await stage.sync()).destroyed).toHaveLength(1);
  });

  test('is destroyed after the grace period from its first sight if the clock of DigitalOcean is ahead', async () => {
    const stage = await scene();
    stage.add(1, { name: 'web-0', tags: tagsOf(await stage.saga({ status: 'compensated', endedAgoMs: 10_000_000 })), created_at: new Date(Date.now() + 3_600_000).toISOString() });
    for (let pass = 0; pass < 2; pass += 1) expect((await stage.sync({ orphanGraceMs: 900_000 })).destroyed).toEqual([]);
    await stage.db.sql`update arcadia.cloud_orphans set first_seen_at = first_seen_at - interval '1 hour'`;
    expect((await stage.sync({ orphanGraceMs: 900_000 })).destroyed).toHaveLength(1);
  });

  test('is left in peace until the grace period is over, by the age of the droplet and by that of its saga\'s end', async () => {
    const stage = await scene();
    const [ofOldSaga, ofYoungSaga] = [await stage.saga({ status: 'compensated', endedAgoMs: 10_000_000 }), await stage.saga({ status: 'compensated', endedAgoMs: 60_000 })];
    stage.add(1, { name: 'web-0', tags: tagsOf(ofOldSaga) });
    addOf(stage, ofYoungSaga, 1);
    for (let pass = 0; pass < 3; pass += 1) await stage.sync({ orphanGraceMs: 900_000 });
    expect(deletes(stage)).toEqual([]);
    await stage.db.sql`update arcadia.sagas set finished_at = finished_at - interval '1 hour'`;
    expect((await stage.sync({ orphanGraceMs: 900_000 })).destroyed.map(({ sagaId }) => sagaId)).toEqual([ofYoungSaga]);
  });

  test('that comes back after it was destroyed on request is destroyed again; one whose absence was only accepted is not', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'completed' });
    const [id = 0] = addOf(stage, sagaId, 1);
    await stage.db.sql`update arcadia.sagas set context = ${JSON.stringify({ droplet_id: id })}::text::jsonb`;
    await stage.sync();
    await stage.provision(id, sagaId);
    await stage.sync();
    await stage.db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() - ${2 * LAG_MS}::int * interval '1 millisecond'`;
    await stage.db.sql`update arcadia.cloud_provisioned set released_at = clock_timestamp() - interval '1 minute'`;
    const accepted = await stage.sync();
    expect(accepted.orphans).toMatchObject([{ category: 'unknown', reason: 'its absence was accepted, but it exists again' }]);
    await stage.sync();
    expect(alive(stage)).toEqual([id]);
    const destroying = await stage.saga({ name: 'destroy_droplet', status: 'completed', input: { droplet_id: id }, context: { droplet_id: id } });
    await stage.db.sql`delete from arcadia.sagas where id = ${destroying}`;
    const again = [{ category: 'surplus', reason: 'it was destroyed on request, but exists again' }];
    expect((await stage.sync()).orphans).toMatchObject(again);
    // Nor does it matter that nothing is on record of the droplet itself any more.
    for (const table of ['cloud_orphans', 'cloud_provisioned', 'cloud_resources']) await stage.db.sql`delete from ${stage.db.sql(`arcadia.${table}`)}`;
    expect((await stage.sync()).orphans).toMatchObject(again);
    await stage.sync();
    expect(alive(stage)).toEqual([]);
  });

  test('is known for ours after its saga\'s row is gone', async () => {
    const stage = await scene();
    const [rolledBack, completed] = [await stage.saga({ status: 'compensated' }), await stage.saga({ status: 'completed', context: { droplet_id: 7 } })];
    await stage.db.sql`delete from arcadia.sagas`;
    addOf(stage, rolledBack, 1);
    addOf(stage, completed, 1);
    await stage.sync();
    await stage.sync();
    expect(alive(stage)).toEqual([]);
  });

  test('five are destroyed in a pass; six are not, until a person has said so', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'compensated' });
    addOf(stage, sagaId, 6);
    await stage.sync();
    const held = await stage.sync();
    expect(held.summary).toMatchObject({ destroyed: 0, held: 6 });
    expect(deletes(stage)).toEqual([]);
    expect(stage.log.filter(({ level, msg }) => level === 50 && String(msg).startsWith('too many surplus droplets'))).toHaveLength(1);
    expect((await audited(stage)).filter((entry) => entry !== 'sync orphan_found')).toEqual(['orphan-sweep orphans_held']);
    const orphans = await listOrphans(stage.db, 10);
    expect(await approveOrphans(stage.db, orphans.map(({ id }) => id), 'cli:ada')).toHaveLength(6);
    expect((await stage.sync()).summary).toMatchObject({ destroyed: 6, held: 0 });
    expect(alive(stage)).toEqual([]);
    addOf(stage, sagaId, 5);
    await stage.sync();
    expect((await stage.sync()).summary.destroyed).toBe(5);
  });

  test.each<[string, (stage: Scene, ids: readonly number[]) => Promise<void>]>([
    [
      'another saga',
      async (stage, ids) => {
        const other = await stage.saga({ status: 'compensated' });
        for (const id of ids) stage.sandbox.editDroplet(id, { tags: tagsOf(other) });
      },
    ],
    [
      'nobody, for a while',
      async (stage, ids) => {
        for (const id of ids) stage.sandbox.editDroplet(id, { name: 'renamed' });
        await stage.sync();
        expect((await listOrphans(stage.db, 10)).map(({ category }) => category)).toEqual(ids.map(() => 'unknown'));
        for (const id of ids) stage.sandbox.editDroplet(id, { name: 'web-0' });
      },
    ],
  ])('is held again, though it was approved, when it is taken for a droplet of %s', async (_whose, change) => {
    const stage = await scene();
    const ids = addOf(stage, await stage.saga({ status: 'compensated' }), 6);
    await stage.sync();
    await approveOrphans(stage.db, (await listOrphans(stage.db, 10)).map(({ id }) => id), 'cli:ada');
    await change(stage, ids);
    await stage.sync();
    expect((await stage.sync()).summary).toMatchObject({ destroyed: 0, held: 6 });
    expect(deletes(stage)).toEqual([]);
    expect((await listOrphans(stage.db, 10)).map(({ approvedAt, approvedBy }) => [approvedAt, approvedBy])).toEqual(ids.map(() => [null, null]));
  });

  test('is left alone when, at the last moment, it is not what it was taken for', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'compensated' });
    const [retagged = 0, taken = 0, gone = 0] = addOf(stage, sagaId, 3);
    await stage.sync();
    let isDone = false;
    const io: Io = async (kind, name, operation) => {
      if (name !== 'orphans.doomed') return operation();
      const doomed = await operation();
      if (isDone) return doomed;
      isDone = true;
      stage.sandbox.editDroplet(retagged, { tags: [...tagsOf(sagaId), `arcadia-saga-id-${crypto.randomUUID()}`] });
      await stage.saga({ status: 'running', context: { droplet_id: taken } });
      stage.sandbox.editDroplet(gone, { vanish: true });
      return doomed;
    };
    const ownDb = { ...stage.db, run: <T>(name: string, statement: Parameters<typeof stage.db.run<T>>[1]) => io('sql', name, () => stage.db.run(name, statement)) };
    await stage.sync({ db: ownDb });
    expect(isDone).toBe(true);
    expect(deletes(stage)).toEqual([]);
    expect(alive(stage)).toEqual([retagged, taken]);
  });

  test('is not destroyed by a sync that somebody else has taken over', async () => {
    const stage = await scene();
    addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    await stage.sync();
    const io: Io = async (kind, name, operation) => {
      const answer = await operation();
      if (kind === 'http' && name.startsWith('GET /v2/droplets/')) await stage.db.sql`update arcadia.inventory_syncs set finished_at = now(), outcome = 'abandoned' where finished_at is null`;
      return answer;
    };
    await expect(stage.trySync({ io })).rejects.toThrow('timed out, and another process may have taken it over');
    expect(deletes(stage)).toEqual([]);
  });
});

describe('never touched', () => {
  test.each(['pending', 'running', 'compensating', 'stuck'])('a droplet whose saga was deleted while it was %s: it is reported', async (status) => {
    const stage = await scene();
    const sagaId = await stage.saga({ status });
    const [id] = addOf(stage, sagaId, 1);
    await stage.db.sql`delete from arcadia.sagas`;
    await stage.sync();
    expect((await stage.sync()).destroyed).toEqual([]);
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ providerId: String(id), category: 'unknown', reason: `its saga was deleted while it was ${status}`, sagaId }]);
  });

  test('droplets of another environment, of nobody, of several sagas, renamed ones, and those of sagas that are not over', async () => {
    const stage = await scene();
    const stranger = crypto.randomUUID();
    const rolledBack = await stage.saga({ status: 'compensated' });
    const [other = 0] = addOf(stage, stranger, 1);
    const [bare = 0] = stage.add(1, { created_at: anHourAgo(), tags: ['managed-by-arcadia-cloud'] });
    const [both = 0] = addOf(stage, rolledBack, 1, { tags: [`arcadia-saga-id-${stranger}`] });
    const [renamed = 0] = addOf(stage, rolledBack, 1, { name: 'somebody-elses-now' });
    const [odd = 0] = stage.add(1, { created_at: anHourAgo(), tags: ['managed-by-arcadia-cloud', 'arcadia-saga-id-not-a-uuid'] });
    for (const status of ['pending', 'running', 'compensating', 'stuck']) addOf(stage, await stage.saga({ status }), 2);
    const [short = 0] = stage.add(1, { created_at: anHourAgo(), tags: [`arcadia-saga-${rolledBack.slice(0, 8)}`] });
    const [plain = 0] = stage.add(1, { created_at: anHourAgo(), tags: ['web'] });
    const before = alive(stage);
    await stage.sync();
    await stage.sync();
    await stage.sync();
    expect(alive(stage)).toEqual(before);
    expect(deletes(stage)).toEqual([]);
    const orphans = await listOrphans(stage.db, 100);
    expect(orphans.map(({ providerId, category }) => [Number(providerId), category])).toEqual([other, bare, both, renamed, odd, short].map((id) => [id, 'unknown']));
    expect(await approveOrphans(stage.db, orphans.map(({ id }) => id), 'cli:ada')).toEqual([]);
    expect(before).toContain(plain);
  });

  test('a droplet that was adopted by the short tag alone, and is on record', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'completed' });
    const [id = 0] = stage.add(1, { created_at: anHourAgo(), name: 'web-0', tags: [`arcadia-saga-${sagaId.slice(0, 8)}`] });
    await stage.sync();
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ category: 'unknown' }]);
    await stage.provision(id, sagaId);
    await stage.sync();
    expect(await listOrphans(stage.db, 10)).toEqual([]);
  });

  test('a droplet on record whose tags somebody changed, or that was renamed', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'completed' });
    const [retagged = 0, renamed = 0] = addOf(stage, sagaId, 2);
    await stage.sync();
    await stage.db.sql`delete from arcadia.cloud_orphans`;
    await stage.provision(retagged, sagaId);
    stage.sandbox.editDroplet(retagged, { tags: ['managed-by-arcadia-cloud', 'prod'], name: 'other' });
    // Of this one the saga alone knows.
    await stage.db.sql`update arcadia.sagas set context = ${JSON.stringify({ droplet_id: renamed })}::text::jsonb where id = ${sagaId}`;
    stage.sandbox.editDroplet(renamed, { name: 'other' });
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(await listOrphans(stage.db, 10)).toEqual([]);
    expect(alive(stage)).toEqual([retagged, renamed]);
  });

  test('a surplus droplet whose tags cannot be read: it stays on record, and is destroyed when they can', async () => {
    const stage = await scene();
    const [id = 0] = addOf(stage, await stage.saga({ status: 'compensated' }), 1);
    await stage.sync();
    stage.sandbox.setFaults({ garble: { tags: 'unreadable' } });
    for (let pass = 0; pass < 2; pass += 1) expect((await stage.sync()).destroyed).toEqual([]);
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ providerId: String(id), category: 'surplus' }]);
    expect(deletes(stage)).toEqual([]);
    stage.sandbox.resetFaults();
    await stage.sync();
    expect(alive(stage)).toEqual([]);
  });

  test('a surplus droplet whose age cannot be read, before the inventory has known it for the grace period', async () => {
    const stage = await scene();
    addOf(stage, await stage.saga({ status: 'compensated', endedAgoMs: 10_000_000 }), 1);
    stage.sandbox.setFaults({ garble: { created_at: '0001-01-01T00:00:00Z', image: null } });
    for (let pass = 0; pass < 2; pass += 1) await stage.sync({ orphanGraceMs: 900_000 });
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ category: 'surplus' }]);
    expect(deletes(stage)).toEqual([]);
    await stage.db.sql`update arcadia.cloud_resources set first_seen_at = first_seen_at - interval '1 hour'`;
    await stage.sync({ orphanGraceMs: 900_000 });
    expect(alive(stage)).toEqual([]);
  });

  test('what is on record as provisioned, though its saga\'s row says otherwise', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ status: 'running' });
    const [id = 0] = addOf(stage, sagaId, 1);
    await stage.db.sql`insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', ${String(id)}, 'droplet', 'web-0', 'active')`;
    await stage.provision(id, sagaId);
    await stage.db.sql`update arcadia.sagas set status = 'compensated', finished_at = now() - interval '1 hour'`;
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(alive(stage)).toEqual([id]);
    await stage.db.sql`delete from arcadia.sagas`;
    await stage.db.sql`delete from arcadia.saga_tombstones`;
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(alive(stage)).toEqual([id]);
  });

  test('a droplet that its completed saga did not enter into the inventory, until its record is there, also after the row is gone', async () => {
    const stage = await scene();
    const sagaId = await stage.saga({ name: 'build', status: 'completed', steps: ['create_droplet', 'wait_droplet_active'] });
    const [id = 0] = addOf(stage, sagaId, 1);
    await stage.db.sql`update arcadia.sagas set context = ${JSON.stringify({ droplet_id: id })}::text::jsonb`;
    const found = [{ providerId: String(id), category: 'unknown', reason: 'its saga is completed, but has not entered it into the inventory', sagaId }];
    expect((await stage.sync()).orphans).toMatchObject(found);
    await stage.db.sql`delete from arcadia.sagas`;
    for (let pass = 0; pass < 2; pass += 1) await stage.sync();
    expect(await listOrphans(stage.db, 10)).toMatchObject(found);
    expect(alive(stage)).toEqual([id]);
    await stage.provision(id, sagaId);
    await stage.sync();
    expect(await listOrphans(stage.db, 10)).toEqual([]);
  });

  test('an orphan that is explained, or gone, is none any more', async () => {
    const stage = await scene();
    const [other = 0] = addOf(stage, crypto.randomUUID(), 1);
    const [vanished = 0] = addOf(stage, crypto.randomUUID(), 1);
    await stage.sync();
    expect(await listOrphans(stage.db, 10)).toHaveLength(2);
    stage.sandbox.editDroplet(other, { tags: ['web'] });
    stage.sandbox.editDroplet(vanished, { vanish: true });
    await stage.sync();
    expect(await listOrphans(stage.db, 10)).toEqual([]);
    const rows = await stage.db.sql<{ resolution: string }[]>`select resolution from arcadia.cloud_orphans order by id`;
    expect(rows.map(({ resolution }) => resolution)).toEqual(['explained', 'gone']);
  });
});

describe('an adopted droplet', () => {
  const old = { created_at: '2024-01-01T00:00:00Z' };

  test.each(['pending', 'running', 'compensating', 'stuck'])('that carries the tags, and is not on record (yet), is accounted for while its saga is %s', async (status) => {
    const stage = await scene();
    const [id = 0] = stage.add(1, old);
    const sagaId = await adopting(stage, id, status);
    stage.sandbox.editDroplet(id, { tags: adoptionTags(sagaId) });
    for (let pass = 0; pass < 3; pass += 1) expect((await stage.sync()).orphans).toEqual([]);
    expect([alive(stage), deletes(stage)]).toEqual([[id], []]);
  });

  test('that is registered and completed between two looks at the database is accounted for', async () => {
    const stage = await scene();
    const [id = 0] = stage.add(1, old);
    await stage.sync();
    const sagaId = await adopting(stage, id, 'running');
    stage.sandbox.editDroplet(id, { tags: adoptionTags(sagaId) });
    const db: Database = {
      ...stage.db,
      run: async (name, statement) => {
        const answer = await stage.db.run(name, statement);
        if (name === 'sagas.at_work' || name === 'inventory.provisions') {
          await stage.provision(id, sagaId).catch(() => undefined);
          await stage.db.sql`update arcadia.sagas set status = 'completed', finished_at = clock_timestamp(), context = context || ${JSON.stringify({ droplet_id: id })}::text::jsonb where id = ${sagaId}`;
        }
        return answer;
      },
    };
    expect((await stage.sync({ db })).orphans).toEqual([]);
    expect((await stage.sync()).orphans).toEqual([]);
    expect(deletes(stage)).toEqual([]);
  });

  test('is accounted for by its record, also when its saga\'s row is gone and somebody took its tags off', async () => {
    const stage = await scene();
    const [id = 0] = stage.add(1, old);
    const sagaId = await adopting(stage, id, 'completed');
    stage.sandbox.editDroplet(id, { tags: adoptionTags(sagaId) });
    await stage.db.sql`update arcadia.sagas set context = context || ${JSON.stringify({ droplet_id: id })}::text::jsonb`;
    await stage.sync();
    await stage.provision(id, sagaId);
    expect((await stage.sync()).orphans).toEqual([]);
    await stage.db.sql`delete from arcadia.sagas`;
    expect((await stage.sync()).orphans).toEqual([]);
    stage.sandbox.editDroplet(id, { tags: ['managed-by-arcadia-cloud'] });
    expect((await stage.sync()).orphans).toEqual([]);
    expect([alive(stage), deletes(stage)]).toEqual([[id], []]);
  });

  test.each([
    ['was rolled back, and its tags are left', 'compensated', (sagaId: string) => adoptionTags(sagaId)],
    ['was rolled back, and somebody tagged it as if the saga had made it', 'compensated', (sagaId: string) => tagsOf(sagaId)],
    ['completed with another droplet, and its tags were copied', 'completed', (sagaId: string) => adoptionTags(sagaId)],
    ['completed with another droplet, and somebody tagged it as if the saga had made it', 'completed', (sagaId: string) => tagsOf(sagaId)],
  ] as const)('the adoption of which %s, is reported, and never destroyed', async (_what, status, tags) => {
    for (const isBuried of [false, true]) {
      const stage = await scene();
      const [id = 0, nameless = 0, other = 0] = stage.add(3, old);
      const sagaId = await adopting(stage, status === 'completed' ? other : id, status);
      for (const one of [id, nameless]) stage.sandbox.editDroplet(one, { tags: tags(sagaId) });
      stage.sandbox.setFaults({ rules: [] });
      if (isBuried) await stage.db.sql`delete from arcadia.sagas`;
      for (let pass = 0; pass < 4; pass += 1) await stage.sync();
      expect((await listOrphans(stage.db, 10)).map(({ category, providerId }) => [category, providerId])).toEqual([['unknown', String(id)], ['unknown', String(nameless)]]);
      expect(await approveOrphans(stage.db, (await listOrphans(stage.db, 10)).map((orphan) => orphan.id), 'ada')).toEqual([]);
      await stage.sync();
      expect([alive(stage).length, deletes(stage)]).toEqual([3, []]);
    }
  });

  test('that was destroyed on request, and exists again, is reported, and never destroyed by itself', async () => {
    const stage = await scene();
    const [id = 0] = stage.add(1, old);
    const sagaId = await adopting(stage, id, 'completed');
    stage.sandbox.editDroplet(id, { tags: adoptionTags(sagaId) });
    await stage.sync();
    await stage.provision(id, sagaId);
    await stage.db.sql`update arcadia.cloud_provisioned set released_at = clock_timestamp() - interval '1 hour'`;
    await stage.saga({ name: 'destroy_droplet', status: 'completed', input: { droplet_id: id }, context: { droplet_id: id } });
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ category: 'unknown', providerId: String(id) }]);
    expect([alive(stage), deletes(stage)]).toEqual([[id], []]);
  });

  test('of another environment is reported', async () => {
    const stage = await scene();
    const [id = 0] = stage.add(1, { ...old, tags: adoptionTags(crypto.randomUUID()) });
    for (let pass = 0; pass < 3; pass += 1) await stage.sync();
    expect(await listOrphans(stage.db, 10)).toMatchObject([{ category: 'unknown', providerId: String(id), reason: expect.stringMatching(/^it carries the tag of adoption .* but is not on record as adopted$/) }]);
    expect(deletes(stage)).toEqual([]);
  });
});
