// Retention: what ended long ago goes, in batches, by one worker at a time; everything else stays, and nobody waits for it.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { hasResource, resourceExpiry } from '../../src/inventory/expire.ts';
import { silentLog } from '../../src/platform/log.ts';
import { auditExpiry, isNeededBy, sagaExpiry } from '../../src/saga/expire.ts';
import { reconcile } from '../../src/saga/reconciler.ts';
import { retain, runRetention } from '../../src/saga/retention.ts';
import type { Expiry } from '../../src/saga/retention.ts';
import { searchSagas } from '../../src/saga/search.ts';
import { startSaga } from '../../src/saga/start.ts';
import { createSagaStore, loadSaga } from '../../src/saga/store.ts';
import { catalogOf, fakeStep, openEngine, reconcileGraceMs } from '../support/engine.ts';
import { explaining } from '../support/explain.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { waitFor } from '../support/wait-for.ts';

const DAYS = 90;
const forever = new AbortController().signal;

const expiriesOf = (db: Pick<Database, 'run'>): Expiry[] => [sagaExpiry(db, DAYS, hasResource(DAYS)), auditExpiry(db, 365), resourceExpiry(db, DAYS)];

/** One pass, whenever the last one was. */
const pass = (db: Database, expiries = expiriesOf(db)) => retain({ db, expiries, log: silentLog, signal: forever, pauseMs: 0, everyMs: 0 });

const statusesOf = async (db: Database) => {
  const rows = await db.sql<{ status: string; count: number }[]>`select status, count(*)::int as count from arcadia.sagas group by status`;
  return Object.fromEntries(rows.map(({ status, count }) => [status, count]));
};

async function openOld() {
  const engine = await openEngine(catalogOf(fakeStep('one'), fakeStep('two')));
  onTestFinished(() => engine[Symbol.asyncDispose]());
  return engine;
}

