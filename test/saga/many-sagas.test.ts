// What a list and its counts do among many sagas: nothing is counted or searched that would read the whole table, and nothing is
// missed for it.
import { beforeAll, describe, expect, test } from 'vitest';
import type { Database } from '../../src/platform/db.ts';
import { readOverview } from '../../src/saga/overview.ts';
import type { SagaFilter } from '../../src/saga/filter.ts';
import type { SagaOrder } from '../../src/saga/order.ts';
import { searchSagas } from '../../src/saga/search.ts';
import { countByStatus } from '../../src/saga/stats.ts';
import { explaining } from '../support/explain.ts';
import { writeProvisions } from '../support/many-provisions.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(3);
const subjectFields = { names: ['name'], ids: ['droplet_id'] };

/** Every page of a search, to its end. */
async function allPages(filter: SagaFilter, page: { limit: number; walk: number; order?: SagaOrder }) {
  const pages: string[][] = [];
  let cursor: string | undefined;
  do {
    const { sagas, nextCursor } = await searchSagas(database(), { ...filter, subjectFields }, { ...page, cursor });
    pages.push(sagas.map(({ id }) => id));
    cursor = nextCursor ?? undefined;
  } while (cursor !== undefined);
  return pages;
}

describe('among 3,000 sagas, of which 1,000 wait', () => {
  let db: Database;
  beforeAll(async () => {
    db = database();
    await writeProvisions(db, { finished: 2_000, expired: 0, waiting: 1_000, stuck: 20, resourceEvery: 100 });
  });

  const idsOf = async (condition: string) => (await db.sql.unsafe<{ id: string }[]>(`select id from arcadia.sagas where ${condition} order by created_at desc, id`)).map(({ id }) => id);

  test.each([
    ['a part of a name', { query: 'eb-17' }, `input->>'name' like '%eb-17%'`],
    ['the beginning of few names', { query: 'WEB-17' }, `input->>'name' like 'web-17%'`],
    ['the beginning of most names', { query: 'web-1' }, `input->>'name' like 'web-1%'`],
    ['a text', { text: 'b-177' }, `input->>'name' like '%b-177%'`],
    ['a requester', { requestedBy: 'user-7' }, `requested_by = 'user-7'`],
    ['a requester, and a name', { requestedBy: 'user-7', query: 'web-1' }, `requested_by = 'user-7' and input->>'name' like 'web-1%'`],
  ] satisfies [string, SagaFilter, string][])('a search for %s that looks at few sagas for a page finds all, once each and in order', async (_what, filter, condition) => {
    const expected = await idsOf(condition);
    expect(expected.length).toBeGreaterThan(3);
    for (const limit of [7, 500]) expect((await allPages(filter, { limit, walk: 400 })).flat().toSorted()).toEqual(expected.toSorted());
    // Without what an index found at once, the pages are in order.
    const inOrder = (await allPages(filter, { limit: 50, walk: 1_000_000 })).flat();
    expect(inOrder).toEqual(expected);
    expect((await allPages(filter, { limit: 50, walk: 1_000_000, order: { by: 'started', isDescending: false } })).flat()).toEqual(expected.toReversed());
    expect((await allPages(filter, { limit: 50, walk: 400, order: { by: 'started', isDescending: false } })).flat().toSorted()).toEqual(expected.toSorted());
  });

  test('the first page has the oldest saga, by its name, its short id or the id of its droplet, beyond what it looks at', async () => {
    const [oldest] = await db.sql<{ id: string; saga8: string; name: string; dropletId: string }[]>`select id, saga8, input->>'name' as name, context->>'droplet_id' as droplet_id from arcadia.sagas order by created_at limit 1`;
    if (oldest === undefined) throw new Error('nothing was written');
    for (const query of [oldest.name, oldest.name.toUpperCase(), oldest.saga8, oldest.dropletId]) {
      const { sagas, nextCursor } = await searchSagas(db, { query, subjectFields }, { limit: 50, walk: 100 });
      expect(sagas.map(({ id }) => id)).toContain(oldest.id);
      expect(nextCursor).not.toBeNull();
    }
    const explained = explaining(db);
    await searchSagas(explained.db, { query: 'web-1777', subjectFields }, { limit: 50, walk: 100 });
    const { plan } = explained.statements.find(({ name }) => name === 'search.sagas') ?? { plan: '' };
    expect(plan).toContain('sagas_by_title');
    expect(plan).not.toContain('Seq Scan');
  });

  test('those under way are searched by their own index, not among all', async () => {
    const explained = explaining(db);
    const { sagas } = await searchSagas(explained.db, { status: ['stuck'], query: 'no such name', subjectFields }, { limit: 50, walk: 100 });
    expect(sagas).toEqual([]);
    expect(explained.statements.map(({ plan }) => plan).join('\n')).toMatch(/sagas_stuck/);
    expect(explained.statements.map(({ plan }) => plan).join('\n')).not.toMatch(/sagas_recent|Seq Scan/);
  });

  test('counts of a filter that no index covers stop at a limit, and say so', async () => {
    const overview = await readOverview(db, { requestedBy: 'user-7', subjectFields }, 300);
    expect(overview.inexact).toEqual({ running: 'at least', completed: 'at least' });
    expect(overview.counts.running).toBeGreaterThan(0);
    expect(overview.counts.running).toBeLessThan(300);
    const exactly = (await idsOf(`requested_by = 'user-107' and status = 'compensated'`)).length;
    expect((await readOverview(db, { requestedBy: 'user-107', subjectFields }, 300)).counts.compensated).toBe(exactly);
  });

  test('counts are exact where an index finds the sagas, and of all sagas while they are few', async () => {
    const all = await readOverview(db, { subjectFields });
    expect(all).toMatchObject({ counts: { running: 1_000, stuck: 20, completed: 1_980, compensated: 20 }, inexact: {} });
    const [some] = await db.sql<{ dropletId: string }[]>`select context->>'droplet_id' as droplet_id from arcadia.sagas where status = 'completed' limit 1`;
    expect(await readOverview(db, { field: { name: 'droplet_id', value: some?.dropletId ?? '' }, requestedBy: undefined, subjectFields })).toMatchObject({ counts: { completed: 1 }, inexact: {} });
  });
});

test('among many sagas, finished ones are estimated, and all others counted', async () => {
  const db = database();
  await writeProvisions(db, { finished: 10_000, expired: 0, waiting: 300, stuck: 7, resourceEvery: 1_000, allEvents: false });
  const explained = explaining(db);
  const counts = await countByStatus(explained.db, { counted: 5_000 });
  expect(explained.statements.map(({ plan }) => plan).join('\n')).not.toMatch(/Seq Scan on sagas/);
  const of = (status: string) => counts.filter((one) => one.status === status).map(({ count, isExact }) => ({ count, isExact }));
  expect([of('running'), of('stuck')]).toEqual([[{ count: 300, isExact: true }], [{ count: 7, isExact: true }]]);
  expect(of('completed')).toMatchObject([{ isExact: 'about' }]);
  expect(Math.abs((of('completed')[0]?.count ?? 0) - 9_900)).toBeLessThan(500);
  expect((await countByStatus(db, { counted: 5_000, limit: 100 })).filter(({ status }) => status === 'running')).toMatchObject([{ count: 100, isExact: 'at least' }]);
  expect((await countByStatus(db)).filter(({ status }) => status === 'completed')).toMatchObject([{ count: 9_900, isExact: true }]);
});
