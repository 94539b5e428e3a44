// What the indexes of `sagas` are for: the few that a person looks for are found among the many that nobody does, and a
// saga on its way pays for none of them.
import { describe, expect, test } from 'vitest';
import { ofDroplet } from '../../src/inventory/droplet-of-saga.ts';
import { decide } from '../../src/saga/transition.ts';
import { insertSaga } from '../../src/saga/new-saga.ts';
import { createSagaStore, loadSaga } from '../../src/saga/store.ts';
import type { SagaFilter } from '../../src/saga/filter.ts';
import { countSagas, searchSagas } from '../../src/saga/search.ts';
import { explaining } from '../support/explain.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(1);

const search = async (filter: SagaFilter) => {
  const explained = explaining(database());
  const { sagas } = await searchSagas(explained.db, filter, { limit: 50 });
  return { sagas, plan: explained.statements[0]?.plan ?? '' };
};

describe('among 20,000 completed sagas', () => {
  test('those of a rare status, of a droplet and of a tag are found by an index', async () => {
    const db = database();
    await writeSagas(db, { count: 20_000, status: 'completed', daysAgo: 3 });
    const rare = [['stuck', 'sagas_stuck'], ['compensated', 'sagas_compensated'], ['running', 'sagas_due']] as const;
    for (const [status] of rare) await writeSagas(db, { count: 20, status, daysAgo: 10 });
    await db.sql`update arcadia.sagas set input = jsonb_set(input, '{tags}', '["team-a"]') where status = 'stuck'`;
    await db.sql`analyze arcadia.sagas`;
    for (const [status, index] of rare) {
      const { sagas, plan } = await search({ status: [status] });
      expect(sagas.map((saga) => saga.status)).toEqual(Array.from({ length: 20 }, () => status));
      expect(plan).toMatch(new RegExp(`Index Scan (using|on) ${index}`));
    }
    // Of so many ids, two may begin with the same 8 characters: then one of them was not written.
    const [written] = await db.sql<{ count: number; dropletId: number }[]>`
      select count(*)::int as count, max((context->>'droplet_id')::int) as droplet_id from arcadia.sagas where status = 'completed'`;
    if (written === undefined) throw new Error('nothing was written');
    expect(await countSagas(db, { status: ['completed', 'stuck'] })).toBe(written.count + 20);
    expect((await search({ status: ['completed'] })).plan).toMatch(/Index Scan using sagas_recent/);

    const byTag = await search({ tag: 'team-a' });
    expect(byTag.sagas.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 'stuck'));
    expect(byTag.plan).toContain('sagas_by_tag');
    await db.sql`update arcadia.sagas set input = jsonb_set(input, '{tags}', '["web", "Team-A"]') where status = 'running'`;
    const inAnyCase = await search({ tag: 'TEAM-a' });
    expect(inAnyCase.sagas).toHaveLength(40);
    expect(inAnyCase.plan).toContain('sagas_by_tag');
    expect((await search({ tag: 'team' })).sagas).toEqual([]);
    const byDroplet = await search({ field: ofDroplet(written.dropletId) });
    expect(byDroplet.sagas.map(({ input }) => input['name'])).toEqual([`old-${written.dropletId - 1_000_000}`]);
    expect(byDroplet.plan).toContain('sagas_by_droplet');

    const subjectFields = { names: ['name'], ids: ['droplet_id'] };
    for (const [by, index] of [['title', 'sagas_by_title'], ['subject', 'sagas_by_droplet']] as const) {
      for (const isDescending of [false, true]) {
        const explained = explaining(database());
        const first = await searchSagas(explained.db, { subjectFields }, { limit: 50, order: { by, isDescending } });
        const second = await searchSagas(explained.db, { subjectFields }, { limit: 50, order: { by, isDescending }, cursor: first.nextCursor ?? '' });
        expect(new Set([...first.sagas, ...second.sagas].map(({ id }) => id)).size).toBe(100);
        for (const { plan } of explained.statements) expect(plan).toMatch(new RegExp(`Index Scan (Backward )?using ${index}`));
      }
    }
  });
});

test('from its start to its last step but one, a saga whose steps have no outputs is written to no index', async () => {
  const db = database();
  const id = crypto.randomUUID();
  const steps = ['one', 'two', 'three'];
  await insertSaga(db, { id, name: 'fake', steps, input: {}, sealed: null, idempotencyKey: null, requestedBy: null, startedBy: null, traceparent: null }, 60_000);
  const store = createSagaStore(db, { worker: 'test:1', reconcileGraceMs: 60_000 });
  const policy = { stepAttempts: 1, stepBackoffMs: 1, compensationAttempts: 1 };
  const updates = async () => {
    // The one connection of the pool: what it counted is told with its next statement.
    await db.sql`select pg_stat_force_next_flush()`;
    const [row] = await db.sql<{ all: number; hot: number }[]>`
      select n_tup_upd::int as all, n_tup_hot_upd::int as hot from pg_stat_user_tables where relid = 'arcadia.sagas'::regclass`;
    return row ?? { all: 0, hot: 0 };
  };
  const before = await updates();
  for (const outcome of [{ kind: 'started' }, { kind: 'done', outputs: {} }, { kind: 'done', outputs: {} }, { kind: 'done', outputs: {} }] as const) {
    const saga = (await loadSaga(db, id))?.saga;
    const transition = saga === undefined ? { refused: 'gone' } : decide(saga, outcome, policy, 0);
    if ('refused' in transition) throw new Error(transition.refused);
    expect(await store.commit(transition)).toBe('applied');
  }
  const after = await updates();
  expect({ all: after.all - before.all, hot: after.hot - before.hot }).toEqual({ all: 4, hot: 3 });
});
