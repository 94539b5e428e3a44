// Who is told of outcomes, over HTTP: the list, and the resumption of a subscription that was paused.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { resumedAnswer, subscriptionsAnswer } from '../../src/web/api/outcomes.ts';
import { problemSchema } from '../../src/web/problems.ts';
import { bearer, credentials, openWebStage, secrets } from './stage.ts';
import type { Web } from './stage.ts';

let web: Web;
beforeAll(async () => {
  web = await openWebStage(credentials);
  await web.db.sql`
    insert into arcadia.outcome_subscriptions (name, target, failures, failing_since, last_error, paused_at, paused_reason)
    values ('webhook', 'https://billing.example', 12, now(), 'the receiver answered 503', now(), 'the receiver has taken nothing for a day')`;
  await web.db.sql`insert into arcadia.outcome_deliveries (subscription, id, source, type, line, place, attempts, due_at) values ('webhook', 'saga:1', 'saga', 'saga.completed', 'a', 1, 30, now() + interval '1 hour')`;
  await web.db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (gen_random_uuid(), 1, 'step_completed', '{"status": "completed"}')`;
});
afterAll(() => web[Symbol.asyncDispose]());

const list = async () => subscriptionsAnswer.parse((await web.call('GET', '/v1/outcomes', { headers: bearer(secrets.read) })).json()).subscriptions;
const resume = (name: string, secret: string) => web.call('POST', `/v1/outcomes/${name}/resume`, { headers: bearer(secret) });

test('the list says who is told, what waits, and why nothing goes out', async () => {
  expect(await list()).toMatchObject([{ name: 'webhook', target: 'https://billing.example', waiting: 2, waitingIsExact: true, lastError: 'the receiver answered 503', pausedAt: expect.any(String), pausedReason: 'the receiver has taken nothing for a day' }]);
  expect((await web.call('GET', '/v1/outcomes')).status).toBe(401);
});

test('only who may operate resumes one; an unknown one is answered 404; what waits is due at once, and it is audited', async () => {
  expect((await resume('webhook', secrets.read)).status).toBe(403);
  const unknown = await resume('nobody', secrets.operate);
  expect([unknown.status, problemSchema.parse(unknown.json()).detail]).toEqual([404, 'subscription nobody not found']);
  expect((await list())[0]?.pausedAt).not.toBeNull();

  const resumed = await resume('webhook', secrets.operate);
  expect([resumed.status, resumedAnswer.parse(resumed.json())]).toEqual([200, { subscription: 'webhook', wasPaused: true }]);
  expect(await list()).toMatchObject([{ failingSince: null, lastError: null, pausedAt: null, pausedReason: null, waiting: 2 }]);
  expect(await web.db.sql`select attempts, due_at <= clock_timestamp() as is_due from arcadia.outcome_deliveries`).toMatchObject([{ attempts: 0, isDue: true }]);
  expect(resumedAnswer.parse((await resume('webhook', secrets.operate)).json()).wasPaused).toBe(false);
  expect(await web.db.sql`select actor, detail from arcadia.audit where action = 'outcomes_resumed'`).toMatchObject([{ actor: 'http:operator', detail: { subscription: 'webhook' } }, { actor: 'http:operator' }]);
});
