// Databases of earlier versions: what is in them goes on with this one.
import { createHash, randomUUID } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { Database } from '../../src/platform/db.ts';
import { openDatabase, reserveConnection } from '../../src/platform/db.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { nextJobOf } from '../../src/saga/saga.ts';
import type { SagaStatus } from '../../src/saga/saga.ts';
import { catalogOf, fakeStep, openEngine } from '../support/engine.ts';
import { migrateTo, migrationFolder } from '../support/migrate-to.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

// Of each migration that is out. A new one gets its line with it; a line is never changed: a database on which the
// migration ran before would refuse all that come after. What it did wrong, a later one mends.
const landed: Readonly<Record<string, string>> = {
  '0001.do.sagas.sql': 'c60e221691c10aff3607511bcf08e92c',
  '0002.do.inventory.sql': 'd49014632b637bf2341d7419d48e4599',
  '0003.do.web.sql': '5b9536debced346ac698c8729807b6cf',
  '0004.do.start-saga.sql': '2693dac9e8be58024022a86e20285310',
  '0005.do.sealed-user-data.sql': '69b17808c0c9d0bc0147de3b705c3de4',
  '0006.do.request-budget.sql': 'e1a766f91af422d8e55bbb64ae49d835',
  '0007.do.traces.sql': '181f28a5a3fa4959eeb7f1ebb54f0b0a',
  '0008.do.quick-transitions.sql': '734316727454f19a004be23784d76e49',
  '0009.do.inventory-sync.sql': '31127f048fd03af74b8e4e96c2a1e1c4',
  '0010.do.retention.sql': '819a18a369aeb3048fb54e45165aeda9',
  '0011.do.read-share.sql': '6852024b9d24a147b9554043c81f33c3',
  '0012.do.fewer-index-entries.sql': 'f7cd5312d5385207739f9f160dd671c5',
  '0013.do.circuits-and-workers.sql': 'df271bb9f3db3a1c8b352a63aa233266',
  '0014.do.search-path.sql': '7020b4cb247a2e8afb511eca6df81be6',
  '0015.do.tags-without-case.sql': '22014638221b2b1860219becc276ab4b',
  '0016.do.budget-before-postgres-17.sql': '1e428090bc56a508a1cfec14f6f8f408',
  '0017.do.nested-input.sql': '4b9879c2c14f44a3d1d0b3f30299c1df',
  '0018.do.proven-starter.sql': '2744c993da32822317f435f61956ee41',
  '0019.do.one-saga-a-resource.sql': '499f6f87054a4b93f876ae6d8049bb48',
  '0020.do.secrets.sql': 'adef78d28b2c2cda1b28ef51b6356e90',
  '0021.do.protection.sql': '6f985e7bed6b88528cf6d7b689013d7d',
  '0022.do.spent-tags.sql': '269815f08238c0bf07ff1a8696853252',
  '0023.do.leases.sql': '886429f32641927365428d3d543f788b',
  '0024.do.ready.sql': '1bdd6588c7768e0807c35413651a9e44',
  '0025.do.outcomes.sql': '9e0c645eab66f4f423446282e95c012d',
  '0026.do.rerun.sql': '8a3aabac913abb06b76b65a9a548259c',
  '0027.do.droplet-list.sql': 'cb0fa07b06f73ccfdd4008b537b33188',
  '0028.do.audit.sql': '6443fef1ec49790e4e15b98caeac7a48',
  '0029.do.request-counts.sql': '8fe975ce555f37dba757d65062a478e0',
  '0030.do.droplet-prices.sql': '6fe949bbab279038084235d58ca35ed7',
  '0031.do.priority.sql': '7fd086de05999bb01e20ee68b4328256',
  '0032.do.turns.sql': '5de4910ce616ba1341635a3cca60c901',
  '0033.do.account-checks.sql': '56f2753e7eb04409c84129ec52929e05',
  '0034.do.droplet-search.sql': 'eddb467632652ced94feb03115b1896e',
  '0035.do.counts-of-sagas.sql': '3f514efffdfd61a052e3c59342e3174b',
  '0036.do.resent-callbacks.sql': 'b46fe7ab96a996f7e49f5abe7204c8ed',
  '0037.do.far-turns.sql': '5f0d8597e5785810fcc6d645b3faf03c',
  '0038.do.room-for-deletions.sql': '5543409b6fda116149d30fd5ad47cdce',
  '0039.do.times-of-rows.sql': 'eaaef4448ede28c75dfb976dbb40bbe0',
  '0040.do.given-inputs.sql': 'ac34056a4a995f32d2bf6ca54c7b1141',
  '0041.do.worker-reports.sql': '0bff01badf730456230f639b93cfd7fa',
  '0042.do.queue-places.sql': '26804ba6bec499c83e543a53b8d9d4ec',
  '0043.do.orphan-acknowledgements.sql': 'b649230dbbc82f3386b106ec7294c38c',
  '0044.do.long-runs.sql': '9ee308f5fa93a438b47c0375fff4aebc',
  '0045.do.remembered-secrets.sql': 'd48fb98e6ec46744c86b91c3685606b5',
  '0046.do.versions-side-by-side.sql': '151ef4c3ee464d80c320b193c21a052d',
  '0047.do.failed-sweeps.sql': '14b256a6b67b42ba054b1f3acdf0973f',
  '0048.do.rights-of-functions.sql': 'd89ab7fc322ae4a09c9f90cd3084e8e8',
};

