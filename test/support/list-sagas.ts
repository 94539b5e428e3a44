// All sagas of a test's database.
import type { Database } from '../../src/platform/db.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { sagaColumns } from '../../src/saga/store.ts';

/** Lists sagas, newest first. */
export function listSagas(db: Pick<Database, 'run'>, { limit }: { limit: number }): Promise<Saga[]> {
  return db.run('test.list_sagas', (sql) => sql<Saga[]>`select ${sagaColumns(sql)} from arcadia.sagas order by created_at desc, id limit ${limit}`);
}
