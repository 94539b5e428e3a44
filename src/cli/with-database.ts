// The database for commands that work on its tables themselves, past the client.
import { checkSession } from '../platform/check-session.ts';
import type { Config, ConfigNeed } from '../platform/config.ts';
import { createLog } from '../platform/create-log.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase } from '../platform/db.ts';
import { CLOSING_MS, endsWithin, unlessAborted } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import type { Environment } from '../processes/environment.ts';
import { checkEnvironment } from '../processes/environment.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import { requireInventory } from './app.ts';

type Use = (db: Database, config: Config, log: Log, environment: Environment) => Promise<number>;

/**
 * Opens the database of this environment, and closes it again.
 *
 * @param stop ends the checks before `use`
 * @throws {ConfigError} {EnvironmentMismatchError} where it cannot be used, or is another environment's
 */
export async function withDatabase(app: App, needs: readonly ConfigNeed[], use: Use, stop: AbortSignal = new AbortController().signal): Promise<number> {
  const config = loadConfigFor(app, process.env, needs);
  const log = createLog(config.logLevel === 'info' ? 'error' : config.logLevel, 2);
  const db = openDatabase(config.databaseUrl ?? '', { max: Math.min(4, config.databasePoolMax) });
  try {
    const check = async () => {
      await checkSession(db, config.databaseUrl ?? '', log);
      return checkEnvironment(db, config.environment);
    };
    const environment = await unlessAborted(stop, check());
    return await use(db, config, log, environment);
  } finally {
    await endsWithin(CLOSING_MS, db.close());
  }
}

/** The same for a command about the inventory: only for an app that has one. */
export async function withInventoryDatabase(app: App, needs: readonly ConfigNeed[], use: Use, stop?: AbortSignal): Promise<number> {
  requireInventory(app);
  return withDatabase(app, needs, use, stop);
}