test('a migration that is out is not changed, and none is without its checksum here', async () => {
  const files = (await readdir(migrationFolder)).toSorted();
  const checksums = files.map(async (file) => [file, createHash('md5').update(await readFile(`${migrationFolder}${file}`)).digest('hex')] as const);
  expect(Object.fromEntries(await Promise.all(checksums))).toEqual(landed);
});

const versions = Object.keys(landed).map((file) => Number(file.slice(0, 4)));

test.each(versions.slice(0, -1))('sagas in a database of version %i go on after it was brought up to date', async (version) => {
  const database = await createTestDatabase();
  const old = openDatabase(database.directUrl, { max: 1 });
  await migrateTo((statement) => old.sql.unsafe(statement), version);
  const ids = {
    pending: await insertSaga(old, { status: 'pending', cursor: 0, revision: 0 }),
    running: await insertSaga(old, { status: 'running', cursor: 1, revision: 2 }),
    compensating: await insertSaga(old, { status: 'compensating', cursor: 1, revision: 4 }),
    stuck: await insertSaga(old, { status: 'stuck', cursor: 0, revision: 9 }),
    completed: await insertSaga(old, { status: 'completed', cursor: 2, revision: 4 }),
  };
  await old.close();

  await using engine = await openEngine(catalogOf(fakeStep('one'), fakeStep('two'), fakeStep('three')), {}, database);
  expect((await migrate(engine.db, 'test')).length).toBe(versions.length - versions.indexOf(version) - 1);
  expect((await engine.load(ids.stuck)).saga).toMatchObject({ status: 'stuck', revision: 9, steps: ['one', 'two', 'three'], context: { one: true } });
  for (const status of ['pending', 'running', 'compensating'] as const) {
    const { saga } = await engine.load(ids[status]);
    expect(saga).toMatchObject({ status, input: { name: 'web-1', tags: ['blue'] } });
    const job = nextJobOf(saga);
    if (job === null) throw new Error(`the ${status} saga has no next job`);
    await engine.drive(job);
  }
  const statusOf = async (id: string) => (await engine.load(id)).saga.status;
  expect(await Promise.all(Object.values(ids).map(statusOf))).toEqual(['completed', 'completed', 'compensated', 'stuck', 'completed']);
  expect(engine.ledger.historyOf(ids.pending)).toEqual(['one', 'two', 'three']);
  expect(engine.ledger.historyOf(ids.running)).toEqual(['two', 'three']);
  expect(engine.ledger.historyOf(ids.compensating)).toEqual(['-two', '-one']);
  expect((await engine.events(ids.running)).map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4]);
});

test('roles that write our tables call our functions as before, and others no more', async () => {
  const database = await createTestDatabase();
  const db = openDatabase(database.directUrl, { max: 1 });
  const [writer, reader] = [`writer_${randomUUID().slice(0, 8)}`, `reader_${randomUUID().slice(0, 8)}`];
  onTestFinished(async () => {
    await db.sql.unsafe(`drop owned by ${writer}, ${reader}; drop role ${writer}, ${reader}`);
    await db.close();
    await database.drop();
  });
  await migrateTo((statement) => db.sql.unsafe(statement), 47);
  await db.sql.unsafe(`create role ${writer}; create role ${reader}; grant select, update (context) on arcadia.sagas to ${writer}; grant select on arcadia.sagas to ${reader}`);
  const callable = async (role: string) => {
    const rows = await db.sql<{ name: string }[]>`
      select p.proname as name from pg_proc p where p.pronamespace = 'arcadia'::regnamespace and p.prorettype <> 'trigger'::regtype and has_function_privilege(${role}, p.oid, 'execute') order by name`;
    return rows.map(({ name }) => name);
  };
  const before = await callable(writer);
  expect([before, await callable(reader)]).toEqual([expect.arrayContaining(['draw_turn', 'without_secrets']), before]);
  await migrate(db, 'test');
  expect([await callable(writer), await callable(reader)]).toEqual([before, []]);
});

