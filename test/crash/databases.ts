// The databases of the crash matrix. One is some 400 files, and to clone it takes a good part of a case's time: that of a
// case which is over is emptied, and is the next one's. They are dropped with the run's other databases.
import { openDatabase } from '../../src/platform/db.ts';
import { createEngineDatabase } from '../support/engine.ts';
import type { TestDatabase } from '../support/services-postgres.ts';

const free: TestDatabase[] = [];

// What is in them is the schema's, and no case changes it.
const kept = ['arcadia.migrations', 'arcadia.environment', 'arcadia.saga_definitions', 'arcadia.remembered_secrets', 'bullmq.migration'];

/** A database in which nothing has happened yet. */
export async function takeDatabase(): Promise<TestDatabase> {
  return free.pop() ?? createEngineDatabase('default');
}

/** Takes a database back that nobody uses any more, but perhaps the dead: what these asked Postgres for is broken off. */
export async function giveBack(database: TestDatabase): Promise<void> {
  const db = openDatabase(database.directUrl, { max: 1 });
  try {
    await db.sql`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`;
    const tables = await db.sql<{ name: string }[]>`
      select name from (select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname in ('arcadia', 'bullmq')) as tables
      where name <> all(${kept}::text[])`;
    // All at once, as they refer to each other. TRUNCATE would make each of their files anew.
    const deletions = tables.map(({ name }, index) => `t${index} as (delete from ${name})`);
    await db.sql.unsafe(`with ${deletions.join(', ')} select`);
  } finally {
    await db.close();
  }
  free.push(database);
}
