// Many who listen to many sagas: what each is told, and what it costs Postgres.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { silentLog } from '../../src/platform/log.ts';
import type { Listener, ReadProgress } from '../../src/saga/event-feed.ts';
import { createEventFeed } from '../../src/saga/event-feed.ts';
import { readProgress } from '../../src/saga/events.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { waitFor } from '../support/wait-for.ts';
import { emptyTables } from '../support/empty-tables.ts';

const database = useSharedDatabase(4);
const POLL_MS = 40;

/** Whoever listens, and what it was told. */
function listener() {
  const told: (number | string)[] = [];
  const it: Listener = {
    onEvent: ({ seq }) => void told.push(seq),
    onEnd: (status) => void told.push(status),
  };
  return { told, it };
}

/** A feed over the file's database that counts its statements. */
function openFeed(read: ReadProgress = (wanted) => readProgress(database(), wanted)) {
  let statements = 0;
  const feed = createEventFeed((wanted) => {
    statements += 1;
    return read(wanted);
  }, silentLog, POLL_MS);
  return { feed, statements: () => statements };
}

async function sagas(status: 'running' | 'completed', count: number, eventsEach: number): Promise<string[]> {
  await emptyTables(database().sql, ['arcadia.sagas', 'arcadia.saga_events']);
  await writeSagas(database(), { count, status, daysAgo: 0, eventsEach });
  return (await database().sql<{ id: string }[]>`select id from arcadia.sagas`).map(({ id }) => id);
}

describe('a feed', () => {
  test('tells each who listens everything once and in order, from where it asked on, until the saga is at rest', async () => {
    const [id = ''] = await sagas('running', 1, 3);
    const { feed } = openFeed();
    const [all, late] = [listener(), listener()];
    feed.listen(id, -1, all.it);
    feed.listen(id.toUpperCase(), 1, late.it);
    await waitFor(() => all.told.length === 3, { what: 'the events so far', everyMs: 5 });
    await database().sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (${id}, 3, 'step_completed', '{}')`;
    await database().sql`update arcadia.sagas set status = 'completed', revision = 3, wake_at = null, finished_at = now() where id = ${id}`;
    await waitFor(() => all.told.at(-1) === 'completed', { what: 'the end', everyMs: 5 });
    expect([all.told, late.told]).toEqual([[0, 1, 2, 3, 'completed'], [2, 3, 'completed']]);
  });

  test('asks for 300 sagas with one statement a poll, and with none when nobody listens', async () => {
    const ids = await sagas('running', 300, 1);
    const { feed, statements } = openFeed();
    const seats = ids.map((id) => {
      const { told, it } = listener();
      return { told, leave: feed.listen(id, -1, it) };
    });
    await waitFor(() => seats.every(({ told }) => told.length === 1), { what: 'all to be told', everyMs: 5 });
    const before = statements();
    const startedAt = performance.now();
    await waitFor(() => statements() > before + 4, { what: 'some polls', everyMs: 5 });
    expect(statements() - before).toBeLessThanOrEqual((performance.now() - startedAt) / POLL_MS + 2);
    for (const { leave } of seats) leave();
    const after = statements();
    await new Promise((resolve) => setTimeout(resolve, 4 * POLL_MS));
    expect(statements()).toBeLessThanOrEqual(after + 1);
  });

  test('tells of a saga that is not there, and of an id that is none, without harm to the others', async () => {
    const [id = ''] = await sagas('completed', 1, 1);
    const { feed } = openFeed();
    const [known, unknown, wrong] = [listener(), listener(), listener()];
    feed.listen(id, -1, known.it);
    feed.listen(randomUUID(), -1, unknown.it);
    feed.listen("'; drop", -1, wrong.it);
    await waitFor(() => [known, unknown, wrong].every(({ told }) => typeof told.at(-1) === 'string'), { what: 'three ends', everyMs: 5 });
    expect([known.told, unknown.told, wrong.told]).toEqual([[0, 'completed'], ['gone'], ['gone']]);
  });

  test('hands an error that is no outage to those who can take one; the others wait on', async () => {
    const [id = ''] = await sagas('completed', 1, 1);
    let fails = true;
    const { feed } = openFeed(async (wanted) => (fails ? Promise.reject(new RangeError('a bug')) : readProgress(database(), wanted)));
    const [patient, other] = [listener(), listener()];
    onTestFinished(feed.listen(id, -1, patient.it));
    const failed = new Promise((resolve) => {
      feed.listen(id, -1, { ...other.it, onFailure: resolve });
    });
    expect(await failed).toBeInstanceOf(RangeError);
    fails = false;
    feed.listen(id, -1, listener().it);
    await waitFor(() => patient.told.at(-1) === 'completed', { what: 'the end', everyMs: 5 });
  });
});
