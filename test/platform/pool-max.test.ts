// DATABASE_POOL_MAX: how many connections a worker's pools may hold.

import { describe, expect, test } from 'vitest';
import { openFleet, runCommand, web } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';

describe.each(queueStoreKinds())('with queues in %s', (kind) => {
  test('a worker holds no more connections than it may, however many sagas there are', async () => {
    await using fleet = await openFleet(kind);
    const most = kind === 'postgres' ? 6 : 2;
    await fleet.startWorker({ DATABASE_POOL_MAX: String(most) });
    const handles = await Promise.all(Array.from({ length: 8 }, (_, index) => fleet.client.provisionDroplet({ ...web, name: `web-${index}` })));
    const over = new AbortController();
    let seen = 0;
    const watching = (async () => {
      while (!over.signal.aborted) {
        const [row] = await fleet.db.sql<{ count: number }[]>`select count(*)::int from pg_stat_activity where application_name = 'arcadia-worker' and datname = current_database()`;
        seen = Math.max(seen, row?.count ?? 0);
      }
    })();
    const sagas = await Promise.all(handles.map(({ sagaId }) => fleet.atRest(sagaId, 40_000)));
    over.abort();
    await watching;
    expect(sagas.map(({ status }) => status)).toEqual(sagas.map(() => 'completed'));
    expect(seen).toBeGreaterThan(0);
    expect(seen).toBeLessThanOrEqual(most);
  });
});

test('a worker with queues in Postgres needs one connection for each of its queues', async () => {
  const ended = await runCommand(['worker'], { PATH: process.env['PATH'], DATABASE_URL: 'postgres://u:p@127.0.0.1:1/db', DIGITALOCEAN_TOKEN: 'x', DATABASE_POOL_MAX: '4' });
  expect([ended.code, ended.stderr]).toEqual([78, expect.stringContaining('DATABASE_POOL_MAX: expected at least 6')]);
});
