// Hears of sagas that were started where nobody could enqueue them: by SQL, or in a caller's own transaction. Only a
// hint: what is not heard (through a pooler such as PgBouncer in transaction mode nothing is) the reconciler finds.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import postgres from 'postgres';
import { readDatabaseUrl } from '../platform/database-url.ts';
import { postgresJsOptions } from '../platform/postgres-js-options.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import { NEW_SAGAS_CHANNEL } from '../saga/store.ts';

// LISTEN is repeated so often: it does nothing where it stands, and makes it anew where the connection was lost.
const REPEAT_MS = 5_000;
const TIME_LIMIT_MS = 5_000;

/**
 * Listens until the signal is aborted.
 *
 * @param onSaga called for each saga that is heard of, and after each gap in which one may have been missed
 */
export async function listenForSagas(databaseUrl: string, options: { onSaga: () => void; signal: AbortSignal; log: Log }): Promise<void> {
  const { onSaga, signal, log } = options;
  const address = readDatabaseUrl(databaseUrl);
  if (address.isPooled === true) {
    // LISTEN would stay behind on a session of the server's that other clients use next.
    log.info('sagas that are started by SQL are not heard of through a pooler: the reconciler finds them');
    if (!signal.aborted) await once(signal, 'abort');
    return;
  }
  let isListening = false;
  const settings = {
    ...postgresJsOptions(address, { applicationName: 'arcadia-listen', statementTimeoutMs: TIME_LIMIT_MS }),
    max: 1,
    // It waits in silence.
    idle_timeout: 0,
    max_lifetime: null,
    backoff: () => 0.5,
    fetch_types: false,
    onnotice: () => undefined,
    onclose: () => {
      isListening = false;
    },
    // As in postgres.js's own `listen`, which gives up once a connection could not be made again at the first try.
    onnotify: onSaga,
  };
  const sql = postgres(settings);
  while (!signal.aborted) {
    try {
      await withDeadline(TIME_LIMIT_MS, sql`listen ${sql(NEW_SAGAS_CHANNEL)}`, () => new Error('Postgres did not answer'));
      if (!isListening) onSaga();
      isListening = true;
    } catch (error) {
      log.debug({ err: error }, 'cannot hear of new sagas: the reconciler finds them');
    }
    await delay(REPEAT_MS, undefined, { signal }).catch(() => undefined);
  }
  await sql.end({ timeout: 1 });
}