test('of a saga that SQL started, and whose definition was gone before the update, a cancel erases every text', async () => {
  const database = await createTestDatabase();
  const old = openDatabase(database.directUrl, { max: 1 });
  await migrateTo((statement) => old.sql.unsafe(statement), 44);
  await old.sql`insert into arcadia.saga_definitions (name, steps, secrets) values ('gone', '{one}', '{token}')`;
  const [started] = await old.sql<{ id: string }[]>`select arcadia.start_saga('gone', '{"size": 7, "region": "ams3", "token": "hush"}', 'order-7') as id`;
  await old.sql`delete from arcadia.saga_definitions`;
  await old.close();

  await using engine = await openEngine(catalogOf(fakeStep('one')), {}, database);
  await migrate(engine.db, 'test');
  const { sql } = engine.db;
  // What may be secret is no reason to take another request for this one.
  await expect(sql`select arcadia.start_saga('gone', '{"size": 7, "region": "nyc3", "token": "hush"}', 'order-7')`).rejects.toThrow(/was used before with another input|is taken/);
  await cancelSaga(engine.options.store, started?.id ?? '', 'test');
  expect((await engine.load(started?.id ?? '')).saga).toMatchObject({ status: 'compensated', input: { size: 7, region: '[erased, 4 bytes]', token: '[erased, 4 bytes]' } });
  // Once the definition is back, it says what is secret.
  await sql`insert into arcadia.saga_definitions (name, steps, secrets) values ('gone', '{one}', '{token}')`;
  const [again] = await sql<{ id: string }[]>`select arcadia.start_saga('gone', '{"size": 7, "region": "ams3", "token": "hush"}') as id`;
  await cancelSaga(engine.options.store, again?.id ?? '', 'test');
  expect((await engine.load(again?.id ?? '')).saga).toMatchObject({ input: { size: 7, region: 'ams3', token: '[erased, 4 bytes]' } });
});

test('a file that lies before an applied one, and is not applied, is named: nothing is migrated', async () => {
  await using database = await createTestDatabase();
  const db = openDatabase(database.url, { max: 2 });
  onTestFinished(() => db.close());
  await migrate(db, 'test');
  await db.sql`delete from arcadia.migrations where version = 41`;
  await expect(migrate(db, 'test')).rejects.toThrow(/^migrations\/0041\.do\.worker-reports\.sql is not applied to this database, though migration \d+ is\./);
});

test('tables that are in use are waited for, and nobody who holds one and asks for another is caught in between', async () => {
  const database = await createTestDatabase();
  const [old, busy] = [openDatabase(database.directUrl, { max: 1 }), openDatabase(database.directUrl, { max: 2 })];
  try {
    await migrateTo((statement) => old.sql.unsafe(statement), 11);
    const connection = await reserveConnection(busy);
    await connection`begin`;
    await connection`select from arcadia.saga_events`;
    const migrating = migrate(old, 'test');
    await waitFor(async () => (await busy.sql`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`).length > 0, { what: 'the migration to wait' });
    await connection`select from arcadia.sagas`;
    await connection`commit`;
    connection.release();
    expect(await migrating).toContain('fewer-index-entries');
  } finally {
    await Promise.all([old.close(), busy.close()]);
    await database.drop();
  }
});

/** With the columns of the first version, which all others have. */
async function insertSaga(db: Database, { status, cursor, revision }: { status: SagaStatus; cursor: number; revision: number }): Promise<string> {
  const id = randomUUID();
  const isAtRest = status === 'stuck' || status === 'completed';
  await db.sql`
    insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, context, wake_at, finished_at)
    values (
      ${id}, ${id.slice(0, 8)}, 'fake', ${status}, '{one,two,three}', ${cursor}, ${revision}, '{"name": "web-1", "tags": ["blue"]}',
      ${revision === 0 ? '{}' : '{"one": true}'}::text::jsonb,
      ${isAtRest ? null : new Date()}, ${status === 'completed' ? new Date() : null}
    )`;
  await db.sql`insert into arcadia.saga_events (saga_id, seq, kind) select ${id}, seq, 'saga_created' from generate_series(0, ${revision}::int) as seq`;
  return id;
}
