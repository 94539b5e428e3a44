// Leases in a whole fleet: real workers that are really killed, on either queue store. ARCADIA_LEASE_DROPLETS=1000 plays the full
// number of droplets, and prints how long after the end of its lease each one was gone.

import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openFleet, web } from '../support/fleet.ts';
import type { Fleet, QueueStoreKind } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';

const count = Number(process.env['ARCADIA_LEASE_DROPLETS'] ?? 20);
const isFull = count > 100;
// So that never more than a fifth of all end within one look: that would be held.
const ends = isFull ? { firstS: 120, lastS: 420 } : { firstS: 7, lastS: 10 };
const killEveryMs = isFull ? 10_000 : 4_000;

async function fleetOf(kind: QueueStoreKind): Promise<Fleet> {
  const fleet = await openFleet(kind, { activateAfterMs: 100 });
  onTestFinished(() => fleet[Symbol.asyncDispose]());
  return fleet;
}

/** Takes note of when each droplet is gone, until the signal is aborted, and looks once more then. */
async function watchDroplets({ sandbox }: Fleet, goneAt: Map<number, number>, signal: AbortSignal): Promise<void> {
  let before = new Set<number>();
  const look = () => {
    const now = new Set(sandbox.state({ alive: true }).map(({ id }) => id));
    for (const id of before) if (!now.has(id)) goneAt.set(id, Date.now());
    before = now;
  };
  while (!signal.aborted) {
    look();
    await delay(100);
  }
  look();
}

describe.each(queueStoreKinds())('on %s', (kind) => {
  test(`each of ${count} droplets is gone soon after its lease ended, and none before, though workers are killed`, { timeout: 120_000 + (isFull ? 1_200_000 : 0) }, async () => {
    const fleet = await fleetOf(kind);
    const foreign = fleet.sandbox.addForeignDroplet({ name: 'lease-1' }).id;
    const stop = new AbortController();
    const goneAt = new Map<number, number>();
    const workers = [await fleet.startWorker(), await fleet.startWorker()];
    const killing = (async () => {
      while (!stop.signal.aborted) {
        await delay(killEveryMs, undefined, { signal: stop.signal }).catch(() => undefined);
        if (stop.signal.aborted) return;
        workers.shift()?.signal('SIGKILL');
        workers.push(await fleet.startWorker());
      }
    })();
    const watching = watchDroplets(fleet, goneAt, stop.signal);

    const ttlOf = (index: number) => Math.round(ends.firstS + ((ends.lastS - ends.firstS) * index) / count);
    await Promise.all(Array.from({ length: count }, (_, index) => fleet.client.provisionDroplet({ ...web, name: `lease-${index + 1}`, lease: { ttl_s: ttlOf(index) } })));
    // Some are renewed in time; which of them lived until then is seen by the answers.
    await delay(isFull ? 60_000 : 4_000);
    const known = await fleet.db.sql<{ id: string }[]>`select context->>'droplet_id' as id from arcadia.sagas where name = 'provision_droplet' and context ? 'droplet_id' order by created_at`;
    // Two a second: many that end at once would be held.
    const renewals = known.filter((_, index) => index % 4 === 0).map(({ id }, index) => fleet.client.renewLease(Number(id), { ttlS: ends.lastS + 3 + Math.floor(index / 2) }));
    const renewed = (await Promise.allSettled(renewals)).filter(({ status }) => status === 'fulfilled').length;

    await waitFor(
      async () => {
        const [open] = await fleet.db.sql<{ count: number }[]>`select count(*)::int as count from arcadia.sagas where finished_at is null`;
        return open?.count === 0 && fleet.sandbox.state({ alive: true }).length === 1;
      },
      { what: 'every leased droplet to be gone', deadlineMs: (ends.lastS + count / 8 + 80) * 1_000, everyMs: 250 },
    );
    stop.abort();
    await Promise.all([killing, watching]);

    const expired = await fleet.db.sql<{ sagaId: string; leaseUntil: Date }[]>`select saga_id, lease_until from arcadia.lease_events where type = 'lease.expired'`;
    expect(new Set(expired.map(({ sagaId }) => sagaId)).size).toBe(count);
    const untilOf = new Map(expired.map(({ sagaId, leaseUntil }) => [`arcadia-saga-id-${sagaId}`, leaseUntil.getTime()]));
    const own = fleet.sandbox.state().filter(({ id }) => id !== foreign);
    expect(renewed).toBeGreaterThan(0);
    const lateMs = own.map(({ id, tags }) => (goneAt.get(id) ?? Number.NaN) - (untilOf.get(tags.find((tag) => untilOf.has(tag)) ?? '') ?? Number.NaN)).toSorted((one, other) => one - other);
    expect(lateMs.filter(Number.isNaN)).toEqual([]);
    const p99 = lateMs[Math.ceil(lateMs.length * 0.99) - 1] ?? Number.NaN;
    if (isFull) process.stdout.write(`${kind}: ${count} droplets, ${renewed} renewed; gone after the end of the lease: first ${lateMs[0]} ms, median ${lateMs[Math.floor(lateMs.length / 2)]} ms, p99 ${p99} ms, last ${lateMs.at(-1)} ms\n`);
    expect(lateMs[0]).toBeGreaterThan(0);
    expect(p99).toBeLessThan(60_000);
    expect(fleet.sandbox.state({ alive: true }).map(({ id }) => id)).toEqual([foreign]);
  });

  test('after an hour without workers, droplets whose lease ended are destroyed before waiting creates are sent', { timeout: 120_000 }, async () => {
    const fleet = await fleetOf(kind);
    const worker = await fleet.startWorker();
    const leased = await Promise.all([1, 2, 3, 4].map((number) => fleet.client.provisionDroplet({ ...web, name: `old-${number}`, lease: { ttl_s: 3_600 } })));
    for (const { sagaId } of leased) expect((await fleet.atRest(sagaId)).status).toBe('completed');
    worker.signal('SIGKILL');
    await worker.ended;
    await fleet.db.sql`update arcadia.cloud_provisioned set lease_until = clock_timestamp() - interval '1 hour'`;
    const waiting = await Promise.all(Array.from({ length: 8 }, (_, index) => fleet.client.provisionDroplet({ ...web, name: `new-${index + 1}` })));
    fleet.sandbox.clearLedger();

    await fleet.startWorker({ WORKER_CONCURRENCY: '1' });
    for (const { sagaId } of waiting) expect((await fleet.atRest(sagaId)).status).toBe('completed');
    const sent = fleet.sandbox.ledger().filter(({ method }) => method === 'DELETE' || method === 'POST').map(({ method }) => method);
    expect(sent).toEqual([...leased.map(() => 'DELETE'), ...waiting.map(() => 'POST')]);
    expect(fleet.sandbox.state({ alive: true }).map(({ name }) => name).toSorted()).toEqual(waiting.map((_, index) => `new-${index + 1}`));
  });
});
