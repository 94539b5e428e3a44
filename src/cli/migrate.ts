// `migrate`: brings the tables of Postgres, and the queues there, to this version.
import { checkSession } from '../platform/check-session.ts';
import { loadConfig } from '../platform/config.ts';
import { openDatabase } from '../platform/db.ts';
import { createLog } from '../platform/create-log.ts';
import { migrate } from '../processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../queues/connection.ts';
import { loadApp } from './app.ts';
import { write } from './output.ts';

export async function migrateCommand(options: { json?: boolean }): Promise<number> {
  const config = loadConfig(process.env, ['DATABASE_URL']);
  const queueStore = queueStoreOf(config);
  const db = openDatabase(config.databaseUrl ?? '', { max: 2 });
  try {
    await checkSession(db, config.databaseUrl ?? '', createLog('warn', 2));
    const applied = await migrate(db, config.environment, (await loadApp(config.appFile)).catalog);
    await migrateQueues(queueStore);
    if (options.json === true) write(JSON.stringify({ environment: config.environment, applied }));
    else write(applied.length === 0 ? `up to date (environment ${config.environment})` : `applied: ${applied.join(', ')} (environment ${config.environment})`);
    return 0;
  } finally {
    await db.close();
  }
}
