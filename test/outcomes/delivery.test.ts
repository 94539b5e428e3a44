// Outcomes reach their receiver: each one, in order, signed, whatever the receiver and the queue store do meanwhile.
import { setTimeout as delay } from 'node:timers/promises';
import { Webhook } from 'standardwebhooks';
import { describe, expect, test } from 'vitest';
import { listSubscriptions, resumeSubscription } from '../../src/outcomes/subscriptions.ts';
import { retrySaga } from '../../src/saga/cancel-and-retry.ts';
import { nextJobOf } from '../../src/saga/saga.ts';
import { done, failed } from '../../src/saga/step.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Receiver } from './stage.ts';
import { OLD_SECRET, SECRET, bodySchema, openOutcomeStage, startReceiver, timings } from './stage.ts';

const plain = catalogOf(fakeStep('one'), fakeStep('two'));

const sagasOf = (receiver: Receiver) => new Set(receiver.taken.map(({ body }) => body.data.saga_id));

const seenBy = (receiver: Receiver) => receiver.taken.map(({ body }) => body.data.id);

/** Waits until a subscription stands: what ended before is not told. */
const subscribed = async (stage: Awaited<ReturnType<typeof openOutcomeStage>>, name = 'webhook') =>
  waitFor(async () => (await listSubscriptions(stage.engine.db)).some((one) => one.name === name), { what: `subscription ${name}`, everyMs: 20 });

describe.each(queueStoreKinds())('with the queues in %s', (backend) => {
  test('each end is posted once, with its outputs, and signed with every secret', async () => {
    await using receiver = await startReceiver();
    await using stage = await openOutcomeStage(backend, plain);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    const ids = [await stage.end({ name: 'a' }), await stage.end({ name: 'b', note: 'private' }), await stage.end()];
    await waitFor(() => receiver.taken.length >= 3, { what: 'three outcomes' });
    expect(sagasOf(receiver)).toEqual(new Set(ids));
    expect(receiver.taken).toHaveLength(ids.length);
    const [first] = receiver.taken;
    expect(first?.body).toMatchObject({ type: 'saga.completed', data: { name: 'fake', status: 'completed', outputs: { one: true, two: true }, error: null } });
    expect(first?.headers['webhook-id']).toBe(first?.body.data.id);
    expect(first?.headers['webhook-signature']?.split(' ')).toHaveLength(2);
    for (const secret of [SECRET, OLD_SECRET]) expect(new Webhook(secret).verify(first?.raw ?? '', first?.headers ?? {})).toEqual(first?.body);
    expect(receiver.requests.map(({ raw }) => raw).join('')).not.toContain('private');
    await waitFor(async () => (await listSubscriptions(stage.engine.db)).every(({ waiting }) => waiting === 0), { what: 'no delivery to wait' });
    expect(receiver.requests).toHaveLength(3);
  });

  test('a receiver that is down gets everything when it is back, and each saga in order', async () => {
    let isUp = false;
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(isUp ? 200 : 503).end();
      return isUp;
    });
    let isBroken = true;
    const stuck = catalogOf(
      fakeStep('one', { forwardOnly: true, execute: () => Promise.resolve(isBroken ? failed('broken', 'it is broken', { retryable: false }) : done()) }),
    );
    await using stage = await openOutcomeStage(backend, stuck);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    const id = await stage.end();
    await waitFor(() => receiver.requests.length > 0, { what: 'a first attempt' });
    isBroken = false;
    await retrySaga(stage.engine.options.store, id, 'test');
    const { saga } = await stage.engine.load(id);
    const job = nextJobOf(saga);
    if (job === null) throw new Error('it was not resumed');
    await stage.engine.drive(job);
    const others = [await stage.end(), await stage.end()];
    await waitFor(() => others.every((other) => receiver.requests.some(({ body }) => body.data.saga_id === other)), { what: 'an attempt of each other saga' });
    expect(receiver.requests.filter(({ body }) => body.data.saga_id === id).every(({ body }) => body.type === 'saga.stuck')).toBe(true);
    isUp = true;
    await waitFor(() => receiver.taken.length >= 4, { what: 'four outcomes' });
    expect(receiver.taken.filter(({ body }) => body.data.saga_id === id).map(({ body }) => body.type)).toEqual(['saga.stuck', 'saga.completed']);
    expect(receiver.taken.find(({ body }) => body.type === 'saga.stuck')?.body.data.error).toEqual({ code: 'broken', message: 'it is broken', step: 'one', retryable: false });
    expect(new Set(receiver.taken.map(({ body }) => body.data.saga_id))).toEqual(new Set([id, ...others]));
  });

  test('deliveries go on after the queue store lost everything', async () => {
    let isUp = false;
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(isUp ? 204 : 500).end();
      return isUp;
    });
    await using stage = await openOutcomeStage(backend, plain);
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { backoffMs: 60_000, backoffCapMs: 600_000, maxAttempts: 30, pauseAfterMs: 60_000 } } });
    await subscribed(stage);
    await Promise.all(Array.from({ length: 5 }, () => stage.end()));
    // An attempt that is recorded after the line below would put its delivery off by a minute.
    await waitFor(async () => (await stage.engine.db.sql`select 1 from arcadia.outcome_deliveries where last_error is not null`).length === 5, { what: 'five recorded attempts' });
    await stage.connection.queue('outcomes').obliterate({ force: true });
    isUp = true;
    await stage.engine.db.sql`update arcadia.outcome_deliveries set due_at = clock_timestamp()`;
    await waitFor(() => receiver.taken.length >= 5, { what: 'five outcomes', deadlineMs: 15_000 });
    expect(new Set(seenBy(receiver)).size).toBe(5);
  });

  test('the outcome queue gets each end, in order, under its type', async () => {
    await using stage = await openOutcomeStage(backend, plain);
    await stage.tell({ queue: 'told' });
    await subscribed(stage, 'queue');
    const ids = [await stage.end(), await stage.end(), await stage.end()];
    const queue = stage.connection.queue('told');
    await waitFor(async () => (await queue.count()) === 3, { what: 'three jobs' });
    const jobs = await queue.getJobs(['waiting'], 0, -1, true);
    expect(jobs.map(({ name, data }) => [name, bodySchema.parse(data).data.saga_id])).toEqual(ids.map((id) => ['saga.completed', id]));
    await queue.close();
  });
});

