// `arcadia outcomes`, as a process: what it lists, and how a paused subscription is resumed, with an outcome skipped.
import { expect, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import { ensureSubscription, listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { runCommand } from '../support/fleet.ts';

test('lists subscriptions with exit code 1 while one is paused; resumes it, skips an outcome, and says what is not there', async () => {
  await using database = await createEngineDatabase();
  const db = openDatabase(database.url, { max: 1 });
  const arcadia = (...args: string[]) => runCommand(args, { PATH: process.env['PATH'], DATABASE_URL: database.url, ARCADIA_ENV: 'test', DIGITALOCEAN_TOKEN: 'sandbox', USER: 'ada' });
  try {
    expect(await arcadia('outcomes')).toMatchObject({ code: 0, stdout: expect.stringContaining('No subscriptions') });
    await ensureSubscription(db, { name: 'webhook', target: 'https://example.com' });
    await db.sql`update arcadia.outcome_subscriptions set paused_at = clock_timestamp(), paused_reason = 'the receiver answered 410 Gone'`;
    await db.sql`insert into arcadia.outcome_deliveries (subscription, id, source, type, line, place) values ('webhook', 'a/1', 'saga', 'saga.completed', 'a', 1), ('webhook', 'b/1', 'saga', 'saga.completed', 'b', 1)`;
    // While it is paused, what ends is accepted by nobody.
    await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) select gen_random_uuid(), 1, 'step_completed', '{"status": "completed"}' from generate_series(1, 3)`;
    const paused = await arcadia('outcomes');
    expect([paused.code, paused.stdout]).toEqual([1, expect.stringMatching(/^webhook {2}https:\/\/example\.com {2}5 waiting {2}paused since \S+: the receiver answered 410 Gone$/m)]);
    expect(await arcadia('outcomes', 'resume', 'nobody')).toMatchObject({ code: 1, stderr: expect.stringContaining('subscription nobody not found') });
    expect(await arcadia('outcomes', 'resume', 'webhook', '--skip', 'a/1')).toMatchObject({ code: 0, stdout: expect.stringContaining('webhook is resumed; a/1 is not delivered') });
    expect(await listSubscriptions(db)).toMatchObject([{ name: 'webhook', waiting: 1, pausedAt: null }]);
    expect(await arcadia('outcomes', 'resume', 'webhook', '--skip', 'a/1')).toMatchObject({ code: 1, stderr: expect.stringContaining('a/1 is not waiting to be delivered') });
    expect(await db.sql`select action, detail from arcadia.audit where action = 'outcomes_resumed' order by id`).toMatchObject([{ detail: { subscription: 'webhook', skipped: 'a/1' } }, {}]);
    expect(await arcadia('outcomes')).toMatchObject({ code: 0 });
    // One that fails, and is not paused, does so until a delivery succeeds.
    await db.sql`update arcadia.outcome_subscriptions set failing_since = clock_timestamp() - interval '1 hour', failures = 9, last_error = 'it answered 503', not_before = clock_timestamp() + interval '1 hour'`;
    const [before] = await listSubscriptions(db);
    expect(await arcadia('outcomes', 'resume', 'webhook')).toMatchObject({ code: 0, stdout: expect.stringContaining('was not paused') });
    expect(await listSubscriptions(db)).toMatchObject([{ failingSince: before?.failingSince, lastError: 'it answered 503' }]);
    expect(await db.sql`select failures, not_before from arcadia.outcome_subscriptions`).toEqual([{ failures: 9, notBefore: null }]);
  } finally {
    await db.close();
  }
});
