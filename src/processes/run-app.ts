// The processes of an app, for programs that start them: `arcadia-cloud/engine`. The command line starts the same
// processes.
import { checkSession } from '../platform/check-session.ts';
import type { Config, ConfigNeed } from '../platform/config.ts';
import { openDatabase } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { createLog } from '../platform/create-log.ts';
import type { Blocker } from '../platform/lock-retries.ts';
import { migrateQueues, queueStoreOf } from '../queues/connection.ts';
import type { App } from '../saga/app.ts';
import { needsOf } from '../saga/extension.ts';
import { loadConfigFor } from './inventory.ts';
import { migrate } from './migrate.ts';
import type { RunningWeb } from './web.ts';
import { startWeb } from './web.ts';
import type { RunningWorker } from './worker.ts';
import { startWorker } from './worker.ts';

/** Settings of a process. */
export type ProcessOptions = Readonly<{
  /** The settings, by variable name; default `process.env`. */
  environment?: Readonly<Record<string, string | undefined>>;
  /** Overrides DATABASE_URL. */
  databaseUrl?: string;
  /** Overrides REDIS_URL; null: the queues are in Postgres. */
  redisUrl?: string | null;
  /** A pino logger; by default the process's own, at LOG_LEVEL. */
  log?: Log;
}>;

/** Cancels a start, with the signal's reason. After the start, use `close`. */
export type StartOptions = ProcessOptions & Readonly<{ signal?: AbortSignal }>;

/** `startWorker` of `arcadia-cloud/engine`. */
export async function runWorker(app: App, options: StartOptions): Promise<RunningWorker> {
  const config = configOf(app, options, ['DATABASE_URL', ...needsOf(app)]);
  return startWorker(config, options.log ?? createLog(config.logLevel), undefined, app, options.signal);
}

/** `startWeb` of `arcadia-cloud/engine`. */
export async function runWeb(app: App, options: StartOptions): Promise<RunningWeb> {
  const config = configOf(app, options, ['DATABASE_URL']);
  const { signal } = options;
  return startWeb(config, options.log ?? createLog(config.logLevel), { app, ...(signal === undefined ? {} : { signal }) });
}

/** `migrate` of `arcadia-cloud/engine`. */
export async function runMigrations(app: App, options: ProcessOptions): Promise<string[]> {
  const config = configOf(app, options, ['DATABASE_URL']);
  const log = options.log ?? createLog('warn', 2);
  return migrateAll(app, config, log, {
    onForgotten: (sagas) => log.warn({ sagas }, 'SQL can no longer start these sagas: this app does not have them, and a database has one app'),
    onBlocked: (blockers) => log.warn({ blockers }, 'migrate waits for locks that others hold: it tries again until it gets them'),
  });
}

/**
 * Migrates the Postgres tables, and the queues there, to this version.
 *
 * @param tell.onForgotten called with the sagas that SQL could start until now, and that this app does not have
 * @param tell.onBlocked called with the sessions that hold locks that it waits for
 * @returns the names of the applied migrations
 */
export async function migrateAll(app: App, config: Config, log: Log, tell: { onForgotten: (sagas: readonly string[]) => void; onBlocked: (blockers: readonly Blocker[]) => void }): Promise<string[]> {
  const queueStore = queueStoreOf(config);
  const databaseUrl = config.databaseUrl ?? '';
  const db = openDatabase(databaseUrl, { max: 2 });
  try {
    await checkSession(db, databaseUrl, log);
    const applied = await migrate(db, config.environment, app.catalog, tell);
    await migrateQueues(queueStore, { onBlocked: tell.onBlocked });
    return applied;
  } finally {
    await db.close();
  }
}

function configOf(app: App, { environment = process.env, databaseUrl, redisUrl }: ProcessOptions, needs: readonly ConfigNeed[]): Config {
  return loadConfigFor(
    app,
    {
      ...environment,
      ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl }),
      ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl ?? '' }),
    },
    needs,
  );
}
