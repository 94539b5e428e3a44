// Empties tables between the tests of a file. TRUNCATE would make each table, index and TOAST table a new file, and have every
// connection read the catalogs and plan its statements again: that costs a test more than its own statements do.
import type { Sql } from '../../src/platform/db.ts';

// By the tables' names: a file always asks for the same ones.
const statementsOf = new Map<string, string>();

/** Deletes all rows of these tables, and of those that refer to them, as `truncate … cascade` would. No trigger fires. */
export async function emptyTables(sql: Sql, tables: readonly string[]): Promise<void> {
  const key = tables.join();
  const statements = statementsOf.get(key) ?? (await deletionsOf(sql, tables));
  statementsOf.set(key, statements);
  await sql.begin((transaction) => transaction.unsafe(statements));
}

async function deletionsOf(sql: Sql, tables: readonly string[]): Promise<string> {
  const rows = await sql<{ name: string }[]>`
    with recursive emptied(id) as (
      select unnest(${tables}::text[]::regclass[])::oid
      union
      select conrelid from pg_constraint join emptied on confrelid = id where contype = 'f'
    )
    select id::regclass::text as name from emptied`;
  // Foreign keys are triggers: what refers to a row is deleted here as well.
  return ['set local session_replication_role = replica', ...rows.map(({ name }) => `delete from ${name}`)].join(';\n');
}