describe('sagas', () => {
  test('that ended longer ago than the retention go with their events, in as many batches as it takes', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 1_100, status: 'completed', daysAgo: DAYS + 1, eventsEach: 3 });
    await writeSagas(db, { count: 40, status: 'compensated', daysAgo: DAYS + 300 });
    await writeSagas(db, { count: 30, status: 'completed', daysAgo: DAYS - 1 });
    expect(await pass(db)).toEqual({ sagas: 1_140, audit: 0, resources: 0 });
    expect(await statusesOf(db)).toEqual({ completed: 30 });
    const [row] = await db.sql<{ events: number }[]>`select count(*)::int as events from arcadia.saga_events`;
    expect(row?.events).toBe(30);
  });

  test('that need a person, or are under way, stay however old they are, and hide none behind them', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 600, status: 'stuck', daysAgo: 1_000 });
    await writeSagas(db, { count: 600, status: 'running', daysAgo: 900 });
    await writeSagas(db, { count: 10, status: 'completed', daysAgo: 100 });
    expect(await pass(db)).toMatchObject({ sagas: 10 });
    expect(await statusesOf(db)).toEqual({ stuck: 600, running: 600 });
  });

  test('of another app stay: what they are needed for, nobody knows here', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 20, status: 'completed', daysAgo: DAYS + 1 });
    const name = (await db.sql<{ name: string }[]>`select name from arcadia.sagas limit 1`)[0]?.name ?? '';
    const passOf = (names: readonly string[], isNeeded: boolean) => pass(db, [sagaExpiry(db, DAYS, isNeededBy([{ isNeeded: (sql) => sql`${isNeeded}::boolean` }]), names)]);
    expect(await passOf(['other'], false)).toMatchObject({ sagas: 0 });
    expect(await passOf([name], true)).toMatchObject({ sagas: 0 });
    expect(await passOf([name, 'other'], false)).toMatchObject({ sagas: 20 });
  });

  test('that began in the same moment, as those of one transaction do, all go', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 1_700, status: 'completed', daysAgo: 100 });
    await db.sql`update arcadia.sagas set created_at = '2020-01-01', finished_at = '2020-01-02'`;
    expect(await pass(db)).toMatchObject({ sagas: 1_700 });
  });

  test('that took longer than the retention are kept for as long from their end', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 1, status: 'completed', daysAgo: DAYS - 1 });
    await db.sql`update arcadia.sagas set created_at = created_at - interval '200 days'`;
    expect(await pass(db)).toMatchObject({ sagas: 0 });
  });

  test('whose droplet lives, or is not gone for as long, stay; then they go, and with them what the inventory knew', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 3, status: 'completed', daysAgo: DAYS + 1 });
    await db.sql`
      with resource as (
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, status, deleted_at)
        select 'digitalocean', context->>'droplet_id', 'droplet', input->>'name', 'active',
               case input->>'name' when 'old-2' then clock_timestamp() when 'old-3' then clock_timestamp() - interval '91 days' end
        from arcadia.sagas returning id, provider_id
      )
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id)
      select resource.id, '{}', 'saga:' || sagas.id, sagas.id from resource join arcadia.sagas on context->>'droplet_id' = provider_id`;
    expect(await pass(db)).toEqual({ sagas: 1, audit: 0, resources: 1 });
    // The one that is gone since a moment may be there again at the next sync: its key must not start a second.
    const names = await db.sql<{ name: string }[]>`select input->>'name' as name from arcadia.sagas order by 1`;
    expect(names).toEqual([{ name: 'old-1' }, { name: 'old-2' }]);
    const left = await db.sql<{ name: string }[]>`
      select name from arcadia.cloud_resources join arcadia.cloud_provisioned on resource_id = cloud_resources.id order by name`;
    expect(left).toEqual([{ name: 'old-1' }, { name: 'old-2' }]);
    await db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp() - interval '91 days'`;
    // Nobody has said yet what is to become of one that vanished.
    await db.sql`
      insert into arcadia.cloud_drift (resource_id, field, desired, actual)
      select id, 'existence', 'there', 'gone' from arcadia.cloud_resources order by name limit 1`;
    expect(await pass(db)).toEqual({ sagas: 2, audit: 0, resources: 1 });
    await db.sql`update arcadia.cloud_drift set resolved_at = clock_timestamp(), resolution = 'accepted'`;
    expect(await pass(db)).toEqual({ sagas: 0, audit: 0, resources: 1 });
  });

  test('leave their idempotency key to a new saga', async () => {
    const { db, options } = await openOld();
    const request = { name: 'fake', input: {}, idempotencyKey: 'order-4711' };
    const { sagaId } = await startSaga(db, options.catalog, request, reconcileGraceMs);
    await db.sql`update arcadia.sagas set status = 'completed', wake_at = null, created_at = '2020-01-01', finished_at = '2020-01-02'`;
    expect((await startSaga(db, options.catalog, request, reconcileGraceMs)).sagaId).toBe(sagaId);
    await pass(db);
    expect((await startSaga(db, options.catalog, request, reconcileGraceMs)).sagaId).not.toBe(sagaId);
  });

  test('are found by an index: no more is read than is past its time', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 10_000, status: 'completed', daysAgo: 10 });
    await writeSagas(db, { count: 700, status: 'completed', daysAgo: 100 });
    await db.sql`analyze arcadia.sagas, arcadia.saga_events`;
    const explained = explaining(db);
    await pass(db, [sagaExpiry(explained.db, DAYS, hasResource(DAYS))]);
    expect(explained.statements).toHaveLength(2);
    for (const { plan } of explained.statements) {
      expect(plan).toMatch(/Limit .*\n(.*\n)*? *->  Index Scan Backward using sagas_recent on sagas/);
      expect(plan).not.toMatch(/Seq Scan on (sagas|saga_events)/);
      expect(plan).not.toContain('Sort Key: sagas');
    }
  });
});

test('rows of the audit go a year after they were written, but for those about a saga that is still there', async () => {
  const { db, options } = await openOld();
  const { sagaId } = await startSaga(db, options.catalog, { name: 'fake', input: {}, requestedBy: 'kept' }, reconcileGraceMs);
  await db.sql`
    insert into arcadia.audit (actor, action, saga_id)
    select 'gone', 'saga_created', case when number % 2 = 0 then gen_random_uuid() end from generate_series(1, 1200) as number`;
  await db.sql`update arcadia.audit set at = clock_timestamp() - interval '366 days'`;
  await db.sql`insert into arcadia.audit (actor, action, saga_id) values ('recent', 'cancel_requested', ${randomUUID()})`;
  expect(await pass(db)).toMatchObject({ audit: 1_200 });
  const rows = await db.sql<{ actor: string; sagaId: string | null }[]>`select actor, saga_id from arcadia.audit order by id`;
  expect(rows).toMatchObject([{ actor: 'kept', sagaId }, { actor: 'recent' }]);
});

describe('nobody is locked out', () => {
  test('while a batch is under way, sagas are started, moved on, taken by the reconciler and read', async () => {
    const { db, url, options, start, drive } = await openOld();
    await writeSagas(db, { count: 500, status: 'completed', daysAgo: 100, eventsEach: 3 });
    const running = await start();
    await using others = { db: openDatabase(url, { timeoutMs: 3_000 }), [Symbol.asyncDispose]: () => others.db.close() };
    await db.sql.begin(async (transaction) => {
      // Its locks are held until the transaction ends.
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a transaction runs statements as the pool does
      const held = { run: <T>(_name: string, statement: (sql: Database['sql']) => PromiseLike<T>) => Promise.resolve(statement(transaction as unknown as Database['sql'])) };
      await transaction`insert into arcadia.retention (leased_by, lease_until) values (${randomUUID()}, 'infinity')`;
      expect(await sagaExpiry(held, DAYS, hasResource(DAYS)).deleteBatch((sql) => sql`select 1`, null)).toMatchObject({ deleted: 500 });

      const started = await startSaga(others.db, options.catalog, { name: 'fake', input: {} }, 0);
      expect((await drive(running)).at(-1)?.kind).toBe('complete');
      const store = createSagaStore(others.db, { worker: 'other:1', reconcileGraceMs });
      expect(await reconcile({ store, ensure: () => Promise.resolve(null), log: silentLog })).toMatchObject({ overdue: 1 });
      const { sagas } = await searchSagas(others.db, {}, { limit: 600 });
      expect(sagas).toHaveLength(502);
      expect(await loadSaga(others.db, started.sagaId)).not.toBeNull();
      expect(await loadSaga(others.db, sagas.at(-1)?.id ?? '')).not.toBeNull();
    });
    expect(await statusesOf(db)).toEqual({ completed: 1, pending: 1 });
  });

  test('a saga that somebody holds is left to the next pass', async () => {
    const { db, url } = await openOld();
    await writeSagas(db, { count: 20, status: 'completed', daysAgo: 100 });
    await using other = { db: openDatabase(url), [Symbol.asyncDispose]: () => other.db.close() };
    await other.db.sql.begin(async (transaction) => {
      await transaction`select from arcadia.sagas limit 1 for key share`;
      expect(await pass(db)).toMatchObject({ sagas: 19 });
    });
    expect(await pass(db)).toMatchObject({ sagas: 1 });
  });
});

describe('a fleet', () => {
  test('has one worker at it at a time, and the next pass comes an hour after the last', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 10, status: 'completed', daysAgo: 100 });
    const workers = Array.from({ length: 5 }, () => retain({ db, expiries: expiriesOf(db), log: silentLog, signal: forever, pauseMs: 0 }));
    expect((await Promise.all(workers)).filter((result) => result !== null)).toEqual([{ sagas: 10, audit: 0, resources: 0 }]);
    expect(await retain({ db, expiries: expiriesOf(db), log: silentLog, signal: forever })).toBeNull();
    await db.sql`update arcadia.retention set finished_at = clock_timestamp() - interval '61 minutes'`;
    expect(await retain({ db, expiries: expiriesOf(db), log: silentLog, signal: forever })).not.toBeNull();
  });

  test('goes on where a worker died in the middle of a pass, and one that comes back late deletes nothing', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 1_200, status: 'completed', daysAgo: 100 });
    const firstBatchDone = Promise.withResolvers<void>();
    const thawed = Promise.withResolvers<void>();
    const real = sagaExpiry(db, DAYS, hasResource(DAYS));
    const frozen: Expiry = {
      ...real,
      deleteBatch: async (lease, after) => {
        if (after === null) return real.deleteBatch(lease, after);
        firstBatchDone.resolve();
        await thawed.promise;
        return real.deleteBatch(lease, after);
      },
    };
    const late = pass(db, [frozen]);
    await firstBatchDone.promise;
    expect(await pass(db)).toBeNull();
    await db.sql`update arcadia.retention set lease_until = clock_timestamp() - interval '1 second'`;
    expect(await pass(db)).toMatchObject({ sagas: 700 });
    await writeSagas(db, { count: 600, status: 'completed', daysAgo: 100 });
    thawed.resolve();
    expect(await late).toEqual({ sagas: 500 });
    expect(await statusesOf(db)).toEqual({ completed: 600 });
  });

  test('tries again what failed, and ends when it is told to', async () => {
    const { db } = await openOld();
    await writeSagas(db, { count: 10, status: 'completed', daysAgo: 100 });
    let failures = 0;
    const failing: Expiry = { of: 'failing', deleteBatch: () => ((failures += 1), Promise.reject(new Error('Postgres is away'))) };
    const stopping = new AbortController();
    const running = runRetention({ db, expiries: [failing, ...expiriesOf(db)], log: silentLog, signal: stopping.signal, pauseMs: 0, lookEveryMs: 10 });
    await waitFor(() => failures >= 2, { what: 'the second try' });
    stopping.abort();
    await running;
    expect(await statusesOf(db)).toEqual({});
  });
});

test('the reconciler with nothing to do asks one question, and an index answers it', async () => {
  const { db } = await openOld();
  await writeSagas(db, { count: 10_000, status: 'completed', daysAgo: 10 });
  await writeSagas(db, { count: 500, status: 'running', daysAgo: 0 });
  await db.sql`update arcadia.sagas set wake_at = clock_timestamp() + interval '1 hour' where status = 'running'`;
  await db.sql`analyze arcadia.sagas`;
  const explained = explaining(db);
  const store = createSagaStore(explained.db, { worker: 'test:1', reconcileGraceMs });
  expect(await reconcile({ store, ensure: () => Promise.reject(new Error('nothing is due')), log: silentLog })).toEqual({ overdue: 0, firstJobs: 0, remade: 0 });
  expect(explained.statements).toMatchObject([{ name: 'store.take_overdue', plan: expect.stringMatching(/Index Scan using sagas_due on sagas.*\n *Index Cond: \(wake_at <= /) }]);
  expect(explained.statements[0]?.plan).not.toContain('Seq Scan on sagas');
});
