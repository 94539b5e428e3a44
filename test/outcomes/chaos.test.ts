// Outcomes under chaos: workers are killed, the receiver is down for a while and fails a fifth of the time. Each end is delivered,
// none before its commit, none out of order, none that did not happen.
//
//   ARCADIA_OUTCOME_SAGAS=10000 ARCADIA_OUTCOME_DOWN_S=300 npx vitest run test/outcomes/chaos.test.ts
//
// ARCADIA_OUTCOME_PER_S is how many sagas begin a second while all is well, by default less than two cores can do. With more,
// sagas end faster than a busy machine tells of them.
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import { startSaga } from '../../src/saga/start.ts';
import type { WorkerUnderTest } from '../support/fleet.ts';
import { openFleet } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import { SECRET, startReceiver } from './stage.ts';
import { trial } from './trial-app.ts';

const SAGAS = Number(process.env['ARCADIA_OUTCOME_SAGAS'] ?? 60);
const DOWN_MS = 1_000 * Number(process.env['ARCADIA_OUTCOME_DOWN_S'] ?? 2);
const PER_S = Number(process.env['ARCADIA_OUTCOME_PER_S'] ?? 80);
const KILL_EVERY_MS = Math.min(10_000, Math.max(2_000, SAGAS * 4));
const DEADLINE_MS = 120_000 + DOWN_MS * 4 + SAGAS * 100;
// The promise. A few sagas beside a whole suite of tests say nothing about it.
const P99_MS = SAGAS < 900 ? Number.POSITIVE_INFINITY : 2_000;
const WORKERS = 2;

type End = Readonly<{ id: string; type: string; at: Date }>;

