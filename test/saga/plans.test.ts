// The statements that each step runs are planned once for a connection, and look sagas up by their key: planning them anew costs
// Postgres more than running them. (In a database that was empty then, they read its one page until its first statistics.)
import { beforeAll, describe, expect, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { startSaga } from '../../src/saga/start.ts';
import { decide } from '../../src/saga/transition.ts';
import { catalogOf, createEngineDatabase, fakeStep, policy, reconcileGraceMs } from '../support/engine.ts';
import { writeSagas } from '../support/many-sagas.ts';

const catalog = catalogOf(fakeStep('one'));

/** Moves sagas on, some at once, as a worker does at a low load. */
async function moveOn(db: Database, { times, atOnce }: { times: number; atOnce: number }): Promise<void> {
  const store = createSagaStore(db, { worker: 'test:1', reconcileGraceMs });
  for (let left = times; left > 0; left -= 1) {
    const started = await Promise.all(Array.from({ length: atOnce }, () => startSaga(db, catalog, { name: 'fake', input: {} }, reconcileGraceMs)));
    const claimed = await Promise.all(started.map(({ sagaId }) => store.claim({ sagaId, revision: 0 })));
    const results = await Promise.all(
      claimed.map((one) => {
        if (one === null) throw new Error('a saga was not found');
        const transition = decide(one.saga, { kind: 'started' }, policy, 0.5);
        if ('refused' in transition) throw new Error(transition.refused);
        return store.commit(transition);
      }),
    );
    expect(results).toEqual(claimed.map(() => 'applied'));
  }
}

const fill = (db: Database) => writeSagas(db, { count: 3_000, status: 'completed', daysAgo: 1 });

/** Started by SQL, in one transaction. */
const startTogether = (db: Database) => db.sql`
  insert into arcadia.sagas (id, saga8, name, status, steps, input, wake_at, finished_at)
  select id, left(id::text, 8), 'fake', 'completed', '{one}', '{}', null, now() from (select gen_random_uuid() as id from generate_series(1, 3000)) as made on conflict do nothing`;

// In each place, a new connection makes its plans.
describe.each([
  ['without statistics', 1, fill],
  ['with statistics', 1, async (db: Database) => {
    await fill(db);
    await db.sql`analyze`;
  }],
  ['of one transaction, with statistics', 30, async (db: Database) => {
    await startTogether(db);
    await db.sql`analyze`;
  }],
  ['with statistics', 3, async (db: Database) => {
    await fill(db);
    await db.sql`analyze`;
  }],
])('among 3,000 sagas %s, %i at once', (_where, atOnce, prepare) => {
  let prepared: { statement: string; custom: number; generic: number; plan: string }[];
  beforeAll(async () => {
    const database = await createEngineDatabase();
    const db = openDatabase(database.url, { max: 1 });
    await prepare(db);
    await moveOn(db, { times: 12, atOnce });
    const used = await db.sql<{ name: string; statement: string; custom: number; generic: number; parameters: number }[]>`
      select name, statement, custom_plans::int as custom, generic_plans::int as generic, cardinality(parameter_types) as parameters from pg_prepared_statements where generic_plans + custom_plans > 10`;
    prepared = [];
    for (const { name, parameters, ...counts } of used) {
      // The plan in use does not depend on values.
      const lines = await db.sql.unsafe<Record<string, string>[]>(`explain execute "${name}"(${Array(parameters).fill('null').join(', ')})`);
      prepared.push({ ...counts, plan: lines.flatMap((line) => Object.values(line)).join('\n') });
    }
    await db.close();
    await database.drop();
  });

  test.each([
    ['store.load', 'from arcadia.sagas where id'],
    ['store.commit', 'update arcadia.sagas'],
  ])('%s is planned five times at most, and uses the primary key', (_name, text) => {
    const [found, ...more] = prepared.filter(({ statement }) => statement.includes(text));
    expect(more).toEqual([]);
    expect(found).toMatchObject({ custom: 5, generic: 7 });
    expect(found?.plan).toMatch(/Index Scan (using|on) sagas_pkey/);
    // By a parameter: it is the plan for all values.
    expect(found?.plan).toMatch(/Index Cond: \(id = (ANY \()?\$\d/);
    expect(found?.plan).not.toMatch(/Seq Scan on sagas/);
  });
});
