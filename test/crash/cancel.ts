// A cancel that comes at a bad moment: decided on the row alone, as the client does it, but without enqueueing the next
// job, which is the worker's affair as long as one runs.

import type { Database } from '../../src/platform/db.ts';
import { cancelSaga } from '../../src/saga/cancel-and-retry.ts';
import { createSagaStore } from '../../src/saga/store.ts';
import { listSagas } from '../support/list-sagas.ts';

/** Cancels every saga that can be cancelled. */
export async function cancelEverySaga(db: Database): Promise<void> {
  const store = createSagaStore(db, { worker: 'a person', reconcileGraceMs: 100 });
  for (const saga of await listSagas(db, { limit: 10 })) await cancelSaga(store, saga.id, 'a person');
}
