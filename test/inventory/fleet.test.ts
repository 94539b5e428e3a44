// The sync in a fleet: workers that nobody tells to, the faults that the orphan sweep is there for, and the commands.

import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { listDrift } from '../../src/inventory/drift-store.ts';
import { listOrphans } from '../../src/inventory/orphans.ts';
import { listSyncs } from '../../src/inventory/syncs.ts';
import type { Io } from '../../src/platform/io.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';
import { runCommand } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import { tagsOf } from './stage.ts';

const settings = { INVENTORY_SYNC_INTERVAL_MS: '400', ORPHAN_GRACE_MS: '1000' };
const create = { method: 'POST', path: '/v2/droplets' } as const;
const alive = (stage: Stage) => stage.sandbox.state({ alive: true }).map(({ id }) => id);
const deleted = (stage: Stage, id: number) => stage.sandbox.ledger().some(({ method, path }) => method === 'DELETE' && path === `/v2/droplets/${id}`);

/** Waits for `more` complete syncs, and returns the number of the last. */
async function syncs(stage: Stage, more = 1): Promise<number> {
  const numberOf = async () => (await listSyncs(stage.db, 5)).find(({ outcome }) => outcome === 'complete')?.number ?? 0;
  const before = await numberOf();
  return waitFor(async () => (await numberOf()) >= before + more && numberOf(), { what: `${more} syncs` });
}

const gone = (stage: Stage, id: number) => waitFor(() => !alive(stage).includes(id), { what: `droplet ${id} to be destroyed`, deadlineMs: 40_000 });

describe.each(queueStoreKinds())('three workers, queues on %s', (backend) => {
  test('sync once in an interval, and still do after the queues were lost', async () => {
    await using stage = await openFaultStage({ settings: { ...settings, INVENTORY_SYNC_INTERVAL_MS: '600' }, ...(backend === 'postgres' ? { redisUrl: null } : {}) });
    stage.sandbox.addForeignDroplet({ name: 'somebody-elses' });
    for (let count = 0; count < 3; count += 1) await stage.work();
    await syncs(stage, 3);
    const rows = (await listSyncs(stage.db, 10)).toReversed();
    const pauses = rows.slice(1).map(({ startedAt }, index) => startedAt.getTime() - (rows[index]?.startedAt.getTime() ?? 0));
    expect(pauses.filter((pauseMs) => pauseMs < 600)).toEqual([]);
    const queue = stage.queue(queueNames.inventory);
    const [job] = await queue.getJobs(['completed']);
    expect(job?.returnvalue).toMatch(/^sync \d+: 1 droplets; /);
    await queue.obliterate({ force: true });
    await syncs(stage, 2);
    // Paused, none runs.
    await queue.pause();
    await waitFor(async () => (await queue.getActiveCount()) === 0, { what: 'the last sync to end' });
    const before = (await listSyncs(stage.db, 1))[0]?.number;
    await waitFor(async () => (await queue.getJobs(['waiting'])).length > 0, { what: 'a job to wait in the paused queue' });
    expect((await listSyncs(stage.db, 1))[0]?.number).toBe(before);
    await queue.resume();
    await syncs(stage);
  });
});

describe.concurrent('what only the orphan sweep can put right', () => {
  test('a droplet that shows up after the grace period, when its saga has completed with another', async () => {
    // The first create is accepted, its answer lost, and its droplet in no list for longer than anybody looks for it.
    await using stage = await openFaultStage({ settings, sandbox: { faults: { rules: [{ match: create, times: 1, effect: { lostAnswer: true } }], listLagMs: 3_600_000, tagLagMs: 3_600_000 } } });
    const foreign = stage.sandbox.addForeignDroplet({ name: 'web-1', created_at: '2020-01-01T00:00:00Z', tags: ['managed-by-arcadia-cloud', `arcadia-saga-id-${randomUUID()}`] }).id;
    await stage.provision('web-1');
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('completed');
    const kept = Number(saga?.context['droplet_id']);
    const late = alive(stage).find((id) => id !== kept && id !== foreign) ?? 0;
    expect(late).toBeGreaterThan(0);
    stage.sandbox.setFaults({ listLagMs: 0, tagLagMs: 0 });
    await gone(stage, late);
    await syncs(stage);
    expect(alive(stage)).toEqual([foreign, kept]);
    expect((await listOrphans(stage.db, 10)).map(({ providerId, category }) => [providerId, category])).toEqual([[String(foreign), 'unknown']]);
    await stage.expectLawful();
  });

  test('a droplet of a worker that made it when its saga was long rolled back, and died before it could tell', async () => {
    await using stage = await openFaultStage({ settings });
    const thaw = Promise.withResolvers<void>();
    let isAtPost = false;
    let isDead = false;
    // Frozen between the last check and the send; it wakes, sends, and dies with the answer in its hands.
    const io: Io = async (kind, name, operation) => {
      if (isDead) throw new Error('the worker is dead');
      // A sync that it died in would keep the others from theirs for a minute.
      if (name === 'syncs.start') throw new Error('this worker runs no sync');
      if (kind !== 'http' || name !== 'POST /v2/droplets') return operation();
      isAtPost = true;
      await thaw.promise;
      await operation();
      isDead = true;
      throw new Error('the worker is dead');
    };
    const sagaId = await stage.provision('web-1');
    const zombie = await stage.work({ io, settings: { INVENTORY_SYNC_INTERVAL_MS: '900000' } });
    await waitFor(() => isAtPost, { what: 'the worker to be about to POST' });
    await stage.client.cancel(sagaId, 'test');
    await stage.work();
    expect((await stage.atRest())[0]?.status).toBe('compensated');
    thaw.resolve();
    const late = await waitFor(() => alive(stage)[0], { what: 'the late droplet' });
    await gone(stage, late);
    await stage.expectLawful();
    await zombie.close();
  });

  test('the droplet that a restored database knows nothing of, after its saga has made another', async () => {
    await using stage = await openFaultStage({ settings });
    const sagaId = await stage.provision('web-1');
    const worker = await stage.work();
    await stage.atRest();
    const [lost = 0] = alive(stage);
    await worker.close();
    // The last commits are lost: all that the saga wrote since it was started.
    await stage.db.sql`delete from arcadia.cloud_provisioned`;
    await stage.db.sql`delete from arcadia.cloud_orphans`;
    await stage.db.sql`delete from arcadia.cloud_resources`;
    await stage.db.sql`delete from arcadia.saga_events where seq > 0`;
    await stage.db.sql`update arcadia.sagas set status = 'pending', revision = 0, cursor = 0, context = '{}', finished_at = null, wake_at = clock_timestamp() where id = ${sagaId}`;
    await stage.queue(queueNames.steps).obliterate({ force: true });
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('completed');
    expect(saga?.context['droplet_id']).not.toBe(lost);
    await gone(stage, lost);
    expect(alive(stage)).toEqual([saga?.context['droplet_id']]);
  });

  test('and a droplet of another environment stays, though the fleet syncs again and again', async () => {
    await using stage = await openFaultStage({ settings });
    const foreign = [randomUUID(), randomUUID()].map((id) => stage.sandbox.addForeignDroplet({ name: 'web-1', created_at: '2020-01-01T00:00:00Z', tags: tagsOf(id) }).id);
    await stage.work();
    await syncs(stage, 5);
    expect(alive(stage)).toEqual(foreign);
    expect(foreign.map((id) => deleted(stage, id))).toEqual([false, false]);
  });
});

