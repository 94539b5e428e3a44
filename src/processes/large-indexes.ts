// Indexes on tables that may have millions of rows. A migration would lock such a table while it builds one; these are built
// while sagas go on.
import type { ReservedSql } from '../platform/db.ts';

type LargeIndex = Readonly<{ name: string; table: string; on: string }>;

const largeIndexes: readonly LargeIndex[] = [
  // Finds sagas by the beginning of their subject's name: see titleSql in saga/search.ts. The input never changes, so a saga that
  // moves from step to step without outputs writes no entry (decision 19).
  { name: 'sagas_by_title', table: 'sagas', on: `((lower(left(input->>'name', 255)) collate "C"), id) where input->>'name' is not null` },
];

/**
 * Builds the missing indexes of tables of at most `largeBytes`, in the connection's transaction.
 *
 * @returns the indexes that are left for {@link buildConcurrently}
 */
export async function buildSmallIndexes(connection: ReservedSql, largeBytes: number): Promise<readonly LargeIndex[]> {
  const left: LargeIndex[] = [];
  for (const index of largeIndexes) {
    const [state] = await connection<{ isValid: boolean | null; isSmall: boolean }[]>`
      select (select indisvalid from pg_index where indexrelid = to_regclass(${`arcadia.${index.name}`})) as is_valid,
             pg_relation_size(${`arcadia.${index.table}`}::regclass) <= ${largeBytes}::bigint as is_small`;
    if (state?.isValid === true) continue;
    if (state?.isValid === null && state.isSmall) await connection.unsafe(`create index ${index.name} on arcadia.${index.table} ${index.on}`);
    else left.push(index);
  }
  return left;
}

/**
 * Builds indexes while others write. Takes as long as it takes to read the table twice, and waits for transactions that are
 * older, such as a backup. If it is interrupted, it leaves an invalid index, which the next call replaces.
 */
export async function buildConcurrently(connection: ReservedSql, indexes: readonly LargeIndex[]): Promise<void> {
  if (indexes.length === 0) return;
  // No transaction, and so no setting for it alone: `create index concurrently` would refuse one.
  await connection`set statement_timeout = 0`;
  try {
    for (const { name, table, on } of indexes) {
      const [busy] = await connection`select 1 from pg_stat_progress_create_index where index_relid = to_regclass(${`arcadia.${name}`})`;
      // Another process is building it.
      if (busy !== undefined) continue;
      await connection.unsafe(`drop index concurrently if exists arcadia.${name}`);
      await connection.unsafe(`create index concurrently if not exists ${name} on arcadia.${table} ${on}`);
    }
  } finally {
    await connection`reset statement_timeout`;
  }
}
