// A backlog of outcomes: what each delivery costs, how it goes on after an outage, and that nothing waits for a timer.
//
//   ARCADIA_OUTCOME_BACKLOG=10000 npx vitest run test/outcomes/throughput.test.ts
import { describe, expect, test } from 'vitest';
import { listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import type { Database } from '../../src/platform/db.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import type { OutcomeStage, Receiver } from './stage.ts';
import { openOutcomeStage, startReceiver, timings } from './stage.ts';

const COUNT = Number(process.env['ARCADIA_OUTCOME_BACKLOG'] ?? 700);
const DEADLINE_MS = 60_000 + COUNT * 100;
// As in production. On a busy machine a job whose lock is shorter is lost and delivered again.
const LOCK_MS = 30_000;

const plain = catalogOf(fakeStep('one'));

/** Has so many sagas end in one transaction. */
async function end({ engine }: OutcomeStage, count: number): Promise<void> {
  await engine.db.sql`
    with sagas as (
      insert into arcadia.sagas (id, saga8, name, status, steps, input, finished_at, wake_at)
      select id, left(id::text, 8), 'fake', 'completed', '{one}', '{}', now(), null from (select gen_random_uuid() as id from generate_series(1, ${count}::int)) as new returning id
    )
    insert into arcadia.saga_events (saga_id, seq, kind, detail) select id, 3, 'step_completed', '{"status": "completed"}' from sagas`;
}

const webhookOf = async ({ engine }: OutcomeStage) => (await listSubscriptions(engine.db)).find(({ name }) => name === 'webhook');
const subscribed = (stage: OutcomeStage) => waitFor(async () => (await webhookOf(stage)) !== undefined, { what: 'the subscription', everyMs: 20 });
const idsOf = (received: Receiver['taken']) => new Set(received.map(({ body }) => body.data.id));

/** A database that counts the statements of the jobs. */
function counting(db: Database): { db: Database; count: () => number } {
  let count = 0;
  const run: Database['run'] = (name, statement) => {
    count += 1;
    return db.run(name, statement);
  };
  return { db: { ...db, run }, count: () => count };
}

describe.each(queueStoreKinds())('with the queues in %s', (kind) => {
  test('one statement serves many deliveries, and each outcome comes once', { timeout: DEADLINE_MS * 2 }, async () => {
    await using receiver = await startReceiver();
    await using stage = await openOutcomeStage(kind, plain);
    const { db, count } = counting(stage.engine.db);
    await stage.tell({ url: receiver.url }, { timings: {}, db, lockMs: LOCK_MS });
    await subscribed(stage);
    const [startedAt, before] = [performance.now(), count()];
    await end(stage, COUNT);
    await waitFor(() => receiver.taken.length >= COUNT, { what: `${COUNT} outcomes`, deadlineMs: DEADLINE_MS, everyMs: 50 });
    const tookMs = performance.now() - startedAt;
    await waitFor(async () => (await webhookOf(stage))?.waiting === 0, { what: 'no delivery to wait', deadlineMs: DEADLINE_MS });
    expect([receiver.requests.length, idsOf(receiver.taken).size]).toEqual([COUNT, COUNT]);
    // A delivery reads its row and its outcome, and records that it is delivered: three statements, if each had its own.
    expect(count() - before).toBeLessThan(COUNT * 1.5);
    process.stdout.write(`backlog on ${kind}: ${COUNT} outcomes in ${Math.round(tookMs)} ms, ${Math.round((COUNT * 1_000) / tookMs)} a second, ${count() - before} statements\n`);
  });
});

test('a full window is filled up as soon as there is room, without waiting for the next look', { timeout: 300_000 }, async () => {
  await using receiver = await startReceiver();
  await using stage = await openOutcomeStage('redis', plain);
  const { outcomes } = await stage.tell({ url: receiver.url }, { timings: { ...timings, pollMs: 200_000, lateMs: 200_000 }, lockMs: LOCK_MS });
  await subscribed(stage);
  await end(stage, 1_300);
  outcomes.wake();
  await waitFor(() => idsOf(receiver.taken).size === 1_300, { what: 'all outcomes', deadlineMs: 120_000 });
  expect(receiver.requests).toHaveLength(1_300);
});

describe('what fails', () => {
  test('in an outage counts as no attempt, so an outcome that fails once more is soon tried again', { timeout: 120_000 }, async () => {
    const state = { isUp: false };
    const requests = new Map<string, number>();
    const refusedOnceMore = new Set<string>();
    await using receiver = await startReceiver(({ body }, response) => {
      const { id } = body.data;
      requests.set(id, (requests.get(id) ?? 0) + 1);
      // Up again, it takes the first of them. Each of the others fails once more.
      const isTaken = state.isUp && (receiver.taken.length === 0 || refusedOnceMore.has(id));
      if (state.isUp) refusedOnceMore.add(id);
      response.writeHead(isTaken ? 204 : 503).end();
      return isTaken;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { backoffMs: 50, backoffCapMs: 1_000, maxAttempts: 8, pauseAfterMs: 600_000 } } });
    await subscribed(stage);
    await end(stage, 30);
    // More failures than pause the subscription, if the outcomes themselves failed.
    await waitFor(() => requests.size === 30 && Math.min(...requests.values()) > 8, { what: 'nine failures of each', deadlineMs: 90_000 });
    const [failed] = await stage.engine.db.sql<{ attempts: number }[]>`select max(attempts) as attempts from arcadia.outcome_deliveries`;
    // Until ten of them have failed in a row, nobody knows that it is an outage.
    expect(failed?.attempts).toBeLessThanOrEqual(3);
    expect(await webhookOf(stage)).toMatchObject({ waiting: 30, pausedAt: null });
    state.isUp = true;
    await waitFor(() => idsOf(receiver.taken).size === 30, { what: 'all outcomes', deadlineMs: 60_000 });
    expect(receiver.taken).toHaveLength(30);
  });

  test('alone, while others are delivered, pauses the subscription after its attempts', { timeout: 60_000 }, async () => {
    let poison = '';
    await using receiver = await startReceiver(({ body }, response) => {
      if (poison === '') poison = body.data.id;
      const isTaken = body.data.id !== poison;
      response.writeHead(isTaken ? 204 : 400).end();
      return isTaken;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { backoffMs: 20, backoffCapMs: 50, maxAttempts: 5, pauseAfterMs: 600_000 } } });
    await subscribed(stage);
    await end(stage, 20);
    const paused = await waitFor(async () => {
      const subscription = await webhookOf(stage);
      return subscription?.pausedAt != null && subscription;
    }, { what: 'a pause', deadlineMs: 30_000 });
    expect(paused.pausedReason).toBe(`${poison} failed 5 times: the receiver answered 400`);
    expect(receiver.taken.length).toBeGreaterThan(0);
  });

  test('with Retry-After holds back the others of the same batch too', { timeout: 60_000 }, async () => {
    let firstAt = 0;
    await using receiver = await startReceiver(({ at }, response) => {
      if (firstAt === 0) firstAt = at;
      const isTaken = at - firstAt > 900;
      response.writeHead(isTaken ? 204 : 429, isTaken ? {} : { 'retry-after': '1' }).end();
      return isTaken;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    await end(stage, 60);
    await waitFor(() => idsOf(receiver.taken).size === 60, { what: 'all outcomes', deadlineMs: 40_000 });
    // Those that were under way when the first was refused, and no others.
    expect(receiver.requests.length).toBeLessThanOrEqual(60 + 40);
  });
});