const slowly = { backoffMs: 60_000, backoffCapMs: 600_000, maxAttempts: 30 };

describe('a subscription', () => {
  test('is paused by 410 Gone, loses nothing, and goes on when a person resumes it', async () => {
    let isGone = true;
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(isGone ? 410 : 204).end();
      return !isGone;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    const ids = [await stage.end()];
    const paused = await waitFor(async () => (await listSubscriptions(stage.engine.db)).find(({ name, pausedAt }) => name === 'webhook' && pausedAt !== null), { what: 'a pause' });
    expect(paused).toMatchObject({ pausedReason: 'the receiver answered 410 Gone', target: new URL(receiver.url).origin, waiting: 1 });
    ids.push(await stage.end(), await stage.end());
    await delay(300);
    const before = receiver.requests.length;
    expect(before).toBe(1);
    isGone = false;
    expect(await resumeSubscription(stage.engine.db, 'webhook', 'alice')).toEqual({ wasPaused: true, skipped: false });
    await waitFor(() => receiver.taken.length >= 3, { what: 'three outcomes' });
    expect(sagasOf(receiver)).toEqual(new Set(ids));
    expect(receiver.taken).toHaveLength(ids.length);
    expect(await resumeSubscription(stage.engine.db, 'nobody', 'alice')).toBeNull();
  });

  test('waits as long as Retry-After says, with all of its deliveries', async () => {
    let first = 0;
    await using receiver = await startReceiver(({ at }, response) => {
      const isFirst = first === 0;
      if (isFirst) first = at;
      response.writeHead(isFirst ? 429 : 204, isFirst ? { 'retry-after': '1' } : {}).end();
      return !isFirst;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    await stage.end();
    await waitFor(() => receiver.requests.length === 1, { what: 'a first attempt' });
    await stage.end();
    await waitFor(() => receiver.taken.length === 2, { what: 'both outcomes' });
    expect(Math.min(...receiver.taken.map(({ at }) => at)) - first).toBeGreaterThanOrEqual(990);
  });

  test('keeps to Retry-After although another delivery of the same moment succeeds', async () => {
    let refusedAt = 0;
    const answers: (() => void)[] = [];
    await using receiver = await startReceiver(({ at, body }, response) => {
      // Both are on their way: the one is refused, then the other is taken.
      if (refusedAt === 0 && answers.length === 0) {
        refusedAt = at;
        answers.push(() => response.writeHead(429, { 'retry-after': '2' }).end());
        return false;
      }
      if (answers.length === 1) {
        answers.shift()?.();
        setTimeout(() => response.writeHead(204).end(), 200);
        return true;
      }
      response.writeHead(body === null ? 500 : 204).end();
      return true;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url });
    await subscribed(stage);
    await Promise.all([stage.end(), stage.end()]);
    await waitFor(() => receiver.taken.length === 1, { what: 'the one that is taken' });
    await stage.end();
    await waitFor(() => receiver.taken.length === 3, { what: 'all three' });
    expect(Math.min(...receiver.taken.slice(1).map(({ at }) => at)) - refusedAt).toBeGreaterThanOrEqual(1_900);
  });

  test('is not paused for a failure before and one after a time without workers', async () => {
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(503).end();
      return false;
    });
    await using stage = await openOutcomeStage('redis', plain);
    const { db } = stage.engine;
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { ...slowly, pauseAfterMs: 60_000 } } });
    await subscribed(stage);
    await db.sql`update arcadia.outcome_subscriptions set failures = 1, failing_since = clock_timestamp() - interval '3 days' where name = 'webhook'`;
    await stage.end();
    await waitFor(async () => (await db.sql`select 1 from arcadia.outcome_subscriptions where name = 'webhook' and failures = 2`).length === 1, { what: 'the second failure on record' });
    expect((await listSubscriptions(db)).find(({ name }) => name === 'webhook')?.pausedAt).toBeNull();
  });

  test('is paused when nothing was delivered for long', async () => {
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(404).end();
      return false;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { backoffMs: 20, backoffCapMs: 50, maxAttempts: 1_000, pauseAfterMs: 200 } } });
    await subscribed(stage);
    await stage.end();
    const paused = await waitFor(async () => (await listSubscriptions(stage.engine.db)).find(({ pausedAt }) => pausedAt !== null), { what: 'a pause' });
    expect(paused.pausedReason).toMatch(/^nothing was delivered since \d{4}-.*: the receiver answered 404$/);
    expect(receiver.requests.length).toBeGreaterThanOrEqual(2);
  });

  test('keeps a bounded number of deliveries, and the rest in the log', async () => {
    await using receiver = await startReceiver((_received, response) => {
      response.writeHead(503).end();
      return false;
    });
    await using stage = await openOutcomeStage('redis', plain);
    await stage.tell({ url: receiver.url }, { timings: { ...timings, delivery: { backoffMs: 60_000, backoffCapMs: 60_000, maxAttempts: 1_000, pauseAfterMs: 60_000 } } });
    await subscribed(stage);
    await stage.engine.db.sql`
      with sagas as (
        insert into arcadia.sagas (id, saga8, name, status, steps, input, finished_at, wake_at)
        select id, left(id::text, 8), 'fake', 'completed', '{one}', '{}', now(), null from (select gen_random_uuid() as id from generate_series(1, 700)) as new returning id
      )
      insert into arcadia.saga_events (saga_id, seq, kind, detail) select id, 3, 'step_completed', '{"status": "completed"}' from sagas`;
    await waitFor(async () => (await listSubscriptions(stage.engine.db)).some(({ waiting }) => waiting === 500), { what: '500 deliveries', deadlineMs: 15_000 });
    await delay(300);
    expect((await listSubscriptions(stage.engine.db)).find(({ name }) => name === 'webhook')?.waiting).toBe(500);
    const counts = await stage.connection.queue('outcomes').getJobCounts();
    expect(Object.values(counts).reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(500);
  });
});