test('on the command line: a sync, drift and its acceptance, orphans and their approval', async () => {
  await using stage = await openFaultStage({ settings: { ORPHAN_GRACE_MS: '1' } });
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await runCommand(args, { ...stage.env, LOG_LEVEL: 'info' });
    return { code, out: stdout.trimEnd(), err: stderr };
  };
  const sagaId = await stage.provision('web-1');
  const worker = await stage.work();
  await stage.atRest();
  await worker.close();
  const [id = 0] = alive(stage);
  stage.sandbox.editDroplet(id, { size_slug: 's-2vcpu-4gb' });
  const surplus = Array.from({ length: 6 }, () => stage.sandbox.addForeignDroplet({ name: 'web-1', tags: tagsOf(sagaId), created_at: '2020-01-01T00:00:00Z' }).id);
  const first = await run('sync');
  expect([first.code, first.err]).toEqual([0, '']);
  expect(first.out).toContain(`changed   ${id} web-1: size_slug, attrs`);
  expect(first.out).toContain(`drifted   ${id} web-1: size_slug is s-2vcpu-4gb, s-1vcpu-1gb is desired`);
  expect(first.out).toContain(`orphan    ${surplus[0]} web-1: surplus, its saga completed with droplet ${id}`);
  const [drift] = await listDrift(stage.db, { withResolved: false, limit: 5 });
  const [accepted, second, wrong] = await Promise.all([run('drift', 'accept', String(drift?.id)), run('sync', '--json'), run('orphans', '--destroy')]);
  expect(accepted).toEqual({ code: 0, out: `accepted: droplet ${id} web-1: size_slug s-2vcpu-4gb is now the desired state`, err: '' });
  const held = z.object({ summary: z.object({ held: z.int(), destroyed: z.int(), appeared: z.int() }) }).parse(JSON.parse(second.out));
  expect(held.summary).toEqual({ held: 6, destroyed: 0, appeared: 0 });
  expect([wrong.code, wrong.err]).toEqual([2, expect.stringContaining('--yes')]);

  await stage.queue(queueNames.inventory).pause();
  const [listed, again, orphans, approved] = await Promise.all([run('drift', '--all'), run('drift', 'accept', String(drift?.id)), run('orphans'), run('orphans', '--destroy', '--yes')]);
  expect(listed.out).toMatch(new RegExp(`^${drift?.id} +${id} +web-1 +size_slug +s-1vcpu-1gb +s-2vcpu-4gb .* accepted `, 'm'));
  expect([again.code, again.err]).toEqual([1, `drift ${drift?.id} is already resolved (accepted)\n`]);
  expect(orphans.out).toContain(sagaId);
  expect(orphans.out).toMatch(/^6 surplus: 0\.05358 USD an hour$/m);
  expect(approved.out).toContain('approved 6: the queue inventory is paused, so none is destroyed. Resume it on the Queues page');
  expect(approved.out).not.toContain('syncs now');
  expect((await run('sync')).out).toContain('PAUSED    the queue inventory is paused');
  expect(alive(stage)).toHaveLength(7);
  await stage.queue(queueNames.inventory).resume();
  expect((await run('sync')).out).toContain(`destroyed ${surplus[0]} web-1`);
  expect(alive(stage)).toEqual([id]);
  expect((await run('orphans', '--json')).out).toBe('[]');
});
