// Listens for sagas whose creator could not enqueue them: started by SQL, or in a caller's own transaction. This is only
// a hint. The reconciler finds what the listener misses (behind a pooler such as PgBouncer in transaction mode,
// everything).
import { once } from 'node:events';
import postgres from 'postgres';
import { readDatabaseUrl } from '../platform/database-url.ts';
import { postgresJsOptions } from '../platform/postgres-js-options.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import { NEW_SAGAS_CHANNEL } from '../saga/new-saga.ts';
import { createWakeup } from '../saga/wakeup.ts';

// LISTEN is repeated at this interval. It has no effect on a live connection, and shows that the connection is alive. A
// connection that ends is replaced at once, and one that cannot be replaced is tried again sooner.
const REPEAT_MS = 15_000;
const RETRY_MS = 5_000;
const TIME_LIMIT_MS = 5_000;

/**
 * Listens until the signal is aborted.
 *
 * @param onSaga called for each notified saga, and after each gap in which one may have been missed
 */
export async function listenForSagas(databaseUrl: string, options: { onSaga: () => void; signal: AbortSignal; log: Log }): Promise<void> {
  const { onSaga, signal, log } = options;
  const address = readDatabaseUrl(databaseUrl);
  if (address.isPooled === true) {
    // LISTEN would stay on a server session that other clients use next.
    log.info('sagas that are started by SQL are not heard of through a pooler: the reconciler finds them');
    if (!signal.aborted) await once(signal, 'abort');
    return;
  }
  let isListening = false;
  const wakeup = createWakeup();
  const settings = {
    ...postgresJsOptions(address, { applicationName: 'arcadia-listen', statementTimeoutMs: TIME_LIMIT_MS }),
    max: 1,
    // The connection is idle while it waits.
    idle_timeout: 0,
    max_lifetime: null,
    backoff: () => 0.5,
    fetch_types: false,
    onnotice: () => undefined,
    onclose: () => {
      if (isListening) wakeup.wake();
      isListening = false;
    },
    // Like postgres.js's own `listen`, which however gives up if the first reconnect fails.
    onnotify: onSaga,
  };
  const sql = postgres(settings);
  while (!signal.aborted) {
    try {
      await withDeadline(TIME_LIMIT_MS, sql`listen ${sql(NEW_SAGAS_CHANNEL)}`, () => new Error('Postgres did not answer'));
      if (!isListening) onSaga();
      isListening = true;
    } catch (error) {
      isListening = false;
      log.debug({ err: error }, 'cannot hear of new sagas: the reconciler finds them');
    }
    await wakeup.wait(isListening ? REPEAT_MS : RETRY_MS, signal);
  }
  await sql.end({ timeout: 1 });
}
