// Requests to DigitalOcean in Postgres: counted by the minute and by priority, also by many at once, and read for the page.
import { expect, onTestFinished, test } from 'vitest';
import { unlimitedBudget } from '../../src/do/budget.ts';
import { countRequests } from '../../src/do/count-requests.ts';
import { reportRequests } from '../../src/droplets/request-report.ts';
import { readRequests, saveRequests } from '../../src/inventory/request-counts.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';

const hour = { seconds: 3_600, partSeconds: 60 };
const request = { method: 'GET', path: '/v2/droplets' } as const;

async function open() {
  const database = await createEngineDatabase();
  const db = openDatabase(database.url);
  onTestFinished(async () => {
    await db.close();
    await database.drop();
  });
  return { db };
}

test('adds up what many workers spend, by priority, and keeps the latest of what is left', async () => {
  const { db } = await open();
  expect(await readRequests(db, hour)).toMatchObject({ left: null, spent: [], parts: Array.from({ length: 60 }, () => 0) });
  await Promise.all(Array.from({ length: 20 }, () => saveRequests(db, { sync: 1, create: 2 }, null)));
  await saveRequests(db, { create: 5 }, { minute: 200, hour: 4_000 });
  await saveRequests(db, { read: 1 }, null);
  const use = await readRequests(db, hour);
  expect(use.spent.map(({ priority, lastHour }) => [priority, lastHour])).toEqual([['create', 45], ['sync', 20], ['read', 1]]);
  expect(use.left).toMatchObject({ minute: 200, hour: 4_000 });
  expect(use.parts.reduce((sum, part) => sum + part, 0)).toBe(66);
});

test('tells the last whole minute from the hour, puts each minute into its part, and forgets what no chart shows', async () => {
  const { db } = await open();
  const at = (minutes: number) => db.sql`
    insert into arcadia.request_counts (minute, priority, requests)
    values (to_timestamp(floor(extract(epoch from clock_timestamp()) / 60) * 60 - ${minutes * 60}::int), 'read', ${minutes + 1}::int)`;
  await waitFor(() => new Date().getSeconds() < 50, { what: 'a minute that is not over yet', deadlineMs: 20_000 });
  for (const minutes of [0, 1, 30, 90, 9 * 1_440]) await at(minutes);
  const use = await readRequests(db, hour);
  expect(use.spent).toEqual([{ priority: 'read', lastMinute: 2, lastHour: 1 + 2 + 31 }]);
  expect([use.parts.at(-1), use.parts.at(-2), use.parts.at(-31)]).toEqual([1, 2, 31]);
  expect((await readRequests(db, { seconds: 86_400, partSeconds: 1_800 })).parts.reduce((sum, part) => sum + part, 0)).toBe(1 + 2 + 31 + 91);
  await saveRequests(db, { now: 1 }, null);
  expect(await db.sql`select 1 from arcadia.request_counts where minute < now() - interval '8 days'`).toEqual([]);
});

test('a worker reports what it sent, also what Postgres did not take at first, and what it sent last', async () => {
  const { db } = await open();
  const counter = countRequests(unlimitedBudget);
  let isAway = true;
  const flaky: Pick<typeof db, 'run'> = { run: async (...what) => (isAway ? Promise.reject(new Error('away')) : db.run(...what)) };
  const report = async () => {
    const stopping = new AbortController();
    const ended = reportRequests({ db: flaky, counter, signal: stopping.signal, log: silentLog });
    stopping.abort();
    await ended;
  };
  await counter.budget.draw('create', request);
  await report();
  expect((await readRequests(db, hour)).spent).toEqual([]);
  isAway = false;
  await counter.budget.draw('destroy', request);
  await report();
  expect((await readRequests(db, hour)).spent.map(({ priority, lastHour }) => [priority, lastHour])).toEqual([['create', 1], ['destroy', 1]]);
});

test('a request that the budget refuses is not counted', async () => {
  const counter = countRequests({ ...unlimitedBudget, draw: async () => Promise.reject(new Error('no room')) });
  await expect(counter.budget.draw('create', request)).rejects.toThrow('no room');
  expect(counter.take()).toBeNull();
});
