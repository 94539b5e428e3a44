// What retention must not take away: that a droplet of long ago is still ours.
import { expect, test } from 'vitest';
import { hasResource, resourceExpiry } from '../../src/inventory/expire.ts';
import { silentLog } from '../../src/platform/log.ts';
import { auditExpiry, sagaExpiry } from '../../src/saga/expire.ts';
import { retain } from '../../src/saga/retention.ts';
import type { Bench } from './stage.ts';
import { alive, idsOf, useStepStage } from './stage.ts';

const openBench = useStepStage();

/** As if the retention, and a day, had passed since everything that happened so far. */
async function ageByRetention({ db }: Bench): Promise<unknown> {
  const by = db.sql`interval '91 days'`;
  await db.sql`update arcadia.sagas set created_at = created_at - ${by}, finished_at = finished_at - ${by}`;
  await db.sql`update arcadia.cloud_resources set deleted_at = deleted_at - ${by}`;
  const expiries = [sagaExpiry(db, 90, hasResource(90)), auditExpiry(db, 90), resourceExpiry(db, 90)];
  return retain({ db, expiries, log: silentLog, signal: new AbortController().signal, pauseMs: 0, everyMs: 0 });
}

test('a droplet that was provisioned longer ago than the retention can be destroyed, and then its sagas go', async () => {
  const bench = await openBench();
  const { id, context } = await bench.drive((await bench.provision()).id);
  const dropletId = Number(context['droplet_id']);
  expect(await ageByRetention(bench)).toMatchObject({ sagas: 0, resources: 0 });
  expect((await bench.saga(id)).status).toBe('completed');

  const destroyed = await bench.drive((await bench.destroy(dropletId)).id);
  expect(destroyed.status).toBe('completed');
  expect(alive(bench.sandbox)).toEqual([]);
  expect(await ageByRetention(bench)).toMatchObject({ sagas: 2, resources: 1 });
  expect(await bench.inventory()).toEqual([]);
});

test('no new saga takes a droplet of long ago for its own, of whatever name', async () => {
  const bench = await openBench();
  const old = await bench.drive((await bench.provision()).id);
  await ageByRetention(bench);
  // The answer to its create is lost, so it looks for what it may have made.
  bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, times: 1, effect: { lostAnswer: true } }] });
  const next = await bench.drive((await bench.provision()).id);
  expect(next.status).toBe('completed');
  expect(next.context['droplet_id']).not.toBe(old.context['droplet_id']);
  expect(idsOf(alive(bench.sandbox))).toEqual([old.context['droplet_id'], next.context['droplet_id']]);
});
