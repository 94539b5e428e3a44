// `migrate` migrates the Postgres tables, and the queues there, to this version.
import { createLog } from '../platform/create-log.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import { migrateAll } from '../processes/run-app.ts';
import type { App } from '../saga/app.ts';
import type { Blocker } from '../platform/lock-retries.ts';
import { describeBlockers } from '../platform/lock-retries.ts';
import { printable } from '../platform/text.ts';
import { complain, write } from './output.ts';

export async function migrateCommand(app: App, options: { json?: boolean }): Promise<number> {
  const config = loadConfigFor(app, process.env, ['DATABASE_URL']);
  const applied = await migrateAll(app, config, createLog('warn', 2), { onForgotten, onBlocked });
  if (options.json === true) write(JSON.stringify({ environment: config.environment, applied }));
  else write(applied.length === 0 ? `up to date (environment ${config.environment})` : `applied: ${applied.join(', ')} (environment ${config.environment})`);
  return 0;
}

function onForgotten(sagas: readonly string[]): void {
  const it = sagas.length === 1 ? 'it' : 'them';
  complain(`SQL can no longer start ${sagas.map(printable).join(', ')}: this app does not have ${it}, and a database has one app. If that is not meant, run \`arcadia migrate\` again with the app that has ${it} (ARCADIA_APP, --app). Two apps cannot share a database: put their sagas into one`);
}

function onBlocked(blockers: readonly Blocker[]): void {
  complain(`waiting for locks on the tables: ${printable(describeBlockers(blockers))}. Sagas go on meanwhile. migrate tries again every few seconds until that ends; to stop it, press Ctrl-C`);
}
