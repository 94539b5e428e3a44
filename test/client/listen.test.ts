import { expect, onTestFinished, test } from 'vitest';
import { listenForSagas } from '../../src/processes/listen.ts';
import { silentLog } from '../../src/platform/log.ts';
import { announceSaga } from '../../src/saga/new-saga.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

test('hears of sagas, and again after its connection was lost, with a call for what it may have missed', async () => {
  const database = await createTestDatabase();
  const db = openDatabase(database.url, { max: 1 });
  const stopping = new AbortController();
  let calls = 0;
  const listening = listenForSagas(database.directUrl, { onSaga: () => (calls += 1), signal: stopping.signal, log: silentLog });
  onTestFinished(async () => {
    stopping.abort();
    await listening;
    await db.close();
    await database.drop();
  });
  await waitFor(() => calls === 1, { what: 'the first call' });
  await announceSaga(db, 'one');
  await waitFor(() => calls === 2, { what: 'the call for a saga' });

  await db.sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'arcadia-listen'`;
  await waitFor(() => calls === 3, { what: 'the call for what was missed' });
  await announceSaga(db, 'two');
  await expect.poll(() => calls).toBe(4);
});

test('bears a Postgres that cannot be reached, and ends when it is told to', async () => {
  const stopping = new AbortController();
  let calls = 0;
  const listening = listenForSagas('postgres://nobody@127.0.0.1:1/nothing', { onSaga: () => (calls += 1), signal: stopping.signal, log: silentLog });
  setTimeout(() => stopping.abort(), 100);
  await expect(listening).resolves.toBeUndefined();
  expect(calls).toBe(0);
});
