import { expect, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import { ensureSchema } from '../../src/platform/create-schema.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';

test('a schema that another process creates at the same moment is there for both', async () => {
  await using database = await createTestDatabase();
  const db = openDatabase(database.directUrl, { max: 3 });
  const isWaiting = async (): Promise<boolean> => (await db.sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).length > 0;
  try {
    const second = Promise.withResolvers<void>();
    await db.sql.begin(async (sql) => {
      await sql`create schema contested`;
      ensureSchema('contested', (statement) => db.sql.unsafe(statement)).then(second.resolve, second.reject);
      await waitFor(isWaiting, { what: 'the other one to wait for the end of this transaction', everyMs: 5 });
    });
    await expect(second.promise).resolves.toBeUndefined();
  } finally {
    await db.close();
  }
});