test.each(queueStoreKinds())('each end reaches the receiver, in order and after its commit, with the queues in %s', { timeout: DEADLINE_MS * 2 }, async (kind) => {
  const state = { isDown: false, fails: 0, isOver: false };
  await using receiver = await startReceiver((_received, response) => {
    const isTaken = !state.isDown && Math.random() >= state.fails;
    response.writeHead(isTaken ? 204 : 503).end();
    return isTaken;
  });
  await using fleet = await openFleet(kind);
  const environment = { ARCADIA_APP: fileURLToPath(new URL('trial-app.ts', import.meta.url)), OUTCOME_WEBHOOK_URL: receiver.url, OUTCOME_WEBHOOK_SECRETS: SECRET, LOG_LEVEL: 'info' };
  const workers: WorkerUnderTest[] = await Promise.all(Array.from({ length: WORKERS }, () => fleet.startWorker(environment)));
  const subscribed = async () => (await listSubscriptions(fleet.db)).some(({ name }) => name === 'webhook');
  await waitFor(subscribed, { what: 'the subscription', deadlineMs: 30_000 });

  // Healthy, for the time from the commit to the receiver.
  const startedAt = Date.now();
  const begin = async (count: number, offset: number, perS = Number.POSITIVE_INFINITY) => {
    const begunAt = performance.now();
    for (let number = offset; number < offset + count; number += 1) {
      await delay(Math.max(0, ((number - offset) * 1_000) / perS - (performance.now() - begunAt)));
      const end = number % 10 === 3 ? 'compensated' : number % 10 === 7 ? 'stuck' : 'completed';
      await startSaga(fleet.db, { [trial.name]: trial }, { name: trial.name, input: { number, end } }, 0);
    }
  };
  const healthy = Math.ceil(SAGAS / 3);
  await begin(healthy, 0, PER_S);
  await waitFor(() => receiver.taken.length >= healthy, { what: 'the outcomes of a healthy fleet', deadlineMs: DEADLINE_MS });
  const ages = receiver.taken.map(({ body, at }) => at - Date.parse(body.timestamp)).toSorted((one, other) => one - other);
  const p99 = ages[Math.ceil(ages.length * 0.99) - 1] ?? 0;
  expect(p99).toBeLessThan(P99_MS);

  // A person retries what is stuck, while workers die and the receiver fails.
  state.fails = 0.2;
  const loop = async (what: () => Promise<unknown>, everyMs: number) => {
    while (!state.isOver) {
      await what();
      await delay(everyMs);
    }
  };
  let kills = 0;
  const killing = loop(async () => {
    await delay(KILL_EVERY_MS);
    const [victim] = workers.splice(0, 1);
    if (state.isOver || victim === undefined) return;
    kills += 1;
    victim.signal('SIGKILL');
    workers.push(await fleet.startWorker(environment));
  }, 0);
  const retrying = loop(async () => {
    const stuck = await fleet.db.sql<{ id: string }[]>`select id from arcadia.sagas where status = 'stuck'`;
    for (const { id } of stuck) await fleet.client.retry(id, 'a person').catch(() => undefined);
  }, 200);
  const breaking = (async () => {
    state.isDown = true;
    await delay(DOWN_MS);
    state.isDown = false;
  })();
  await begin(SAGAS - healthy, healthy);
  await breaking;
  await waitFor(async () => (await fleet.db.sql`select 1 from arcadia.sagas where status not in ('completed', 'compensated') limit 1`).length === 0, { what: 'the end of all sagas', deadlineMs: DEADLINE_MS });
  const ends = await fleet.db.sql<End[]>`
    select saga_id || '/' || seq as id, 'saga.' || (detail->>'status') as type, at from arcadia.saga_events
    where detail->>'status' in ('completed', 'compensated', 'stuck') order by saga_id, seq`;
  const seen = () => new Set(receiver.taken.map(({ body }) => body.data.id));
  await waitFor(() => seen().size >= ends.length, { what: `${ends.length} outcomes`, deadlineMs: DEADLINE_MS });
  await waitFor(async () => (await listSubscriptions(fleet.db)).every(({ waiting }) => waiting === 0), { what: 'no delivery to wait', deadlineMs: 60_000 });
  state.isOver = true;
  await Promise.all([killing, retrying]);

  const expected = new Map(ends.map((end) => [end.id, end]));
  expect(receiver.taken.filter(({ body, at }) => {
    const end = expected.get(body.data.id);
    // Its type is that of the event; it cannot have come before the event was written.
    return end === undefined || end.type !== body.type || at < end.at.getTime() - 50;
  })).toEqual([]);
  expect(seen().size).toBe(ends.length);
  const order = Map.groupBy(receiver.taken, ({ body }) => body.data.saga_id);
  const outOfOrder = [...order.values()].map((taken) => [...new Set(taken.map(({ body }) => body.data.id))]).filter((ids) => ids.some((id, index) => index > 0 && revisionOf(id) < revisionOf(ids[index - 1] ?? '')));
  expect(outOfOrder).toEqual([]);
  expect([...order.values()].filter((taken) => new Set(taken.map(({ body }) => body.type).filter((type) => type !== 'saga.stuck')).size !== 1)).toEqual([]);
  expect(receiver.taken.some(({ body }) => body.type === 'saga.stuck')).toBe(true);
  const duplicates = receiver.taken.length - ends.length;
  // Each kill may leave the deliveries that were under way to be repeated.
  expect(duplicates).toBeLessThanOrEqual(kills * 20);
  expect(kills).toBeGreaterThan(0);
  process.stdout.write(`outcomes on ${kind}: ${SAGAS} sagas, ${ends.length} ends, ${receiver.requests.length} requests, ${duplicates} repeated, ${kills} kills, down ${DOWN_MS / 1_000} s, at ${PER_S} a second p50 ${ages[Math.floor(ages.length / 2)]} ms, p99 ${p99} ms, ${Math.round((Date.now() - startedAt) / 1_000)} s in all\n`);
});

function revisionOf(id: string): number {
  return Number(id.slice(id.indexOf('/') + 1));
}
