// Wires a web process: Postgres, the queues, and the web application with its ports.
import { setTimeout as delay } from 'node:timers/promises';
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import { requireClosedWeb } from '../platform/closed-ports.ts';
import { ConfigError } from '../platform/config-error.ts';
import { openDatabase } from '../platform/db.ts';
import { endsWithin, unlessAborted } from '../platform/deadline.ts';
import { loadDefaultApp } from './default-app.ts';
import { requireMigrated } from './due-migrations.ts';
import { checkEnvironment, ownerOf } from './environment.ts';
import { hasInventory, openInventory, openPlansOf } from './inventory.ts';
import { directIo } from '../platform/io.ts';
import { listenFailure } from '../platform/listen-failure.ts';
import type { Log } from '../platform/log.ts';
import { checkPooler } from './pooler.ts';
import { createSagaEndMetrics } from './saga-end-metrics.ts';
import { openQueueConnection, placeOf, queueStoreOf } from '../queues/connection.ts';
import { openQueueDashboard } from '../queues/dashboard.ts';
import { tellUnreadable } from '../queues/remove-unreadable.ts';
import { openStepQueues } from '../queues/step-queues.ts';
import { queueNames } from '../queues/jobs.ts';
import type { App } from '../saga/app.ts';
import { labelsOf } from '../saga/labels.ts';
import { listEvents } from '../saga/events.ts';
import { requireOwnSecrets } from '../platform/published-secrets.ts';
import { tracedIo } from '../platform/tracing.ts';
import { pagesOf } from '../web/pages/layout.ts';
import { keepClaim } from '../queues/keep-claim.ts';
import { bindPorts } from '../web/ports.ts';
import { buildWeb } from '../web/server.ts';
import { takenNames } from '../web/users.ts';
import { noUsersFile, openUsersFile } from '../web/users-file.ts';

export type RunningWeb = Readonly<{
  /** The URL it listens on. */
  url: string;
  /** Its pages, by the names in its navigation. */
  pages: readonly Readonly<{ text: string; path: string }>[];
  /**
   * Resolves with a reason if another database claimed the queues: sagas would be enqueued among its own. Otherwise never
   * resolves. Only a new process helps.
   */
  cannotGoOn: Promise<string>;
  /** Stops accepting requests, ends the streams, gives other requests a few seconds to finish, and closes everything. */
  close(): Promise<void>;
}>;

const CLOSING_MS = 10_000;
// For connections that were never used.
const GIVING_UP_MS = 1_500;

/**
 * Starts the web application in this process.
 *
 * @param options.app the sagas that can be started and shown; the droplet sagas by default
 * @param options.workerMetrics metrics of a worker in the same process, to expose together with its own
 * @param options.signal cancels the start, with its reason
 * @throws {ConfigError} if the database is missing, the address is reachable from other machines without
 *   credentials or cannot be listened on, or a secret is published
 * @throws {EnvironmentMismatchError} if the database belongs to another environment
 * @throws {NotMigratedError} if migrations are due
 * @throws {QueueStoreError} if the queue store is unreachable or may evict jobs
 * @throws {Error} with code `EADDRINUSE` if the port is in use
 */
