// The connections to Postgres in trouble, while Postgres itself is well: silent for good (half open), or cut after the
// work was done and before the answer arrived. Nothing is done twice, nothing hangs, and the same process goes on.

import { describe, expect, inject, test } from 'vitest';
import { DatabaseTimeoutError, openDatabase } from '../../src/platform/db.ts';
import type { Io } from '../../src/platform/io.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { startTcpProxy, throughProxy } from '../support/fault-proxy.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { SAGAS, expectAllCompleted, provisionAll, untilUnderWay } from './sagas-under-way.ts';

describe.concurrent('connections to Postgres', () => {
  test.for(queueStoreKinds())('goes on, over new connections, when all its connections to Postgres went silent for good (queues on %s)', async (queues) => {
    await using database = await createTestDatabase();
    await using proxy = await startTcpProxy(Number(new URL(database.url).port));
    await using stage = await openFaultStage({
      databaseUrl: database.url,
      workersDatabaseUrl: throughProxy(database.url, proxy),
      // Few connections, so that none is left that was not open yet.
      settings: { WORKER_CONCURRENCY: '2' },
      ...(queues === 'postgres' ? { redisUrl: null } : {}),
    });
    await stage.work();
    await provisionAll(stage);
    await untilUnderWay(stage);
    proxy.freeze();
    expect(await stage.atRest(45_000)).toHaveLength(SAGAS);
    await expectAllCompleted(stage);
  });

  test('a commit whose reply was lost is applied once: each transition in turn', async () => {
    await using database = await createTestDatabase();
    await using proxy = await startTcpProxy(Number(new URL(database.url).port));
    await using stage = await openFaultStage({ databaseUrl: database.url });
    let commits = 0;
    // Every second commit is done, and its answer (one that tells of a row) is taken away.
    const io: Io = (kind, name, operation) => {
      if (kind === 'sql' && name === 'store.commit') {
        commits += 1;
        if (commits % 2 === 0) proxy.loseAnswer((answer) => answer.includes('SELECT 1'));
      }
      return operation();
    };
    await stage.work({ settings: { DATABASE_URL: throughProxy(database.url, proxy), WORKER_CONCURRENCY: '1' }, io });
    await Promise.all([stage.provision('web-1'), stage.provision('web-2'), stage.provision('web-3')]);
    await expectAllCompleted(stage);
    expect(proxy.lost()).toBeGreaterThanOrEqual(5);
    expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(3);
  });

  test('a saga whose insert was answered by a cut connection is started once', async () => {
    await using database = await createTestDatabase();
    await using proxy = await startTcpProxy(Number(new URL(database.url).port));
    await using stage = await openFaultStage({ databaseUrl: database.url, workersDatabaseUrl: throughProxy(database.url, proxy) });
    proxy.loseAnswer((answer) => answer.includes('INSERT 0 1'));
    const sagaId = await stage.provision('web-1');
    expect(proxy.lost()).toBe(1);
    expect((await stage.client.list()).map(({ id }) => id)).toEqual([sagaId]);
  });

  test('the time limit of a statement holds where Postgres is busy, and where nothing answers at all; the next statement gets a new connection', async () => {
    await using database = await createTestDatabase();
    await using proxy = await startTcpProxy(Number(new URL(database.url).port));
    const db = openDatabase(throughProxy(database.url, proxy), { max: 2, timeoutMs: 400 });
    try {
      // Through PgBouncer the limit on the server's side is the role's, and ours is the one on this side.
      const byWhom = inject('services').pgBouncerPort === null ? 'statement timeout' : 'did not answer within 1400 ms';
      await expect(db.run('test.sleep', (sql) => sql`select pg_sleep(20)`)).rejects.toThrow(byWhom);
      await Promise.all([1, 2, 3].map((n) => db.run('test.warm', (sql) => sql`select ${n}::int, pg_sleep(0.05)`)));
      proxy.freeze();
      const silent = [1, 2, 3].map((n) => db.run('test.silent', (sql) => sql`select ${n}::int`));
      for (const result of await Promise.allSettled(silent)) {
        expect(result).toMatchObject({ status: 'rejected', reason: expect.any(DatabaseTimeoutError) });
      }
      const answers = await Promise.all([1, 2, 3].map((n) => db.run('test.again', (sql) => sql<{ n: number }[]>`select ${n}::int as n`)));
      expect(answers.map(([row]) => row?.n)).toEqual([1, 2, 3]);
    } finally {
      await db.close();
    }
  });

  test('texts of an array come back as they were, whatever is in them', async () => {
    await using database = await createTestDatabase();
    const db = openDatabase(database.url, { max: 1 });
    try {
      const texts = ['plain', 'a,b', '', 'with "quotes"', 'back\\slash', '{braces}', ' blank ', 'line\nbreak', 'NULL', 'ö'];
      const [row] = await db.run('test.array', (sql) => sql<{ texts: string[]; none: string[] }[]>`select ${texts}::text[] as texts, ${[]}::text[] as none`);
      expect(row).toEqual({ texts, none: [] });
    } finally {
      await db.close();
    }
  });
});
