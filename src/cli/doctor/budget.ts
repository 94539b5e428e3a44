// Reads what is left of the fleet's request budget, by drawing one of the doctor's own requests from it.
import { budgetId, createRequestBudget } from '../../do/budget.ts';
import { sharedStores } from '../../droplets/shared-stores.ts';
import type { Config } from '../../platform/config.ts';
import { isDatabaseOutage, openDatabase } from '../../platform/db.ts';
import { endsWithin } from '../../platform/deadline.ts';
import { directIo } from '../../platform/io.ts';
import { silentLog } from '../../platform/log.ts';
import { openQueueConnection, queueStoreOf } from '../../queues/connection.ts';
import type { Finding } from './finding.ts';
import { ok, warn } from './finding.ts';
import { foreignTo } from './queues.ts';

const CHECK = 'request budget';
const CLOSE_WITHIN_MS = 500;

/** Reads what is left. Reports nothing if the budget's store is unreachable or another fleet's, because another line reports that. */
export async function checkBudget(config: Config, databaseUrl: string, token: string): Promise<Finding[]> {
  const { apiUrl, requestsPerMinute: perMinute, requestsPerHour: perHour } = config.digitalOcean;
  const db = openDatabase(databaseUrl, { max: 1, applicationName: 'arcadia-doctor' });
  const connection = openQueueConnection(queueStoreOf(config), silentLog);
  try {
    const isOwn = await foreignTo(config, connection).then((foreign) => foreign === null, () => false);
    if (!isOwn) return [];
    const { budget: store } = sharedStores(config, { db, runScript: connection.runScript }, budgetId(token, apiUrl));
    const budget = createRequestBudget({ store, perMinute, perHour, io: directIo, log: silentLog });
    await budget.draw('now', { method: 'GET', path: '/v2/account' });
    const left = budget.left();
    if (left === null) return [];
    const text = `${left.minute} of ${perMinute} requests are left this minute, ${left.hour} of ${perHour} this hour`;
    if (left.minute > 0 && left.hour > 0) return [ok(CHECK, text)];
    return [warn(CHECK, text, 'Wait. If it lasts, start fewer sagas at once.')];
  } catch (error) {
    if (isDatabaseOutage(error)) return [];
    throw error;
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, Promise.allSettled([connection.close(), db.close()]));
  }
}
