// One database for all tests of a file.
import { afterAll, beforeAll } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { createEngineDatabase } from './engine.ts';

/** Makes it before the file's tests and drops it after them; the function returned hands it out meanwhile. */
export function useSharedDatabase(max: number): () => Database {
  let shared: { db: Database; close: () => Promise<void> } | undefined;
  beforeAll(async () => {
    const database = await createEngineDatabase();
    const db = openDatabase(database.url, { max });
    shared = {
      db,
      close: async () => {
        await db.close();
        await database.drop();
      },
    };
  });
  afterAll(() => shared?.close());
  return () => {
    if (shared === undefined) throw new Error('there is no database yet');
    return shared.db;
  };
}