export async function startWeb(config: Config, log: Log, options: { app?: Pick<App, 'catalog'>; workerMetrics?: () => Promise<string>; signal?: AbortSignal } = {}): Promise<RunningWeb> {
  const { signal = new AbortController().signal } = options;
  const app = options.app ?? (await loadDefaultApp());
  const ends = createSagaEndMetrics(app.catalog);
  // A worker in this process counts ends under the same names. A series must not appear twice.
  const ownMetrics = options.workerMetrics ?? ends.expose;
  const { databaseUrl } = config;
  for (const name of config.web.impliedDestroy) {
    log.warn({ tokenName: name }, 'API_TOKENS: the scope start still lets this token start destroy_droplet; the next version drops that. Write start+destroy where the token is to destroy droplets; API_TOKENS_START_MAY_DESTROY=false drops it now');
  }
  if (databaseUrl === null) throw new ConfigError('the web needs DATABASE_URL');
  requireClosedWeb(config.web);
  requireOwnSecrets(config);
  const people = config.web.usersFile === null ? noUsersFile : await openUsersFile(config.web.usersFile, takenNames(config.web), log);
  const db = openDatabase(databaseUrl, { max: Math.min(10, config.databasePoolMax), applicationName: 'arcadia-web', io: tracedIo(directIo) });
  const connection = openQueueConnection(queueStoreOf(config), log);
  const queues = openStepQueues(connection, directIo, { labelsOf: labelsOf(app.catalog), onUnreadable: tellUnreadable({ db, actor: 'web', log }) });
  const shownQueues = Object.values(queueNames).filter((name) => (name !== queueNames.inventory || hasInventory(app)) && (name !== queueNames.outcomes || config.outcomes.webhook !== null));
  const dashboard = openQueueDashboard(connection, (sagaId, afterSeq) => listEvents(db, sagaId, afterSeq), config.web.basePath, shownQueues);
  let clock: ClockWatch | null = null;
  const stopping = new AbortController();
  const closeAll = async (): Promise<void> => {
    stopping.abort();
    people.close();
    clock?.close();
    await Promise.allSettled([queues.close(), dashboard.close()]);
    await Promise.allSettled([connection.close(), db.close()]);
  };
  try {
    const check = async () => {
      await checkPooler(db, databaseUrl, log);
      await checkSession(db, databaseUrl, log);
      const environment = await checkEnvironment(db, config.environment);
      await requireMigrated(db);
      clock = await keepDatabaseTime({ db, everyMs: config.reconcileIntervalMs, log });
      const owner = ownerOf(environment);
      await connection.check(owner);
      return owner;
    };
    const owner = await unlessAborted(signal, check());
    const inventory = await openInventory(app, db);
    const plans = await openPlansOf(app, { config, db, runScript: connection.runScript, isPaused: async () => (await dashboard.paused()).includes(queueNames.steps), log });
    const ports = bindPorts({ catalog: app.catalog, inventory, plans, db, connection, queues, dashboard, keyRing: config.keyRing, deployment: { publicUrl: config.publicUrl, longestLeaseS: config.lease.maxS }, onEnd: ends.onEnd, ownMetrics, workerGraceMs: config.reconcileIntervalMs, log });
    const web = await buildWeb(ports, {
      auth: { ...config.web, users: people.users, publicHost: config.publicUrl === null ? null : new URL(config.publicUrl).host },
      fleet: { reconcileIntervalMs: config.reconcileIntervalMs, inventorySyncIntervalMs: inventory === null ? null : config.inventorySyncIntervalMs, queuePlace: placeOf(connection.store), usersFile: people.broken },
      basePath: config.web.basePath,
      trustedProxies: config.web.trustedProxies,
      log,
    });
    let url: string;
    try {
      url = await web.listen({ host: config.web.host, port: config.web.port });
    } catch (error) {
      await web.close();
      throw listenFailure(error, { host: config.web.host, port: config.web.port, settings: { port: 'PORT', host: 'HOST' }, whatToDo: 'Stop what listens there, or set PORT to another one.' });
    }
    const claiming = keepClaim(connection, owner, { everyMs: config.reconcileIntervalMs, signal: stopping.signal, log });
    return {
      url,
      cannotGoOn: claiming.then(async (why) => why ?? new Promise<never>(() => {})),
      pages: pagesOf(web).map(({ text, path }) => ({ text, path })),
      close: async () => {
        const closed = web.close().then(closeAll);
        await Promise.race([closed, delay(CLOSING_MS, undefined, { ref: false })]);
      },
    };
  } catch (error) {
    await endsWithin(GIVING_UP_MS, closeAll());
    throw error;
  }
}
