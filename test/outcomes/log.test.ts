// The log of outcomes has no gap, whatever order transactions are committed in, and however often its reader changes.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { Batch } from '../../src/outcomes/log.ts';
import { advance, readBatch } from '../../src/outcomes/log.ts';
import { takeLease } from '../../src/outcomes/lease.ts';
import { ensureSubscription, listSubscriptions, resumeSubscription } from '../../src/outcomes/subscriptions.ts';
import { sagaOutcomes, undeliveredOutcomes } from '../../src/saga/saga-outcomes.ts';
import { silentLog } from '../../src/platform/log.ts';
import { sagaExpiry } from '../../src/saga/expire.ts';
import { retain } from '../../src/saga/retention.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { openAdmin } from '../support/admin-connection.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { explaining } from '../support/explain.ts';

const sources = [sagaOutcomes({})];

async function openLog() {
  const database = await createEngineDatabase();
  const db = openDatabase(database.url, { max: 4 });
  onTestFinished(async () => {
    await db.close();
    await database.drop();
  });
  await ensureSubscription(db, { name: 'trial', target: 'a test' });
  const reader = { subscription: 'trial', holder: randomUUID() };
  await takeLease(db, reader, 60_000);
  return { db, reader, directUrl: database.directUrl };
}

/** The statement that brings a saga to its end. */
const end = (sql: Pick<Database, 'sql'>['sql'], { id = randomUUID(), seq = 1, status = 'completed' }: { id?: string; seq?: number; status?: string } = {}) =>
  sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (${id}, ${seq}, 'step_completed', jsonb_build_object('status', ${status}::text)) returning saga_id || '/' || seq as id`;

const take = async (db: Database, reader: { subscription: string; holder: string }, limit = 100): Promise<string[]> => {
  const batch = await readBatch(db, reader, sources, limit);
  if (batch === null) return [];
  expect(await advance(db, reader, batch)).toBe(true);
  return batch.entries.map(({ id }) => id);
};

describe('a reader of the log', () => {
  test('gets what a transaction that began earlier commits later, and is not held up by it', async () => {
    const { db, reader, directUrl } = await openLog();
    const slow = openAdmin(directUrl);
    onTestFinished(() => slow.end());
    const early = randomUUID();
    await slow`begin`;
    await end(slow, { id: early });
    await end(db.sql);
    await end(db.sql);
    expect(await take(db, reader)).toHaveLength(2);
    await end(db.sql);
    expect(await take(db, reader)).toHaveLength(1);
    expect(await take(db, reader)).toEqual([]);
    await slow`commit`;
    expect(await take(db, reader)).toEqual([`${early}/1`]);
    expect(await take(db, reader)).toEqual([]);
  });

  test('has what it has not read yet waiting, wherever it is in a batch, counted up to a limit', async () => {
    const { db, reader } = await openLog();
    const waiting = async () => (await listSubscriptions(db, sources)).map((row) => [row.waiting, row.waitingIsExact]);
    expect(await waiting()).toEqual([[0, true]]);
    for (let ended = 0; ended < 5; ended += 1) await end(db.sql);
    expect(await waiting()).toEqual([[5, true]]);
    expect(await take(db, reader, 2)).toHaveLength(2);
    await end(db.sql);
    expect(await waiting()).toEqual([[4, true]]);
    while ((await take(db, reader)).length > 0);
    expect(await waiting()).toEqual([[0, true]]);
    await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) select gen_random_uuid(), 1, 'step_completed', '{"status": "stuck"}' from generate_series(1, 1_200)`;
    expect(await waiting()).toEqual([[1_000, false]]);
  });

  test('gets nothing of a transaction that is rolled back, and nothing that is no end', async () => {
    const { db, reader, directUrl } = await openLog();
    const slow = openAdmin(directUrl);
    onTestFinished(() => slow.end());
    await slow`begin`;
    await end(slow);
    await end(db.sql, { status: 'running' });
    await slow`rollback`;
    expect(await take(db, reader)).toEqual([]);
  });

  test('gets each once while transactions overlap at random and batches are small', async () => {
    const { db, reader, directUrl } = await openLog();
    const writers = Array.from({ length: 4 }, () => openAdmin(directUrl));
    onTestFinished(async () => void (await Promise.all(writers.map((writer) => writer.end()))));
    const written: string[] = [];
    const writing = { isOver: false };
    const write = async (sql: (typeof writers)[number]) => {
      for (let round = 0; round < 25; round += 1) {
        await sql`begin`;
        const ids: string[] = [];
        for (let one = 0; one <= round % 3; one += 1) ids.push(...(await end(sql)).map((row) => String(row['id'])));
        await sql`select pg_sleep(${Math.random() / 100})`;
        if (round % 5 === 4) await sql`rollback`;
        else {
          await sql`commit`;
          written.push(...ids);
        }
      }
    };
    const taken: string[] = [];
    const reading = (async () => {
      while (!writing.isOver) taken.push(...(await take(db, reader, 3)));
      for (;;) {
        const more = await take(db, reader, 3);
        if (more.length === 0) return;
        taken.push(...more);
      }
    })();
    await Promise.all(writers.map(write));
    writing.isOver = true;
    await reading;
    expect(taken.toSorted()).toEqual(written.toSorted());
  });

  test('takes nothing over when another has its place, or it is late', async () => {
    const { db, reader } = await openLog();
    await end(db.sql);
    const batch: Batch | null = await readBatch(db, reader, sources, 10);
    if (batch === null) throw new Error('nothing to read');
    const other = { ...reader, holder: randomUUID() };
    expect(await takeLease(db, other, 60_000)).toBe(false);
    expect(await readBatch(db, other, sources, 10)).toBeNull();
    expect(await advance(db, other, batch)).toBe(false);
    expect(await advance(db, reader, batch)).toBe(true);
    expect(await advance(db, reader, batch)).toBe(false);
  });

  test('is paused when the database was restored into another cluster, and goes on from the resume', async () => {
    const { db, reader } = await openLog();
    await db.sql`update arcadia.outcome_subscriptions set seen = '999999999999:999999999999:'`;
    await end(db.sql);
    await takeLease(db, reader, 60_000);
    expect(await readBatch(db, reader, sources, 10)).toBeNull();
    expect((await listSubscriptions(db)).map(({ pausedReason }) => pausedReason)).toEqual([expect.stringContaining('restored into another cluster')]);
    await resumeSubscription(db, 'trial', 'alice');
    await takeLease(db, reader, 60_000);
    expect(await take(db, reader)).toEqual([]);
    await end(db.sql);
    expect(await take(db, reader)).toHaveLength(1);
  });

  test('reads by an index, whatever the number of events', async () => {
    const { db, reader } = await openLog();
    await writeSagas(db, { count: 2_000, status: 'completed', daysAgo: 1, eventsEach: 6 });
    await take(db, reader);
    await db.sql`analyze arcadia.saga_events`;
    const explained = explaining(db);
    await readBatch(explained.db, reader, sources, 100);
    const plans = explained.statements.map(({ plan }) => plan).join('\n');
    expect(plans).toContain('saga_events_ends');
    expect(plans).not.toContain('Seq Scan on saga_events');
  });
});

test('retention keeps a saga until its end is delivered, but not for ever', async () => {
  const { db, reader } = await openLog();
  const expiry = sagaExpiry(db, 90, undeliveredOutcomes(90));
  const pass = () => retain({ db, expiries: [expiry], log: silentLog, signal: new AbortController().signal, pauseMs: 0, everyMs: 0 });
  const old = async (daysAgo: number) => {
    const id = randomUUID();
    await db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, input, wake_at, created_at, finished_at)
      values (${id}, left(${id}, 8), 'fake', 'completed', '{one}', '{}', null, now() - ${daysAgo}::int * interval '1 day', now() - ${daysAgo}::int * interval '1 day')`;
    await end(db.sql, { id });
  };
  await old(100);
  await old(121);
  expect(await pass()).toEqual({ sagas: 1 });
  await take(db, reader);
  expect(await pass()).toEqual({ sagas: 1 });
});
